package netdev

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Named is a link to be deleted and the attachment that it must belong to.
type Named struct {
	Name string // of the host's end
	Hash string // attachment.Key.Hash
}

// Detach deletes one attachment's pair of interfaces; the kernel takes 15 to
// 20 ms for it. A link belongs to the attachment when its alias has the hash, or
// when it has no alias and the name that follows from the hash. Nil when there
// is no such link; ErrNotOurs when it is another's, which stays.
func Detach(host, hash string) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	return c.detach(Named{host, hash})
}

// Attached reports whether the host has an attachment's link: what Detach would delete.
func Attached(host, hash string) (bool, error) {
	c, err := dial()
	if err != nil {
		return false, err
	}
	defer c.close()
	l, err := c.link(host)
	if err == nil {
		err = l.belongsTo(hash)
	}
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotOurs) {
		return false, nil
	}
	return err == nil, wrap("look for "+host, err)
}

func (c *conn) detach(n Named) error {
	l, err := c.link(n.Name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil {
		err = l.belongsTo(n.Hash)
	}
	if err == nil {
		err = deleteIndex(c, l.index)
	}
	return wrap("detach "+n.Name, err)
}

// DeleteBatch deletes many attachments' links at the price of about one: it puts
// them into a device group and has the kernel delete the group. The answers are
// in the order of links; nil also for a link that was not there, ErrNotOurs for
// one that belongs to somebody else and stays.
//
// group is the caller's own number, drawn at random, so that nobody else's links
// are in it. Even so the group is listed before it is deleted: with a stranger in
// it, the links are deleted one by one. A link that is left with the mark, because
// its deleter died, is to be deleted by the next one and never to be used again.
func DeleteBatch(group uint32, links []Named) []error {
	c, err := dial()
	if err != nil {
		return repeat(err, len(links))
	}
	defer c.close()
	if len(links) == 1 {
		return []error{c.detach(links[0])}
	}
	return c.deleteBatch(group, links)
}

func (c *conn) deleteBatch(group uint32, links []Named) []error {
	found, errs := c.findOurs(links)
	if len(found) == 0 {
		return errs
	}
	if err := c.mark(group, found); err != nil {
		return c.oneByOne(links, errs)
	}
	if alone, err := c.onlyOurs(group, found); err != nil || !alone {
		return c.oneByOne(links, errs)
	}
	err := c.batch(request(unix.RTM_DELLINK, 0, info(0), u32Attr(unix.IFLA_GROUP, group)))[0]
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return c.oneByOne(links, errs)
	}
	return errs
}

// fewLinks are looked up one by one; for more of them all links are listed once.
const fewLinks = 32

// findOurs gives the indices of those links that may be deleted, and for each
// link why it may not. A link that is not there is neither found nor an error.
func (c *conn) findOurs(links []Named) (map[int]bool, []error) {
	look := c.link
	if len(links) > fewLinks {
		all, err := c.links()
		if err != nil {
			return nil, repeat(err, len(links))
		}
		look = byName(all)
	}
	found, errs := map[int]bool{}, make([]error, len(links))
	for i, n := range links {
		l, err := look(n.Name)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err == nil {
			err = l.belongsTo(n.Hash)
		}
		if err != nil {
			errs[i] = fmt.Errorf("detach %s: %w", n.Name, err)
			continue
		}
		found[l.index] = true
	}
	return found, errs
}

func byName(all []link) func(string) (link, error) {
	links := make(map[string]link, len(all))
	for _, l := range all {
		links[l.name] = l
	}
	return func(name string) (link, error) {
		if l, ok := links[name]; ok {
			return l, nil
		}
		return link{}, ErrNotFound
	}
}

// mark puts the links into the group. One that vanished meanwhile is no error.
func (c *conn) mark(group uint32, found map[int]bool) error {
	ms := make([]*nl.NetlinkRequest, 0, len(found))
	for index := range found {
		ms = append(ms, request(unix.RTM_SETLINK, 0, info(index), u32Attr(unix.IFLA_GROUP, group)))
	}
	for _, err := range c.batch(ms...) {
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	return nil
}

// onlyOurs reports whether all links of the group are of this batch, or
// attachments left over from one before.
func (c *conn) onlyOurs(group uint32, found map[int]bool) (bool, error) {
	all, err := c.links()
	if err != nil {
		return false, err
	}
	for _, l := range all {
		if l.group == group && !found[l.index] && !l.isAttachment() {
			return false, nil
		}
	}
	return true, nil
}

// oneByOne deletes what nothing was known against.
func (c *conn) oneByOne(links []Named, errs []error) []error {
	for i, n := range links {
		if !errors.Is(errs[i], ErrNotOurs) {
			errs[i] = c.detach(n)
		}
	}
	return errs
}

func repeat(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}
