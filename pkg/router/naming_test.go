package router

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/weave-cni/weave-cni/pkg/attachment"
	"github.com/weave-cni/weave-cni/pkg/ctl"
	"github.com/weave-cni/weave-cni/pkg/gossip"
	"github.com/weave-cni/weave-cni/pkg/ipam"
	"github.com/weave-cni/weave-cni/pkg/names"
	"github.com/weave-cni/weave-cni/pkg/overlay"
	"github.com/weave-cni/weave-cni/pkg/record"
	"github.com/weave-cni/weave-cni/pkg/wire"
)

// oldEndpoint is an endpoint's record as versions without ports and texts have it.
type oldEndpoint struct {
	Network string           `cbor:"1,keyasint"`
	MAC     net.HardwareAddr `cbor:"2,keyasint"`
	Addrs   []netip.Addr     `cbor:"3,keyasint"`
	Names   []string         `cbor:"4,keyasint,omitempty"`
	Bridge  bool             `cbor:"5,keyasint,omitempty"`
}

func TestOldAndNewRoutersReadEachOthersEndpoints(t *testing.T) {
	web := claim("web", ctl.DecidedByVeth, 2)
	web.Services, web.Texts = []ctl.Service{{Name: "http", Protocol: "tcp", Port: 80}}, []string{"v=2"}
	r, store := bare(t, web)
	must(t, r.ipam.Adopt([]ipam.Kernel{{Alias: attachment.Alias{Hash: web.Hash, Network: web.Network, MAC: web.MAC, Addrs: web.Addrs}, Veth: web.Veth(), Network: web.Network}}))
	kept, ok := r.ipam.Claim(web.Hash) // read from its file
	if !ok || !kept.Naming().Equal(web.Naming()) {
		t.Fatalf("got %+v", kept)
	}
	must(t, r.publish(kept))
	told := store.Records("self")[overlay.EndpointPrefix+web.Hash]
	old, codec := oldEndpoint{}, wire.New()
	must(t, codec.Decode(told, &old))
	want := oldEndpoint{Network: web.Network, MAC: web.MAC, Addrs: hosts(web.Addrs), Names: web.Names}
	if !reflect.DeepEqual(old, want) {
		t.Errorf("an old router reads %+v, want %+v", old, want)
	}
	var e overlay.Endpoint
	must(t, codec.Decode(told, &e))
	if got := namingOf(e); !got.Equal(web.Naming()) || !e.Valid() {
		t.Errorf("a new one reads %+v", got)
	}
	b, err := codec.Encode(old)
	must(t, err)
	e = overlay.Endpoint{}
	must(t, codec.Decode(b, &e))
	if got := namingOf(e); !got.Equal(ipam.Naming{Names: web.Names}) || !e.Valid() {
		t.Errorf("of an old router's a new one reads %+v", got)
	}
}

func TestPortsAndTextsLostWithTheFilesAreGivenBackByThePeers(t *testing.T) {
	web := claim("web", ctl.DecidedByVeth, 2)
	r, _ := bare(t)
	must(t, r.ipam.Adopt([]ipam.Kernel{{Alias: attachment.Alias{Hash: web.Hash, Network: web.Network, MAC: web.MAC, Addrs: web.Addrs}, Veth: web.Veth(), Network: web.Network}}))
	e := overlay.Endpoint{Network: web.Network, MAC: web.MAC, Addrs: hosts(web.Addrs), Names: web.Names, Services: []overlay.Service{{Name: "http", Protocol: "tcp", Port: 80}}, Texts: []string{"v=2"}}
	b, err := wire.New().Encode(e)
	must(t, err)
	r.former(map[string][]byte{overlay.EndpointPrefix + web.Hash: b})
	if c, ok := r.ipam.Claim(web.Hash); !ok || !c.Naming().Equal(namingOf(e)) {
		t.Errorf("got %+v", c)
	}
}

// What a peer says beyond what DNS can answer costs the endpoint nothing else.
func TestAPeersNonsenseAboutPortsCostsNoConnection(t *testing.T) {
	r, _ := bare(t)
	r.view = overlay.NewView()
	e := overlay.Endpoint{Network: "weave", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Addrs: []netip.Addr{netip.MustParseAddr("10.32.0.9")}, Names: []string{"web"}}
	for i := range 100 {
		e.Services = append(e.Services, overlay.Service{Name: "..", Protocol: "\x00", Port: uint16(i)})
		e.Texts = append(e.Texts, string(make([]byte, 300)))
	}
	b, err := r.codec.Encode(e)
	must(t, err)
	r.endpointChanged(record.Change{Origin: "other", Key: "ep/x", New: b})
	if got := r.table.Lookup("weave", "web"); !slices.Equal(got, e.Addrs) || len(r.view.Endpoints("other")) != 1 {
		t.Errorf("name %v, endpoints %v", got, r.view.Endpoints("other"))
	}
}

