package guard

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
)

// A page on any web site can make a browser send requests to this machine; with a name that it lets point here (DNS rebinding)
// the browser even takes the answers for its own. Such requests carry that site's name as Host or Origin.

// editorOrigins are schemes of pages that are part of an editor and not of the web.
var editorOrigins = []string{"vscode-webview", "vscode-file"}

// hostRule says which Host headers are answered.
type hostRule struct {
	any     bool
	names   []string // lower case, with or without a port; ".example.org" also means what is below it
	machine string   // this machine's own name
}

func newHostRule(names []string) (r hostRule, err error) {
	for _, n := range names {
		n = strings.ToLower(n)
		if n == "*" {
			r.any = true
			continue
		}
		if n == "" || strings.ContainsAny(n, "/*@ \t") {
			return r, fmt.Errorf("allowed host %q: expected a name such as build.example.org, an address, one of them with a port, or *", n)
		}
		r.names = append(r.names, n)
	}
	// A machine without a name has one less to be called by.
	machine, _ := os.Hostname()
	r.machine = strings.ToLower(machine)
	return r, nil
}

// listed reports whether the header is one of the names given.
func (r hostRule) listed(header string) bool {
	header = strings.ToLower(header)
	name, _ := splitHost(header)
	return r.any || slices.ContainsFunc(r.names, func(n string) bool {
		return n == header || n == name || n == strings.TrimSuffix(header, ":80") || strings.HasPrefix(n, ".") && strings.HasSuffix(name, n)
	})
}

// containerHosts are what containers call the machine they run on. Nobody can register names below .internal.
var containerHosts = []string{"host.docker.internal", "host.containers.internal"}

// loopbackHost reports whether the header names this machine from within, whatever the port.
func loopbackHost(header string) bool {
	name, ok := splitHost(strings.ToLower(header))
	if !ok {
		return false
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") || slices.Contains(containerHosts, name) {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Zone() == "" && addr.Unmap().IsLoopback()
}

// own reports whether the header is this machine's name, which Debian, for one, has at 127.0.1.1.
func (r hostRule) own(header string) bool {
	name, ok := splitHost(strings.ToLower(header))
	return ok && name != "" && name == r.machine
}

// numericHost reports whether the header is an address: nobody can let an address point elsewhere.
func numericHost(header string) bool {
	name, _ := splitHost(header)
	_, err := netip.ParseAddr(name)
	return err == nil
}

// splitHost returns the name in "name", "name:port", "[::1]" or "[::1]:port", without brackets.
func splitHost(header string) (name string, ok bool) {
	if h, port, err := net.SplitHostPort(header); err == nil {
		return strings.TrimSuffix(h, "."), port == "" || digits.MatchString(port)
	}
	if strings.HasPrefix(header, "[") && strings.HasSuffix(header, "]") {
		return header[1 : len(header)-1], true
	}
	return strings.TrimSuffix(header, "."), !strings.ContainsAny(header, ":[]")
}

var digits = regexp.MustCompile(`^[0-9]{1,5}$`)

// checkOrigins checks a list of allowed origins: "https://example.org", "vscode-webview://*" or "*".
func checkOrigins(origins []string) error {
	for _, o := range origins {
		if o == "*" {
			continue
		}
		scheme, rest, ok := strings.Cut(o, "://")
		if !ok || scheme == "" || rest == "" || strings.ContainsAny(rest, "/ ") || strings.Contains(rest, "*") && rest != "*" {
			return fmt.Errorf("allowed origin %q: expected SCHEME://HOST or SCHEME://HOST:PORT, SCHEME://* or *", o)
		}
	}
	return nil
}

// originAllowed reports whether a request with that Origin may be answered; foreign says that it is not this server's own page's.
func originAllowed(r *http.Request, allowed []string) (ok, foreign bool) {
	origin := r.Header.Get("Origin")
	if origin == "" {
		// Browsers leave it out of requests that read. What changes something and comes from another site's page is none of ours.
		site := r.Header.Get("Sec-Fetch-Site")
		return site != "cross-site" && site != "same-site" || r.Method == http.MethodGet || r.Method == http.MethodHead, false
	}
	u, err := url.Parse(origin)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") && strings.EqualFold(u.Host, r.Host) {
		return true, false
	}
	for _, a := range allowed {
		scheme, rest, _ := strings.Cut(a, "://")
		if a == "*" || strings.EqualFold(a, origin) || rest == "*" && err == nil && strings.EqualFold(scheme, u.Scheme) {
			return true, true
		}
	}
	return err == nil && slices.Contains(editorOrigins, u.Scheme), true
}

// headerNames is what may stand in a list of header names.
var headerNames = regexp.MustCompile(`^[A-Za-z0-9_, -]{0,1000}$`)

// allowOrigin writes what a browser asks for before it shows an answer to a page of another origin.
func allowOrigin(h http.Header, r *http.Request) {
	h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
	h.Set("Access-Control-Expose-Headers", "X-Request-Id, X-Completion-Id, Retry-After, Server-Timing, X-AutoDev-FIM")
}

// preflight answers the question that a browser asks before a request, and reports whether it was one.
func preflight(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE")
	if asked := strings.Join(r.Header.Values("Access-Control-Request-Headers"), ","); asked != "" && headerNames.MatchString(asked) {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}
