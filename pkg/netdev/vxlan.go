package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// VXLAN is a network's way to other hosts: a port of its bridge.
type VXLAN struct {
	Name   string
	Bridge string
	VNI    uint32
	Port   uint16     // UDP, the same on every host
	Local  netip.Addr // of this host, the outer source; remote VTEPs are of its family
	MTU    int        // of the network; 0: the kernel's choice
}

// EnsureVXLAN makes the device or repairs it. It learns nothing, and neither
// does the bridge at its port: SyncForwarding alone says who is where. Outer
// checksums are on, for the sake of the receiver's offloads. A device that fits
// is left as it is, with its forwarding table, so no packet is lost; one whose
// VNI, port or local address differ is replaced, with an empty table.
// ErrWrongKind when the name is taken by something else.
func EnsureVXLAN(v VXLAN) error {
	if err := v.ensure(); err != nil {
		return fmt.Errorf("ensure vxlan %q: %w", v.Name, err)
	}
	return nil
}

// VXLANPort is the UDP port of a VXLAN device. ErrNotFound; ErrWrongKind.
func VXLANPort(name string) (uint16, error) {
	l, err := linkByName(name)
	if err != nil {
		return 0, fmt.Errorf("port of vxlan %q: %w", name, err)
	}
	v, ok := l.(*netlink.Vxlan)
	if !ok {
		return 0, fmt.Errorf("port of vxlan %q: it is a %q: %w", name, l.Type(), ErrWrongKind)
	}
	return uint16(v.Port), nil
}

func (v VXLAN) ensure() error {
	if err := v.check(); err != nil {
		return err
	}
	bridge, err := linkByName(v.Bridge)
	if err != nil {
		return fmt.Errorf("bridge %q: %w", v.Bridge, err)
	}
	l, err := v.findOrMake(bridge.Attrs().Index)
	if err != nil {
		return err
	}
	if v.MTU != 0 && l.Attrs().MTU != v.MTU {
		if err := netlink.LinkSetMTU(l, v.MTU); err != nil {
			return fmt.Errorf("set MTU %d: %w", v.MTU, err)
		}
	}
	if err := Sysctl("net/ipv6/conf/"+v.Name+"/disable_ipv6", "1"); err != nil && !errors.Is(err, unix.ENOENT) {
		return err // the host is no station at this port
	}
	if l.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := netlink.LinkSetMaster(l, bridge); err != nil {
			return fmt.Errorf("make it a port of %q: %w", v.Bridge, err)
		}
	}
	return v.setPort()
}

func (v VXLAN) check() error {
	if err := attachment.ValidIfName(v.Name); err != nil {
		return err
	}
	if v.VNI == 0 || v.VNI >= 1<<24 || v.Port == 0 || !v.Local.IsValid() {
		return fmt.Errorf("VNI %d, port %d, local address %s: want a VNI of 1 to 16777215, a port and an address", v.VNI, v.Port, v.Local)
	}
	return nil
}

// findOrMake gives the device. A new one is a port of that bridge, and down.
func (v VXLAN) findOrMake(bridge int) (netlink.Link, error) {
	l, err := linkByName(v.Name)
	if err == nil {
		have, ok := l.(*netlink.Vxlan)
		if !ok {
			return nil, fmt.Errorf("it is a %q: %w", l.Type(), ErrWrongKind)
		}
		if v.fits(have) {
			return l, nil
		}
		if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			return nil, fmt.Errorf("replace: %w", err)
		}
	} else if !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	made := &netlink.Vxlan{
		LinkAttrs: netlink.NewLinkAttrs(),
		VxlanId:   int(v.VNI),
		Port:      int(v.Port),
		SrcAddr:   v.Local.AsSlice(),
		UDPCSum:   true,
	}
	made.Name, made.MTU, made.MasterIndex = v.Name, v.MTU, bridge
	if err := netlink.LinkAdd(made); err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	return linkByName(v.Name)
}

func (v VXLAN) fits(have *netlink.Vxlan) bool {
	return have.VxlanId == int(v.VNI) && have.Port == int(v.Port) && toAddr(have.SrcAddr) == v.Local &&
		!have.Learning && !have.FlowBased && have.VtepDevIndex == 0 && (have.UDPCSum || v.Local.Is6())
}

// setPort sets the flags of the bridge port, where they differ, and the device up.
func (v VXLAN) setPort() error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	l, err := c.link(v.Name)
	if err != nil {
		return err
	}
	var parts []nl.NetlinkRequestData
	if !l.has(tunnelPort) {
		parts = append(parts, portAttr(tunnelPort))
	}
	switch {
	case !l.up:
		parts = slices.Insert(parts, 0, nl.NetlinkRequestData(infoUp(l.index))) // after the flags, whatever the order here
	case len(parts) > 0:
		parts = slices.Insert(parts, 0, nl.NetlinkRequestData(info(l.index)))
	default:
		return nil
	}
	return wrap("set port flags, set up", c.batch(request(unix.RTM_NEWLINK, 0, parts...))[0])
}
