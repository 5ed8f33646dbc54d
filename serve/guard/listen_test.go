package guard

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestExposure(t *testing.T) {
	for _, c := range []struct {
		addr    string
		e       Exposure
		refused bool
		warning string
	}{
		{"127.0.0.1:8000", Exposure{}, false, ""},
		{"127.1.2.3:0", Exposure{}, false, ""},
		{"[::1]:8000", Exposure{}, false, ""},
		{"localhost:8000", Exposure{}, false, ""},
		{"unix:/x", Exposure{}, false, ""},
		{"0.0.0.0:8000", Exposure{}, true, ""},
		{":8000", Exposure{}, true, ""},
		{"[::]:8000", Exposure{TLS: true}, true, ""},
		{"192.0.2.7:8000", Exposure{}, true, ""},
		{"example.org:8000", Exposure{}, true, ""},
		{":8000", Exposure{Keys: true}, false, "without TLS"},
		{":8000", Exposure{Keys: true, TLS: true}, false, ""},
		{":8000", Exposure{Insecure: true}, false, "answers anybody"},
	} {
		warning, err := c.e.Check(c.addr)
		if (err != nil) != c.refused || err != nil && !strings.Contains(err.Error(), "--insecure") || (warning == "") != (c.warning == "") || !strings.Contains(warning, c.warning) {
			t.Errorf("%s %+v: %q, %v", c.addr, c.e, warning, err)
		}
	}
}

func TestListen(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Listen(t.Context(), l.Addr().String())
	if want := "listen " + l.Addr().String() + ": the port is in use by another program, expected a free one"; err == nil || err.Error() != want {
		t.Errorf("%v, expected %s", err, want)
	}
	v4, err := Listen(t.Context(), "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer v4.Close()
	if got := v4.Addr().(*net.TCPAddr); got.IP.To4() == nil {
		t.Errorf("0.0.0.0 listens on %v, expected IPv4 alone", got)
	}
	for addr, ok := range map[string]bool{"127.0.0.1:1": true, ":1": true, "unix:/x": true, "unix:": false, "8000": false, "": false, ":": false, "[::1]:65535": true, ":65536": false, ":-1": false, ":http": false} {
		if err := CheckAddr(addr); (err == nil) != ok {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: expected mode 0600", info.Mode(), err)
	}
	if _, err := Listen(t.Context(), "unix:"+path); err == nil || !strings.Contains(err.Error(), "another program listens there") {
		t.Errorf("in use: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as a killed server leaves it
	l.Close()
	if l, err = Listen(t.Context(), "unix:"+path); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), "unix:"+path); err == nil || !strings.Contains(err.Error(), "expected nothing or a socket") {
		t.Errorf("a file: %v", err)
	}
}

func TestLimit(t *testing.T) {
	inner, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Limit(inner, 1)
	accepted := make(chan net.Conn, 2)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	for range 2 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Fatal("a second connection was accepted while the first is open")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // frees nothing more
	<-accepted
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// certificate writes a new certificate for localhost and returns its serial number.
func certificate(t *testing.T, certFile, keyFile string) *big.Int {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(name+".new", pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	return serial
}

func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if _, err := OpenCertificate(certFile, keyFile, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no files: %v", err)
	}
	serial := certificate(t, certFile, keyFile)
	c, err := OpenCertificate(certFile, keyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := &clock{time.Now()}
	c.now = now.now
	inner, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := tls.NewListener(inner, c.Config())
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake() // the client sees what goes wrong
			conn.Close()
		}
	}()
	served := func() *big.Int {
		t.Helper()
		conn, err := tls.Dial("tcp", inner.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber
	}
	if got := served(); got.Cmp(serial) != 0 {
		t.Errorf("serial %v, expected %v", got, serial)
	}
	renewed := certificate(t, certFile, keyFile)
	now.t = now.t.Add(2 * time.Second)
	if got := served(); got.Cmp(renewed) != 0 {
		t.Errorf("after renewal serial %v, expected %v", got, renewed)
	}
	if err := os.WriteFile(certFile, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	now.t = now.t.Add(2 * time.Second)
	if got := served(); got.Cmp(renewed) != 0 {
		t.Errorf("after a broken renewal serial %v, expected %v", got, renewed)
	}
	if _, err := tls.Dial("tcp", inner.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}
