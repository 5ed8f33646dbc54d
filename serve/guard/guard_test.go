package guard

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ask sends a request through a guard as if it had come in at local.
func ask(t *testing.T, o Options, method, target, local, host string, header map[string]string) *httptest.ResponseRecorder {
	t.Helper()
	g, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, target, nil)
	r.Host = host
	for k, v := range header {
		r.Header.Set(k, v)
	}
	if local != "" {
		var a net.Addr = net.TCPAddrFromAddrPort(mustAddrPort(local))
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, a))
	}
	w := httptest.NewRecorder()
	deny := func(w http.ResponseWriter, _ *http.Request, d *Denial) {
		if d.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfter.Seconds())))
		}
		http.Error(w, d.Code, d.Status)
	}
	g.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		account, end, err := g.Admit(w, r)
		defer end()
		var d *Denial
		switch {
		case errors.As(err, &d):
			deny(w, r, d)
		case account != nil:
			_, _ = io.WriteString(w, "passed "+account.Name)
		default:
			_, _ = io.WriteString(w, "passed ")
		}
	}), deny).ServeHTTP(w, r)
	return w
}

const (
	inside  = "127.0.0.1:8000"
	inside6 = "[::1]:8000"
	outside = "192.0.2.7:8000"
)

func TestHosts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	secret := addKey(t, path, "ann", Limits{})
	keys, err := OpenKeys(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	machine, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		local, host string
		allow       []string
		keys        *Keys
		ok          bool
	}{
		{inside, "localhost", nil, nil, true},
		{inside, "localhost:8000", nil, nil, true},
		{inside, "LOCALHOST:1", nil, nil, true},
		{inside, "localhost.:8000", nil, nil, true},
		{inside, "127.0.0.1:8000", nil, nil, true},
		{inside, "127.8.9.1", nil, nil, true},
		{inside, "[::1]:8000", nil, nil, true},
		{inside6, "[::1]", nil, nil, true},
		{inside, "[::ffff:127.0.0.1]:8000", nil, nil, true},
		{inside, "", nil, nil, true},
		{inside, "app.localhost:8000", nil, nil, true},
		{inside, "host.docker.internal:8000", nil, nil, true},
		{inside, machine + ":8000", nil, nil, true},
		{inside, machine + ".evil.example", nil, nil, false},
		{inside, "evil.internal", nil, nil, false},
		{inside, "notlocalhost", nil, nil, false},
		{inside, "evil.example", nil, nil, false},
		{inside, "evil.example:8000", nil, nil, false},
		{inside, "localhost.evil.example:8000", nil, nil, false},
		{inside, "127.0.0.1.evil.example", nil, nil, false},
		{inside, "localhost:8000@evil.example", nil, nil, false},
		{inside, "localhost:80x", nil, nil, false},
		{inside, "192.0.2.7:8000", nil, nil, false},
		{inside, "0.0.0.0:8000", nil, nil, false},
		{inside, "evil.example", nil, keys, false},
		{inside, "dev.example.org", []string{"dev.example.org"}, nil, true},
		{inside, "Dev.Example.org:9000", []string{"dev.example.org"}, nil, true},
		{inside, "dev.example.org:9000", []string{"dev.example.org:9000"}, nil, true},
		{inside, "dev.example.org:9001", []string{"dev.example.org:9000"}, nil, false},
		{inside, "a.b.example.org", []string{".example.org"}, nil, true},
		{inside, "badexample.org", []string{".example.org"}, nil, false},
		{inside, "anything", []string{"*"}, nil, true},
		{"", "evil.example", nil, nil, false},
		{outside, "192.0.2.7:8000", nil, nil, true},
		{outside, "localhost:8000", nil, nil, true}, // a port of a container
		{outside, "evil.example:8000", nil, nil, false},
		{outside, "evil.example:8000", nil, keys, true},
		{outside, "evil.example:8000", []string{"good.example"}, keys, false},
		{outside, "good.example:8000", []string{"good.example"}, keys, true},
		{outside, "192.0.2.7", []string{"good.example"}, nil, false},
	} {
		w := ask(t, Options{Keys: c.keys, Hosts: c.allow}, "POST", "/v1/completions", c.local, c.host, map[string]string{"Authorization": "Bearer " + secret})
		if ok := w.Code == 200; ok != c.ok || !ok && (w.Code != 403 || w.Body.String() != "host_not_allowed\n") {
			t.Errorf("%s asked for %q, allowed %v: %d %s, expected %v", c.local, c.host, c.allow, w.Code, w.Body, c.ok)
		}
	}
	for _, bad := range []string{"", "http://x", "a/b", "*.example.org"} {
		if _, err := New(Options{Hosts: []string{bad}}); err == nil {
			t.Errorf("allowed host %q: expected an error", bad)
		}
	}
}

