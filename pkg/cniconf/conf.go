package cniconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/weave-cni/weave-cni/pkg/attachment"
)

// Bounds of what a plugin reads.
const (
	MaxStdin     = 1 << 20 // bytes of configuration
	maxDepth     = 64      // levels of JSON
	maxRequested = 64      // addresses asked for
	maxRanges    = 64      // of ipam.exclude and ipam.reserve together
	maxSocket    = 107     // bytes of a unix socket's path, less its NUL
	foldDepth    = 2       // levels whose keys are ours or CNI's and so may not differ in case only
)

// Conf holds the keys that CNI itself, and our four plugins alike, give a
// meaning. A plugin embeds it in its own configuration. Keys match in any
// case, which runtimeConfig needs: containerd, nerdctl and nomad capitalise.
type Conf struct {
	CNIVersion    string        `json:"cniVersion"`
	Name          string        `json:"name"`
	Type          string        `json:"type"`
	IPAM          IPAM          `json:"ipam"`
	RuntimeConfig RuntimeConfig `json:"runtimeConfig"`
	Args          struct {
		CNI struct {
			IPs []string `json:"ips"`
			MAC string   `json:"mac"`
		} `json:"cni"`
	} `json:"args"`
	Socket     string          `json:"socket"` // the router's, "" for the usual one
	PrevResult json.RawMessage `json:"prevResult"`

	// Both spellings of GC's list; a nil pointer is a list that was not sent.
	Valid    *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
	ValidOld *[]types.GCAttachment `json:"cni.dev/attachments"`
}

// IPAM is the section of the address plugin. The keys after Type are
// weave-ipam's and stay empty for any other: those belong to that plugin.
type IPAM struct {
	Type     string         `json:"type"`
	Network  string         `json:"network"`
	Subnet   string         `json:"subnet"`
	Endpoint string         `json:"endpoint"` // behind another plugin than weave-net, which has a key of its own
	Exclude  []string       `json:"exclude"`  // never given
	Reserve  []string       `json:"reserve"`  // given to who asks for the very address
	Socket   string         `json:"socket"`
	Routes   []*types.Route `json:"routes"`
}

// WeaveIPAM is the type of our own address plugin.
const WeaveIPAM = "weave-ipam"

// UnmarshalJSON reads all keys of a weave-ipam section and only the type of any other.
func (i *IPAM) UnmarshalJSON(b []byte) error {
	var any struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(b, &any); err != nil {
		return err
	}
	*i = IPAM{Type: any.Type}
	if any.Type != WeaveIPAM {
		return nil
	}
	type plain IPAM
	return json.Unmarshal(b, (*plain)(i))
}

// RuntimeConfig is what the runtime fills in for the capabilities that a conflist declares.
type RuntimeConfig struct {
	IPs     []string `json:"ips"`
	MAC     string   `json:"mac"`
	Aliases Aliases  `json:"aliases"`
	DNS     DNS      `json:"dns"`

	// A pod's, an object of texts. DEL, which has no use for it, does not fail over it.
	Annotations json.RawMessage `json:"io.kubernetes.cri.pod-annotations"`
}

// Decode reads a configuration into out, a struct that embeds Conf. Text that
// is no JSON object, or that says two things of one key, is code 6; a value of
// the wrong type is code 7.
func Decode(stdin []byte, out any) error {
	if err := checkShape(stdin); err != nil {
		return types.NewError(types.ErrDecodingFailure, "network configuration: "+err.Error(), "")
	}
	err := json.Unmarshal(stdin, out)
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		return Errorf(types.ErrInvalidNetworkConfig, "network configuration: %q: want %s, have %s", wrong.Field, kindName(wrong.Type.String()), wrong.Value)
	default:
		return Errorf(types.ErrInvalidNetworkConfig, "network configuration: %v", err)
	}
}

func kindName(goType string) string {
	switch {
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"):
		return "a whole number"
	case goType == "bool", goType == "*bool":
		return "true or false"
	case strings.HasPrefix(goType, "[]"), strings.HasPrefix(goType, "*[]"):
		return "a list"
	case goType == "string":
		return "a text"
	default:
		return "an object"
	}
}

