package cniconf

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/weave-cni/weave-cni/pkg/netdev"
)

// Most that a result may hold; a result beyond it is refused.
const maxResultItems = 1024

// DecodeResult reads a CNI result of any version that we speak. A result that
// does not say its version has that of the configuration. Null entries, a bad
// address and an index that points nowhere are errors.
func DecodeResult(b []byte, confVersion string) (*current.Result, error) {
	if err := checkResultShape(b); err != nil {
		return nil, err
	}
	b, version, err := withVersion(b, confVersion)
	if err != nil {
		return nil, err
	}
	any, err := create.Create(version, b)
	if err != nil {
		return nil, err
	}
	r, err := current.NewResultFromResult(any)
	if err != nil {
		return nil, err
	}
	return r, checkResult(r)
}

// checkResultShape keeps from the library what it would dereference unseen.
func checkResultShape(b []byte) error {
	var shape struct {
		Interfaces, IPs, Routes []*struct{}
		IP4, IP6                *struct{ Routes []*struct{} } // versions before 0.3.0
	}
	if err := json.Unmarshal(b, &shape); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	for _, list := range [][]*struct{}{shape.Interfaces, shape.IPs, shape.Routes} {
		if len(list) > maxResultItems {
			return fmt.Errorf("%d entries in one list, at most %d are taken", len(list), maxResultItems)
		}
		for _, e := range list {
			if e == nil {
				return errors.New("a list has an empty entry")
			}
		}
	}
	if shape.IP4 != nil || shape.IP6 != nil {
		return errors.New("that is a result of a version before 0.3.0")
	}
	return nil
}

func withVersion(b []byte, confVersion string) ([]byte, string, error) {
	var have struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(b, &have); err != nil {
		return nil, "", fmt.Errorf("decode: %w", err)
	}
	if have.CNIVersion != "" {
		return b, have.CNIVersion, nil
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, "", fmt.Errorf("decode: %w", err)
	}
	if all == nil {
		return nil, "", errors.New("decode: want an object")
	}
	version, err := json.Marshal(confVersion)
	if err != nil {
		return nil, "", fmt.Errorf("encode version: %w", err)
	}
	all["cniVersion"] = version
	b, err = json.Marshal(all)
	return b, confVersion, err
}

func checkResult(r *current.Result) error {
	for i, ip := range r.IPs {
		if _, err := prefixOf(ip.Address); err != nil {
			return fmt.Errorf("ips[%d]: %w", i, err)
		}
		if n := ip.Interface; n != nil && (*n < 0 || *n >= len(r.Interfaces)) {
			return fmt.Errorf("ips[%d]: there is no interface %d", i, *n)
		}
	}
	for i, route := range r.Routes {
		if _, err := routeOf(route); err != nil {
			return fmt.Errorf("routes[%d]: %w", i, err)
		}
	}
	return nil
}

// Prev decodes prevResult. It is an error, with code 7, when there is none.
func (c *Conf) Prev() (*current.Result, error) {
	if len(c.PrevResult) == 0 || string(c.PrevResult) == "null" {
		return nil, Errorf(types.ErrInvalidNetworkConfig, "prevResult is missing: %s must be called with the result of the plugins before it", c.Type)
	}
	r, err := DecodeResult(c.PrevResult, c.CNIVersion)
	if err != nil {
		return nil, Errorf(types.ErrDecodingFailure, "prevResult: %v", err)
	}
	return r, nil
}

