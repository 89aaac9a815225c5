package ctl

import (
	"net/netip"
)

// AttachSocket is where `weave attachd` listens unless it is told otherwise: the part
// that enters containers' namespaces, which the router does not.
const AttachSocket = "/run/weave/attach.sock"

// The calls about named networks. A network is named by a REF: its name, its id, or a
// beginning of its id that no other network has, of 4 digits or more.
const (
	PathNets       = "/v1/nets"        // GET -> NetList
	PathNetCreate  = "/v1/net/create"  // NetCreateRequest -> Net; every host has it within a second
	PathNetInspect = "/v1/net/inspect" // NetRef -> Net
	PathNetRemove  = "/v1/net/remove"  // NetRemoveRequest -> NetRemoved
	PathNetLabel   = "/v1/net/label"   // NetLabelRequest -> Net

	PathNetChangeable = "/v1/net/changeable" // GET -> {}; CodeNoMajority, within a second, when no network can be made, changed or removed now

	PathNetAttach = "/v1/net/attach" // AttachRequest -> Attached; what ADD does
	PathNetDetach = "/v1/net/detach" // DetachRequest -> {}; what DEL does
	PathNetPlugs  = "/v1/net/plugs"  // GET -> Plugs; attachd answers it, at its own socket alone
)

// Codes of the calls about networks.
const (
	CodeNoMajority   = 103 // a definition changes only where a majority of the voters is reachable
	CodeInUse        = 104 // the network has endpoints
	CodeWrongHost    = 105 // the network is another host's
	CodeNotSupported = 106 // known, and not built
	CodeAmbiguous    = 107 // several networks, endpoints or containers begin like that
)

// The drivers.
const (
	DriverWeave        = "weave"        // of the whole cluster
	DriverSimpleBridge = "simplebridge" // of the host that made it
)

// NetRef names a network.
type NetRef struct {
	Ref string `json:"ref"`
}

// NetCreateRequest defines a network. What is left out is chosen.
type NetCreateRequest struct {
	Name     string            `json:"name,omitempty"`    // "": a readable one, at random
	Driver   string            `json:"driver,omitempty"`  // "" is DriverWeave
	Subnets  []netip.Prefix    `json:"subnets,omitempty"` // none of IPv4: one is chosen
	IPv6     bool              `json:"ipv6,omitempty"`    // choose a subnet of IPv6 too
	Internal bool              `json:"internal,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	MTU      int               `json:"mtu,omitempty"`     // refused: CodeNotSupported
	Encrypt  bool              `json:"encrypt,omitempty"` // likewise
}

// Net is a network of the cluster, as this host sees it.
type Net struct {
	ID       string            `json:"id"` // 64 hexadecimal digits
	Name     string            `json:"name"`
	Driver   string            `json:"driver"`
	Host     string            `json:"host,omitempty"` // of driver simplebridge: the only one that has it
	Subnets  []netip.Prefix    `json:"subnets"`
	VNI      uint32            `json:"vni"`
	MTU      int               `json:"mtu"` // bytes
	Internal bool              `json:"internal,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	State    string            `json:"state"`             // "ready", "starting" (not on this host yet), "elsewhere" (another host's), "removing"
	Waiting  string            `json:"waiting,omitempty"` // of one that is starting or removing: for what, and what to do

	Bridge    string        `json:"bridge,omitempty"`   // on this host
	Conflist  string        `json:"conflist,omitempty"` // its file on this host
	Endpoints []NetEndpoint `json:"endpoints"`          // on all hosts
}

// NetEndpoint is one interface of one container on a network. Of other hosts no more is
// known than they tell.
type NetEndpoint struct {
	ID          string         `json:"id,omitempty"` // 64 hexadecimal digits
	Host        string         `json:"host"`
	ContainerID string         `json:"container,omitempty"`
	IfName      string         `json:"ifname,omitempty"`
	MAC         string         `json:"mac"`
	Addresses   []netip.Prefix `json:"addresses"`
	Names       []string       `json:"names,omitempty"`
}

// NetList is every network, by name.
type NetList struct {
	Networks []Net `json:"networks"`
}

// NetRemoveRequest removes a network.
type NetRemoveRequest struct {
	Ref string `json:"ref"`

	// Force: detach the containers that are on it, on every host, but for those of other main plugins.
	Force bool `json:"force,omitempty"`
}

// NetRemoved answers NetRemoveRequest. The network takes no more containers; it is gone
// when Waiting is empty, else as soon as the hosts that Waiting names have heard of it.
type NetRemoved struct {
	ID      string   `json:"id"`
	Waiting []string `json:"waiting,omitempty"` // hosts
}

// NetLabelRequest changes labels: first those of Drop go, then those of Set come.
type NetLabelRequest struct {
	Ref  string            `json:"ref"`
	Set  map[string]string `json:"set,omitempty"`
	Drop []string          `json:"drop,omitempty"`
}

// AttachRequest has a container join a network, as an ADD of the runtime would. A key that
// it has not is refused, and so is a request that names no network.
type AttachRequest struct {
	Endpoint    string            `json:"Endpoint"`          // a network ("blue", its id), a subnet ("10.2.67.0/24"), or an address in one ("10.2.45.3/24?alias=web"), with weave:// before it or without; "weave://" alone is the default network
	Network     string            `json:"Network,omitempty"` // in the place of Endpoint
	ContainerID string            `json:"ContainerID"`       // an id, a name, pid:N, or a path of a namespace
	NetNS       string            `json:"NetNS,omitempty"`
	IfName      string            `json:"IfName,omitempty"` // "": the next ethN that is free
	Names       []string          `json:"Names,omitempty"`
	Aliases     []string          `json:"Aliases,omitempty"` // more names, of no more weight than that
	IP          string            `json:"IP,omitempty"`
	MAC         string            `json:"MAC,omitempty"`
	Labels      map[string]string `json:"Labels,omitempty"`
}

// Attached answers AttachRequest.
type Attached struct {
	IP         string         `json:"IP"` // the first one, without its length
	EndpointID string         `json:"EndpointID"`
	Network    string         `json:"Network"`
	NetworkID  string         `json:"NetworkID"`
	IfName     string         `json:"IfName"`
	MAC        string         `json:"MAC"`
	Addresses  []netip.Prefix `json:"Addresses"`
	Gateways   []netip.Addr   `json:"Gateways,omitempty"`
	Names      []string       `json:"Names,omitempty"`

	Labels map[string]string `json:"Labels,omitempty"` // of the request, kept with the endpoint

	Note string `json:"Note,omitempty"` // what the caller may not have meant, in words: the container is on that network already
}

// DetachRequest takes an endpoint away: the one of that id (or an unambiguous beginning
// of it, 4 digits or more), or, with ContainerID and Network, that container's on that
// network. A key that it has not is refused.
type DetachRequest struct {
	EndpointID  string `json:"EndpointID,omitempty"`
	ContainerID string `json:"ContainerID,omitempty"`
	Network     string `json:"Network,omitempty"`  // its name, or its id or 4 digits or more of that; "weave://" alone is the default network
	Endpoint    string `json:"Endpoint,omitempty"` // in the place of Network
}

// Plugs says of the endpoints of this host that were plugged and are not there for what
// they wait, by their ids: that their container does not run, or what hinders them.
type Plugs struct {
	Waiting map[string]string `json:"waiting"`
}