// checkShape accepts exactly one JSON object, no deeper than maxDepth, with no
// key twice in any object. What is read twice in two ways is read wrongly once.
func checkShape(b []byte) error {
	var whole json.RawMessage
	if err := json.Unmarshal(b, &whole); err != nil { // one document, well formed; the scan relies on that
		return err
	}
	if b = bytes.TrimSpace(b); b[0] != '{' {
		return errors.New("want one JSON object")
	}
	var open []object
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			if len(open) == maxDepth {
				return fmt.Errorf("deeper than %d levels", maxDepth)
			}
			open = append(open, object{list: b[i] == '[', key: true})
		case '}', ']':
			open = open[:len(open)-1]
		case ',':
			open[len(open)-1].key = true
		case '"':
			end := textEnd(b, i)
			if err := open[len(open)-1].text(b[i:end], len(open) <= foldDepth); err != nil {
				return err
			}
			i = end - 1
		}
	}
	return nil
}

// textEnd is the index behind the closing quote of the text that begins at i.
func textEnd(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// object is an object or a list that is being read.
type object struct {
	list bool
	key  bool            // the next text of an object is a key
	keys map[string]bool // those that it has so far
}

func (o *object) text(quoted []byte, fold bool) error {
	if o.list || !o.key {
		return nil
	}
	key := string(quoted[1 : len(quoted)-1])
	if bytes.IndexByte(quoted, '\\') >= 0 {
		if err := json.Unmarshal(quoted, &key); err != nil {
			return err
		}
	}
	if fold {
		key = strings.ToUpper(strings.ToLower(key)) // as encoding/json matches them
	}
	if o.keys[key] {
		return fmt.Errorf("key %q is there twice", clip(key))
	}
	if o.keys == nil {
		o.keys = map[string]bool{}
	}
	o.keys[key], o.key = true, false
	return nil
}

// Check notes what is wrong with the common keys.
func (c *Conf) Check(p *Problems) {
	if c.Socket != "" {
		p.Check(checkSocket("socket", c.Socket))
	}
	if c.IPAM.Socket != "" {
		p.Check(checkSocket("ipam.socket", c.IPAM.Socket))
	}
	if c.IPAM.Type != "" {
		p.Check(CheckDelegate(c.IPAM.Type))
	}
	if c.IPAM.Network != "" {
		p.Check(CheckName("ipam.network", c.IPAM.Network))
	}
	if c.IPAM.Subnet != "" {
		switch s, err := netip.ParsePrefix(c.IPAM.Subnet); {
		case err != nil:
			p.Add("ipam.subnet %q: want a prefix like 10.32.4.0/24", clip(c.IPAM.Subnet))
		case s != s.Masked():
			p.Add("ipam.subnet %q: has host bits set, did you mean %s?", clip(c.IPAM.Subnet), s.Masked())
		}
	}
	c.IPAM.checkRanges(p)
	for i, r := range c.IPAM.Routes {
		if _, err := routeOf(r); err != nil {
			p.Add("ipam.routes[%d]: %v", i, err)
		}
	}
}

func (i *IPAM) checkRanges(p *Problems) {
	if n := len(i.Exclude) + len(i.Reserve); n > maxRanges {
		p.Add("ipam.exclude and ipam.reserve: %d ranges, at most %d are taken", n, maxRanges)
		return
	}
	checkRanges(p, "ipam.exclude", i.Exclude)
	checkRanges(p, "ipam.reserve", i.Reserve)
}

// checkRanges notes what is neither a prefix nor an address.
func checkRanges(p *Problems, key string, texts []string) {
	for n, text := range texts {
		a, err := netip.ParseAddr(text)
		s, e := netip.ParsePrefix(text)
		if e == nil {
			a, err = s.Addr(), nil
		}
		switch {
		case e == nil && s != s.Masked() && !a.Is4In6():
			p.Add("%s[%d] %q: has host bits set, did you mean %s?", key, n, clip(text), s.Masked())
		case err != nil || a.Is4In6() || a.Zone() != "":
			p.Add("%s[%d] %q: want a prefix like 10.32.5.0/24, or an address", key, n, clip(text))
		}
	}
}

func checkSocket(key, path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || len(path) > maxSocket || strings.ContainsRune(path, 0) {
		return fmt.Errorf("%s %q: want a clean absolute path of at most %d bytes", key, clip(path), maxSocket)
	}
	return nil
}

// CheckName accepts the name of a network.
func CheckName(key, name string) error {
	if err := (attachment.Key{Network: name, ContainerID: "x", IfName: "x"}).Validate(); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// CheckMTU accepts 0 (not given) and what a link can have.
func CheckMTU(mtu int) error {
	if mtu != 0 && (mtu < 576 || mtu > 65535) {
		return fmt.Errorf("mtu %d: want 576 to 65535", mtu)
	}
	return nil
}

// RequestedIPs gives the addresses asked for, from the best source that names
// any: runtimeConfig.ips, args.cni.ips, CNI_ARGS IP (commas allowed). Each is
// "10.32.0.5" or "10.32.0.5/12", in canonical form; a repeat is passed over.
func (c *Conf) RequestedIPs(args Args) ([]string, error) {
	source, list := "runtimeConfig.ips", c.RuntimeConfig.IPs
	if len(list) == 0 {
		source, list = "args.cni.ips", c.Args.CNI.IPs
	}
	if len(list) == 0 && args["IP"] != "" {
		source, list = "CNI_ARGS IP", strings.Split(args["IP"], ",")
	}
	if len(list) > maxRequested {
		return nil, fmt.Errorf("%s: %d addresses, at most %d are taken", source, len(list), maxRequested)
	}
	var out []string
	seen := map[netip.Addr]bool{}
	for _, text := range list {
		a, canonical, err := parseIP(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		if !seen[a] {
			seen[a] = true
			out = append(out, canonical)
		}
	}
	return out, nil
}

func parseIP(s string) (netip.Addr, string, error) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() || !usable(p.Addr()) {
			return netip.Addr{}, "", fmt.Errorf("%q is no address of a container", clip(s))
		}
		return p.Addr(), p.String(), nil
	}
	a, err := netip.ParseAddr(s)
	if a = a.Unmap(); err != nil || !usable(a) {
		return netip.Addr{}, "", fmt.Errorf("%q is no address of a container", clip(s))
	}
	return a, a.String(), nil
}

func usable(a netip.Addr) bool { return a.IsGlobalUnicast() && a.Zone() == "" }

// RequestedMAC gives the hardware address asked for, nil when none is:
// runtimeConfig.mac, then args.cni.mac, then CNI_ARGS MAC.
func (c *Conf) RequestedMAC(args Args) (net.HardwareAddr, error) {
	for _, s := range []struct{ source, text string }{
		{"runtimeConfig.mac", c.RuntimeConfig.MAC}, {"args.cni.mac", c.Args.CNI.MAC}, {"CNI_ARGS MAC", args["MAC"]},
	} {
		if s.text == "" {
			continue
		}
		mac, err := net.ParseMAC(s.text)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 || bytes.Equal(mac, make([]byte, 6)) {
			return nil, fmt.Errorf("%s: %q is no hardware address of an interface", s.source, clip(s.text))
		}
		return mac, nil
	}
	return nil, nil
}

// LedgerNetwork is the network whose addresses weave-ipam is asked for:
// ipam.network, else the name of the CNI network.
func (c *Conf) LedgerNetwork() string {
	if c.IPAM.Network != "" {
		return c.IPAM.Network
	}
	return c.Name
}

// IPAMSocket is the router's socket for weave-ipam.
func (c *Conf) IPAMSocket() string {
	if c.IPAM.Socket != "" {
		return c.IPAM.Socket
	}
	return c.Socket
}

// GCList is the list of attachments that GC is to leave alone. absent says that the
// runtime sent none at all, which is not the same as an empty one.
func (c *Conf) GCList() (valid []attachment.Key, absent bool, err error) {
	list := c.Valid
	if list == nil {
		list = c.ValidOld
	}
	if list == nil {
		return nil, true, nil
	}
	for _, a := range *list {
		k := attachment.Key{Network: c.Name, ContainerID: a.ContainerID, IfName: a.IfName}
		if err := k.Validate(); err != nil {
			return nil, false, Errorf(types.ErrInvalidNetworkConfig, "cni.dev/valid-attachments: %v", err)
		}
		valid = append(valid, k)
	}
	return valid, false, nil
}
