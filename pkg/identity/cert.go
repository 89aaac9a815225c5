package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/weave-cni/weave-cni/pkg/gossip"
)

const (
	maxCert = 2048 // bytes of DER; ours have about 400

	// transportName is the only name in a transport certificate, the same on
	// every host. Names are told inside TLS, when both sides have shown that
	// they hold the secret: a stranger who connects learns none.
	transportName = "weave"
)

// validFrom, validTo and verifiedAt take the clock out of certificates: two
// hosts that disagree about the year still trust each other.
func validFrom() time.Time  { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }
func validTo() time.Time    { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }
func verifiedAt() time.Time { return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) }

// authority issues and checks the certificates of one cluster. It is a function
// of the secret alone.
type authority struct {
	key  ed25519.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newAuthority(secret Secret) (authority, error) {
	key := ed25519.NewKeyFromSeed(secret.derive("certificate authority"))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "weave cluster"},
		NotBefore: validFrom(), NotAfter: validTo(),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return authority{}, err
	}
	a := authority{key: key, cert: cert, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a, nil
}

// issue signs a certificate for a public key (DER).
func (a authority) issue(tmpl *x509.Certificate, pub ed25519.PublicKey) ([]byte, error) {
	tmpl.NotBefore, tmpl.NotAfter = validFrom(), validTo()
	tmpl.KeyUsage, tmpl.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
	return x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
}

// namedTemplate carries the incarnation as the serial number, where every tool
// that prints certificates shows it.
func namedTemplate(name gossip.Peer, incarnation uint64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetUint64(incarnation),
		Subject:      pkix.Name{CommonName: string(name)}, DNSNames: []string{string(name)},
		// Never good for TLS: a transport certificate is not a name and a name is no transport.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
}

func transportTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{transportName},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// check reads a named certificate that came from anywhere.
func (a authority) check(der []byte) (Subject, error) {
	if len(der) > maxCert {
		return Subject{}, fmt.Errorf("certificate of %d bytes: at most %d", len(der), maxCert)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Subject{}, fmt.Errorf("certificate: %w", err)
	}
	_, err = cert.Verify(x509.VerifyOptions{
		Roots: a.pool, CurrentTime: verifiedAt(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	})
	if err != nil {
		return Subject{}, fmt.Errorf("certificate is not of this cluster: %w", err)
	}
	return subject(cert)
}

func subject(cert *x509.Certificate) (Subject, error) {
	pub, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || len(cert.DNSNames) != 1 || !cert.SerialNumber.IsUint64() {
		return Subject{}, errors.New("certificate has not the shape of a host's")
	}
	name, err := ValidName(cert.DNSNames[0])
	if err != nil {
		return Subject{}, fmt.Errorf("certificate: %w", err)
	}
	return Subject{name, memberID(pub), cert.SerialNumber.Uint64(), pub}, nil
}

// TLSServer gives the configuration of the side that accepts. It speaks TLS 1.3
// only, asks for and checks the other side's certificate, and turns away whoever
// does not knock (see knock) before it has computed or sent anything.
func (i *Identity) TLSServer() (*tls.Config, error) {
	conf, err := i.transport()
	if err != nil {
		return nil, err
	}
	conf.ClientCAs, conf.ClientAuth = i.authority.pool, tls.RequireAndVerifyClientCert
	conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return nil, checkKnock(i.knockKey, hello.SupportedProtos)
	}
	return conf, nil
}

// TLSClient gives the configuration for one connection that we make. It is not
// to be used for a second one.
func (i *Identity) TLSClient() (*tls.Config, error) {
	conf, err := i.transport()
	if err != nil {
		return nil, err
	}
	token, err := knock(i.knockKey)
	if err != nil {
		return nil, err
	}
	conf.RootCAs, conf.ServerName = i.authority.pool, transportName
	conf.NextProtos = append(conf.NextProtos, token)
	return conf, nil
}

// transport has a key of its own for each call: nothing links two connections of a host.
func (i *Identity) transport() (*tls.Config, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := i.authority.issue(transportTemplate(), pub)
	if err != nil {
		return nil, fmt.Errorf("issue a transport certificate: %w", err)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:             []string{transportName},
		SessionTicketsDisabled: true,
		Time:                   verifiedAt,
	}, nil
}