func TestOrigins(t *testing.T) {
	for _, c := range []struct {
		method, origin, site string
		allow                []string
		ok, cors             bool
	}{
		{"POST", "", "", nil, true, false},
		{"POST", "", "none", nil, true, false},
		{"POST", "", "same-origin", nil, true, false},
		{"POST", "", "cross-site", nil, false, false},
		{"POST", "", "same-site", nil, false, false},
		{"GET", "", "cross-site", nil, true, false}, // a link that somebody followed
		{"POST", "http://127.0.0.1:8000", "same-origin", nil, true, false},
		{"POST", "https://127.0.0.1:8000", "", nil, true, false},
		{"POST", "http://127.0.0.1:3000", "", nil, false, false},
		{"POST", "http://localhost:8000", "", nil, false, false},
		{"GET", "http://evil.example", "", nil, false, false},
		{"POST", "null", "", nil, false, false},
		{"POST", "ftp://127.0.0.1:8000", "", nil, false, false},
		{"POST", "http://[", "", nil, false, false},
		{"POST", "vscode-webview://1234abcd", "", nil, true, true},
		{"POST", "vscode-file://vscode-app", "", nil, true, true},
		{"POST", "https://vscode-webview.evil.example", "", nil, false, false},
		{"POST", "https://ide.example", "", []string{"https://ide.example"}, true, true},
		{"POST", "https://ide.example:444", "", []string{"https://ide.example"}, false, false},
		{"POST", "http://ide.example", "", []string{"https://ide.example"}, false, false},
		{"POST", "app://obsidian.md", "", []string{"app://*"}, true, true},
		{"POST", "http://evil.example", "", []string{"*"}, true, true},
		{"POST", "null", "", []string{"*"}, true, true},
	} {
		header := map[string]string{}
		if c.origin != "" {
			header["Origin"] = c.origin
		}
		if c.site != "" {
			header["Sec-Fetch-Site"] = c.site
		}
		w := ask(t, Options{Origins: c.allow}, c.method, "/v1/models", inside, "127.0.0.1:8000", header)
		cors := w.Header().Get("Access-Control-Allow-Origin")
		if ok := w.Code == 200; ok != c.ok || !ok && w.Body.String() != "origin_not_allowed\n" || (cors != "") != c.cors || c.cors && cors != c.origin || w.Header().Get("Vary") != "Origin" {
			t.Errorf("%s from %q (%s), allowed %v: %d %s %v, expected %v, %v", c.method, c.origin, c.site, c.allow, w.Code, w.Body, w.Header(), c.ok, c.cors)
		}
	}
	for _, bad := range []string{"", "example.org", "https://", "https://a/b", "https://*.example.org"} {
		if _, err := New(Options{Origins: []string{bad}}); err == nil {
			t.Errorf("allowed origin %q: expected an error", bad)
		}
	}
}

