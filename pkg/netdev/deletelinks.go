package netdev

import (
	"errors"
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// firstOwnGroup is the lowest device group that is drawn here: people and other programs
// number theirs from below.
const firstOwnGroup = 1 << 31

// DeleteLinks deletes devices of any kind, by name, many at the price of a few: see
// DeleteBatch. The answers are in the order of names; nil also for one that was not there.
func DeleteLinks(names ...string) []error {
	c, err := dial()
	if err != nil {
		return repeat(err, len(names))
	}
	defer c.close()
	found, errs := map[int]bool{}, make([]error, len(names))
	at := make([]int, len(names)) // indices; 0: it is not there
	for i, name := range names {
		if at[i], errs[i] = c.index(name); errors.Is(errs[i], ErrNotFound) {
			errs[i] = nil
		}
		if at[i] != 0 {
			found[at[i]] = true
		}
	}
	if len(found) > 1 && c.deleteGroup(firstOwnGroup+rand.Uint32N(firstOwnGroup), found) == nil {
		return errs
	}
	for i, index := range at {
		if index != 0 {
			errs[i] = wrap("delete link "+names[i], deleteIndex(c, index))
		}
	}
	return errs
}

// errCrowded says that a device group has others' devices in it.
var errCrowded = errors.New("the device group has others' devices in it")

// deleteGroup deletes these devices, by index, as a group that nobody else is to be in.
func (c *conn) deleteGroup(group uint32, found map[int]bool) error {
	if err := c.mark(group, found); err != nil {
		return err
	}
	all, err := c.links()
	if err != nil {
		return err
	}
	for _, l := range all {
		if l.group == group && !found[l.index] {
			return errCrowded
		}
	}
	err = c.batch(request(unix.RTM_DELLINK, 0, info(0), u32Attr(unix.IFLA_GROUP, group)))[0]
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
