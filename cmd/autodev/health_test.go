package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

func TestHealth(t *testing.T) {
	ready := http.StatusOK
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			w.WriteHeader(ready)
		}
		_, _ = w.Write([]byte(r.URL.Path + " of " + r.Host + "\n"))
	})
	plain, secure := httptest.NewServer(h), httptest.NewTLSServer(h)
	defer plain.Close()
	defer secure.Close()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	bySocket := &http.Server{Handler: h}
	go func() { _ = bySocket.Serve(l) }()
	defer bySocket.Shutdown(context.Background())
	for _, args := range [][]string{{"--at", plain.Listener.Addr().String()}, {"--at", secure.Listener.Addr().String(), "--tls"}, {"--at", "unix:" + socket}} {
		if out, err := runWith(t.Context(), "", append([]string{"health"}, args...)...); err != nil || out != "/healthz of localhost\n" {
			t.Errorf("%v: %q, %v", args, out, err)
		}
	}
	at := plain.Listener.Addr().String()
	if out := must(t, "health", "--ready", "--at", at); out != "/readyz of localhost\n" {
		t.Errorf("%q", out)
	}
	ready = http.StatusServiceUnavailable
	if o := autodev(t, "", "health", "--ready", "--at", at); o.code != 1 || !strings.Contains(o.err, "503 Service Unavailable: /readyz") {
		t.Errorf("%+v", o)
	}
	plain.Close()
	if o := autodev(t, "", "health", "--at", at); o.code != 1 || !strings.Contains(o.err, "refused") {
		t.Errorf("%+v", o)
	}
	if o := autodev(t, "", "health", "--at", "8000"); o.code != 2 {
		t.Errorf("%+v", o)
	}
}