func TestWhatIsRegisteredIsCheckedInWords(t *testing.T) {
	http := ctl.Service{Name: "HTTP", Protocol: "TCP", Port: 80}
	got, err := namingIn(ctl.RegisterRequest{Services: []ctl.Service{http, http}, Texts: []string{"a", "a"}}, []string{"web"})
	if err != nil || len(got.Services) != 1 || got.Services[0].Name != "http" || len(got.Texts) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	many := ctl.RegisterRequest{}
	for i := range names.MaxServices + 1 {
		many.Services = append(many.Services, ctl.Service{Name: "a", Protocol: "tcp", Port: uint16(i + 1)})
	}
	for _, in := range []ctl.RegisterRequest{
		many, {Services: []ctl.Service{{Name: "a", Protocol: "tcp"}}}, {Services: []ctl.Service{{Name: "a.b", Protocol: "tcp", Port: 1}}},
		{Services: []ctl.Service{{Name: "a", Protocol: "icmp", Port: 1}}}, {Texts: []string{""}}, {Texts: []string{string(make([]byte, names.MaxText+1))}},
	} {
		if got, err := namingIn(in, nil); err == nil || err.(*ctl.Error).Code != ctl.CodeInvalidConfig {
			t.Errorf("%+v: got %+v, %v", in, got, err)
		}
	}
	// What is taken here is taken by the others too.
	e := overlay.Endpoint{Network: "weave"}
	for i := range 100 {
		e.Names = append(e.Names, fmt.Sprint("n", i))
		if _, err := namingIn(ctl.RegisterRequest{}, e.Names); (err == nil) != e.Valid() {
			t.Errorf("%d names: %v here, valid elsewhere %v", len(e.Names), err, e.Valid())
		}
	}
}

// A name dies with its host's router, and not because another one is back.
func TestNamesOfHostsThatAreAwayAreNotAnswered(t *testing.T) {
	r, _ := bare(t)
	r.view = overlay.NewView()
	for host, addr := range map[gossip.Peer]string{"a": "10.32.0.2", "b": "10.32.0.3"} {
		b, err := r.codec.Encode(overlay.Endpoint{Network: "weave", Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Names: []string{"web"}})
		must(t, err)
		r.endpointChanged(record.Change{Origin: host, Key: "ep/x", New: b})
	}
	if got := r.table.Lookup("weave", "web"); len(got) != 2 {
		t.Errorf("before anything is known of hosts: %v", got)
	}
	for _, c := range []struct {
		served map[gossip.Peer]bool
		want   int
	}{{map[gossip.Peer]bool{"b": true}, 1}, {map[gossip.Peer]bool{}, 0}, {map[gossip.Peer]bool{"a": true}, 1}, {map[gossip.Peer]bool{"a": true, "b": true}, 2}} {
		if r.setServed(c.served); len(r.table.Lookup("weave", "web")) != c.want {
			t.Errorf("served %v: got %v", c.served, r.table.Lookup("weave", "web"))
		}
	}
}

// FuzzEndpointRecord has a peer send any bytes as what it says of an endpoint.
func FuzzEndpointRecord(f *testing.F) {
	codec := wire.New()
	for _, e := range []overlay.Endpoint{
		{Network: "weave", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Addrs: []netip.Addr{netip.MustParseAddr("10.32.0.9")}, Names: []string{"web"},
			Services: []overlay.Service{{Name: "http", Protocol: "tcp", Port: 80}}, Texts: []string{"v=2"}},
		{Network: "weave"},
	} {
		b, err := codec.Encode(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e overlay.Endpoint
		if codec.Decode(b, &e) != nil || !e.Valid() {
			return
		}
		tab := names.NewTable()
		tab.PutSet("o", nameSet("h", e))
		for _, r := range tab.All() {
			if n, err := names.ValidName(r.Name); err != nil || n != r.Name || !slices.Contains(e.Addrs, r.Addr) {
				t.Fatalf("%+v", r)
			}
		}
		if tab.Drop("o"); len(tab.All()) != 0 {
			t.Fatal("something is left")
		}
	})
}