// Addresses gives the result's addresses of one interface of the container, by
// its name. Addresses that name no interface count as its.
func Addresses(r *current.Result, ifname string) []netip.Prefix {
	var out []netip.Prefix
	for _, ip := range r.IPs {
		if n := ip.Interface; n != nil {
			if i := r.Interfaces[*n]; i.Name != ifname || i.Sandbox == "" {
				continue
			}
		}
		if p, err := prefixOf(ip.Address); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// Ways gives what a container reaches by the interface of a result: the subnets of its
// addresses, and wherever a route leads.
func Ways(r *current.Result, ifname string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range Addresses(r, ifname) {
		out = append(out, p.Masked())
	}
	for _, route := range r.Routes {
		if n, err := routeOf(route); err == nil && n.Table == 0 {
			out = append(out, n.Dst)
		}
	}
	return out
}

// Gateways gives the result's gateways with the length of the prefix that each
// lies in, without repeats: what the bridge needs as its own addresses.
func Gateways(r *current.Result) []netip.Prefix {
	var out []netip.Prefix
	seen := map[netip.Prefix]bool{}
	for _, ip := range r.IPs {
		p, err := prefixOf(ip.Address)
		gw, ok := netip.AddrFromSlice(ip.Gateway)
		if err != nil || !ok {
			continue
		}
		g := netip.PrefixFrom(gw.Unmap(), p.Bits())
		if p.Contains(g.Addr()) && !seen[g] {
			seen[g] = true
			out = append(out, g)
		}
	}
	return out
}

// AddDefaultRoutes adds a route to everywhere for each family that has a
// gateway and no such route yet.
func AddDefaultRoutes(r *current.Result) {
	for _, everywhere := range []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")} {
		if hasRoute(r, everywhere) {
			continue
		}
		for _, ip := range r.IPs {
			gw, ok := netip.AddrFromSlice(ip.Gateway)
			if ok && gw.Unmap().Is4() == everywhere.Addr().Is4() {
				r.Routes = append(r.Routes, &types.Route{Dst: IPNet(everywhere), GW: ip.Gateway})
				break
			}
		}
	}
}

func hasRoute(r *current.Result, dst netip.Prefix) bool {
	for _, route := range r.Routes {
		if n, err := routeOf(route); err == nil && n.Dst == dst && n.Table == 0 {
			return true
		}
	}
	return false
}

// Routes gives the result's routes for the kernel. One without a gateway goes
// by the gateway of its family, when there is one.
func Routes(r *current.Result) ([]netdev.Route, error) {
	var out []netdev.Route
	for i, route := range r.Routes {
		n, err := routeOf(route)
		if err != nil {
			return nil, fmt.Errorf("routes[%d]: %w", i, err)
		}
		for _, ip := range r.IPs {
			gw, ok := netip.AddrFromSlice(ip.Gateway)
			if gw = gw.Unmap(); ok && !n.GW.IsValid() && gw.Is4() == n.Dst.Addr().Is4() {
				n.GW = gw
			}
		}
		out = append(out, n)
	}
	return out, nil
}

func routeOf(r *types.Route) (netdev.Route, error) {
	if r == nil {
		return netdev.Route{}, errors.New("is empty")
	}
	dst, err := prefixOf(r.Dst)
	if err != nil {
		return netdev.Route{}, fmt.Errorf("dst: %w", err)
	}
	n := netdev.Route{Dst: dst.Masked(), MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority, Scope: r.Scope}
	if r.Table != nil {
		n.Table = *r.Table
	}
	if len(r.GW) > 0 {
		gw, ok := netip.AddrFromSlice(r.GW)
		if !ok || gw.Unmap().Is4() != dst.Addr().Is4() {
			return netdev.Route{}, fmt.Errorf("gw %s is of another family than dst %s", r.GW, dst)
		}
		n.GW = gw.Unmap()
	}
	return n, nil
}

func prefixOf(n net.IPNet) (netip.Prefix, error) {
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	a = a.Unmap()
	if !ok || bits == 0 {
		return netip.Prefix{}, errors.New("no address with a prefix length")
	}
	if a.Is4() && bits == 128 {
		ones -= 96
	}
	p := netip.PrefixFrom(a, ones)
	if !p.IsValid() {
		return netip.Prefix{}, fmt.Errorf("%s is no address with a prefix length", n.String())
	}
	return p, nil
}

// IPNet is a prefix as CNI's types have it: the address is kept, not masked.
func IPNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
