package carrier

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weave-cni/weave-cni/pkg/identity"
)

// tap keeps what a connection reads.
type tap struct {
	net.Conn
	mu  sync.Mutex
	got bytes.Buffer
}

func (p *tap) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got.Write(b[:n])
	return n, err
}

// ask connects to a router as a client with this TLS configuration, says hello as
// a router would, and returns all that can be had: the raw bytes, the plain ones
// and the certificates.
func ask(t *testing.T, n *node, conf *tls.Config) (raw, clear []byte, certs []*x509.Certificate) {
	t.Helper()
	conn, err := net.Dial("tcp", n.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(7 * time.Second))
	p := &tap{Conn: conn}
	conf.InsecureSkipVerify = true
	tc := tls.Client(p, conf)
	if tc.HandshakeContext(t.Context()) == nil {
		certs = tc.ConnectionState().PeerCertificates
		tc.Write(frame(kindHello, []byte("anything")))
		buf := make([]byte, 1<<16)
		got, _ := tc.Read(buf)
		clear = buf[:got]
	} else {
		p.Read(make([]byte, 1<<16))
	}
	return p.got.Bytes(), clear, certs
}

func TestStrangerLearnsAndChangesNothing(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	const name = "well-kept-name"
	n := start(t, name, s, inCluster("well-kept-cluster"))
	member := newIdentity(t, "member", s)
	stranger := newIdentity(t, "stranger", loadSecret(t, secretFile(t)))
	conf := func(id *identity.Identity) *tls.Config {
		c, err := id.TLSClient()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	overheard := conf(stranger)
	overheard.NextProtos = conf(member).NextProtos
	nobody := conf(member)
	nobody.Certificates = nil
	for what, c := range map[string]*tls.Config{
		"plain":                          {},
		"of another cluster":             conf(stranger),
		"of no cluster":                  conf(newIdentity(t, "open", identity.Secret{})),
		"with an overheard knock":        overheard,
		"with the knock, no certificate": nobody,
		"of TLS 1.2":                     {MaxVersion: tls.VersionTLS12, NextProtos: overheard.NextProtos},
	} {
		raw, clear, certs := ask(t, n, c)
		if len(clear) != 0 {
			t.Errorf("a stranger %s is told %q", what, clear)
		}
		all := raw
		for _, cert := range certs {
			all = append(all, cert.Raw...)
		}
		if strings.Contains(string(all), "well-kept") {
			t.Errorf("a stranger %s learns a name", what)
		}
		if len(certs) == 0 && len(raw) > 64 {
			t.Errorf("a stranger %s is told %d bytes", what, len(raw))
		}
	}
	within(t, 2*time.Second, "the strangers are counted", func() bool { return n.stats.Strangers.Load() == 6 })
	if n.stats.Sessions.Load() != 0 || len(n.streams) != 0 {
		t.Error("strangers changed something")
	}
	// That a router with another secret calls is all that is noted, in our own words.
	if st := n.Status(); len(st) != 1 || st[0].Name != "" || st[0].State != Refused || st[0].Count != 2 {
		t.Errorf("status %+v", st)
	}
}

func TestStrangerThatWeDialLearnsNothing(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", loopback().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conf, err := newIdentity(t, "stranger", loadSecret(t, secretFile(t))).TLSServer()
	if err != nil {
		t.Fatal(err)
	}
	conf.GetConfigForClient, conf.ClientAuth = nil, tls.RequestClientCert
	heard := make(chan string, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(5 * time.Second))
		p := &tap{Conn: conn}
		tc := tls.Server(p, conf)
		tc.HandshakeContext(context.Background())
		buf := make([]byte, 1<<16)
		got, _ := tc.Read(buf)
		all := p.got.String() + string(buf[:got])
		for _, c := range tc.ConnectionState().PeerCertificates {
			all += string(c.Raw)
		}
		heard <- all
	}()
	n := start(t, "well-kept-name", loadSecret(t, secretFile(t)), calls(ln.Addr()))
	if all := <-heard; strings.Contains(all, "well-kept") {
		t.Error("it learns a name")
	}
	within(t, 5*time.Second, "the operator is told", func() bool { return strings.Contains(n.log.String(), "secret") })
}

func TestConnectionIsGivenUpAfterFiveSecondsOrFourKilobytes(t *testing.T) {
	t.Parallel()
	n := start(t, "a", loadSecret(t, secretFile(t)))
	for what, c := range map[string]struct {
		send []byte
		most time.Duration
	}{
		"nothing":        {nil, greetWithin + time.Second},
		"a long promise": {append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc}, make([]byte, greetBytes)...), time.Second},
	} {
		conn, err := net.Dial("tcp", n.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		begin := time.Now()
		conn.Write(c.send)
		conn.SetReadDeadline(begin.Add(20 * time.Second))
		for err == nil {
			_, err = conn.Read(make([]byte, 1024))
		}
		if took := time.Since(begin); took > c.most {
			t.Errorf("%s: closed after %v", what, took)
		}
	}
}

func TestMemberCannotTakeAnothersName(t *testing.T) {
	t.Parallel()
	s := loadSecret(t, secretFile(t))
	n := start(t, "a", s)
	liar, victim := newIdentity(t, "liar", s), newIdentity(t, "victim", s)
	hello := func(id *identity.Identity) Hello {
		return Hello{Version, oldest, id.Name(), id.Incarnation(), id.MemberID(), "", 0}
	}
	newer := hello(liar)
	newer.Incarnation++
	old := append([]byte("weave hello: dialler\x00"), make([]byte, 32)...) // of another connection
	for what, forge := range map[string]func(proof []byte) greeting{
		"another's name":        func(p []byte) greeting { return greeting{hello(victim), liar.Cert(), liar.Sign(p)} },
		"another's certificate": func(p []byte) greeting { return greeting{hello(victim), victim.Cert(), liar.Sign(p)} },
		"a repeated signature":  func([]byte) greeting { return greeting{hello(victim), victim.Cert(), victim.Sign(old)} },
		"another incarnation":   func(p []byte) greeting { return greeting{newer, liar.Cert(), liar.Sign(p)} },
		"nothing":               func([]byte) greeting { return greeting{Hello: hello(victim)} },
	} {
		v := greetWith(t, n, liar, forge)
		if v.Code != mismatch || v.Words == "" {
			t.Errorf("%s: verdict %+v", what, v)
		}
	}
	if n.stats.Sessions.Load() != 0 {
		t.Error("a lie was believed")
	}
	honest := greetWith(t, n, liar, func(p []byte) greeting { return greeting{hello(liar), liar.Cert(), liar.Sign(p)} })
	if honest.Code != welcome {
		t.Errorf("the truth was not: %+v", honest)
	}
}

// greetWith says hello to n in forge's words and returns the verdict.
func greetWith(t *testing.T, n *node, id *identity.Identity, forge func(proof []byte) greeting) (v verdict) {
	t.Helper()
	conf, err := id.TLSClient()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", n.addr.String(), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	proof, err := proofOf(conn, true)
	if err != nil {
		t.Fatal(err)
	}
	send := func(k kind, what any) {
		body, err := n.codec.Encode(what)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(frame(k, body))
	}
	send(kindHello, forge(proof))
	send(kindVerdict, verdict{})
	for buf := make([]byte, maxBody); ; {
		k, body, err := readFrame(conn, buf)
		if err != nil {
			t.Fatal(err)
		}
		if k == kindVerdict {
			if v, err = decodeVerdict(n.codec, body); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
}