func TestPreflight(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	addKey(t, path, "ann", Limits{})
	keys, err := OpenKeys(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	header := map[string]string{
		"Origin": "https://ide.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
		"Access-Control-Request-Private-Network": "true",
	}
	// Browsers send no key with the question.
	w := ask(t, Options{Keys: keys, Origins: []string{"https://ide.example"}}, "OPTIONS", "/v1/completions", inside, "localhost:8000", header)
	h := w.Header()
	if w.Code != 204 || h.Get("Access-Control-Allow-Origin") != "https://ide.example" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") ||
		h.Get("Access-Control-Allow-Headers") != "authorization,content-type,x-stainless-os" || h.Get("Access-Control-Allow-Private-Network") != "true" || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%d %v", w.Code, h)
	}
	header["Access-Control-Request-Headers"] = "x\r\ny"
	if w := ask(t, Options{Origins: []string{"*"}}, "OPTIONS", "/", inside, "localhost", header); w.Header().Get("Access-Control-Allow-Headers") != "" {
		t.Errorf("%v", w.Header())
	}
	header["Origin"] = "https://evil.example"
	if w := ask(t, Options{Origins: []string{"https://ide.example"}}, "OPTIONS", "/v1/completions", inside, "localhost", header); w.Code != 403 || w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func TestKeysAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	ann := addKey(t, path, "ann", Limits{})
	once := addKey(t, path, "once", Limits{RequestsPerMinute: 1})
	keys, err := OpenKeys(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		keys         *Keys
		method, path string
		header       map[string]string
		status       int
		body         string
	}{
		{nil, "POST", "/v1/completions", nil, 200, "passed "},
		{nil, "POST", "/v1/completions", map[string]string{"Authorization": "Bearer "}, 200, "passed "},
		{nil, "POST", "/v1/completions", map[string]string{"Authorization": "Bearer ollama"}, 200, "passed "},
		{keys, "POST", "/v1/completions", nil, 401, "invalid_api_key\n"},
		{keys, "POST", "/v1/completions", map[string]string{"Authorization": "Bearer "}, 401, "invalid_api_key\n"},
		{keys, "POST", "/v1/completions", map[string]string{"Authorization": "Bearer ollama"}, 401, "invalid_api_key\n"},
		{keys, "POST", "/v1/completions", map[string]string{"Authorization": "Basic " + ann}, 401, "invalid_api_key\n"},
		{keys, "POST", "/v1/completions", map[string]string{"Authorization": "Bearer " + ann}, 200, "passed ann"},
		{keys, "POST", "/v1/completions", map[string]string{"Authorization": "bearer  " + ann + " "}, 200, "passed ann"},
		{keys, "POST", "/v1/completions", map[string]string{"X-Api-Key": ann}, 200, "passed ann"},
		{keys, "POST", "/v1/completions", map[string]string{"Api-Key": ann}, 200, "passed ann"},
		{keys, "POST", "/v1/completions", map[string]string{"Authorization": "Bearer ", "Api-Key": ann}, 200, "passed ann"},
		{keys, "GET", "/v1/models", nil, 401, "invalid_api_key\n"},
		{keys, "GET", "/metrics", nil, 401, "invalid_api_key\n"},
		{keys, "GET", "/healthz", nil, 200, "passed "},
		{keys, "GET", "/", nil, 200, "passed "},
		{keys, "POST", "/", nil, 401, "invalid_api_key\n"}, // TGI's completion
		{keys, "GET", "/healthz", map[string]string{"Authorization": "Bearer wrong"}, 401, "invalid_api_key\n"},
		{keys, "POST", "/v1/completions", map[string]string{"X-Api-Key": once}, 200, "passed once"},
		{keys, "POST", "/v1/completions", map[string]string{"X-Api-Key": once}, 429, "rate_limit_exceeded\n"},
		{keys, "GET", "/v1/models", map[string]string{"X-Api-Key": once}, 200, "passed once"},
	} {
		w := ask(t, Options{Keys: c.keys}, c.method, c.path, inside, "localhost", c.header)
		if w.Code != c.status || w.Body.String() != c.body || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") || (w.Code == 429) != (w.Header().Get("Retry-After") != "") {
			t.Errorf("%s %s %v: %d %s %v, expected %d %s", c.method, c.path, c.header, w.Code, w.Body, w.Header(), c.status, c.body)
		}
	}
}

// FuzzLoopbackHost: what is taken for this machine is this machine for a browser too.
func FuzzLoopbackHost(f *testing.F) {
	for _, s := range []string{"localhost", "LOCALHOST.:80", "127.0.0.1:8000", "[::1]:1", "[::ffff:127.0.0.1]", "localhost@evil", "127.0.0.1.evil", "[::1]evil", "::1", "localhost:80:90", "127.0.0.1%25x", "[::1%25eth0]:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !loopbackHost(host) {
			return
		}
		u, err := url.Parse("http://" + host + "/")
		if err != nil {
			return // no browser sends it
		}
		name := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
		ip := net.ParseIP(name)
		if strings.HasSuffix(name, ".localhost") || slices.Contains(containerHosts, name) {
			name = "localhost"
		}
		if u.User != nil || name != "localhost" && (ip == nil || !ip.IsLoopback()) {
			t.Errorf("%q is taken for this machine, and is %q", host, u.Hostname())
		}
	})
}
