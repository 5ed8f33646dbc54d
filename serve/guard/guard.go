package guard

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Options of a Guard.
type Options struct {
	Keys    *Keys    // nil: everybody may use the server, whatever key they send
	Hosts   []string // Host headers that are answered beside those that name this machine: "build.example.org", ".example.org", "*"
	Origins []string // origins of pages that may use the server beside its own: "https://example.org", "app://*", "*"
	// Public are the paths that GET without a key; nil: the page at / and what tells that the server is well.
	Public []string
}

// Guard checks requests.
type Guard struct {
	o     Options
	hosts hostRule
}

// New returns a Guard, or what is wrong with the options.
func New(o Options) (*Guard, error) {
	hosts, err := newHostRule(o.Hosts)
	if err != nil {
		return nil, err
	}
	if err := checkOrigins(o.Origins); err != nil {
		return nil, err
	}
	if o.Public == nil {
		o.Public = []string{"/", "/healthz", "/readyz", "/health"}
	}
	return &Guard{o, hosts}, nil
}

// Denial says why a request is not answered. The protocol that it is of gives it its form.
type Denial struct {
	Status     int    // 401, 403 or 429
	Code       string // "invalid_api_key", "host_not_allowed", "origin_not_allowed" or "rate_limit_exceeded"
	Message    string
	RetryAfter time.Duration // with 429
}

func (d *Denial) Error() string { return d.Message }

// Handler lets through to next what comes from a place that may ask, tells browsers so, and has deny answer the rest. Keys are not asked
// for: see Admit.
func (g *Guard) Handler(next http.Handler, deny func(http.ResponseWriter, *http.Request, *Denial)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d := g.checkHost(r); d != nil {
			deny(w, r, d)
			return
		}
		w.Header().Add("Vary", "Origin")
		ok, foreign := originAllowed(r, g.o.Origins)
		if !ok {
			deny(w, r, &Denial{Status: http.StatusForbidden, Code: "origin_not_allowed", Message: fmt.Sprintf("origin %.200q: pages of this origin may not use this server, which --allow-origin would change", r.Header.Get("Origin"))})
			return
		}
		if foreign {
			allowOrigin(w.Header(), r)
			if preflight(w, r) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// Admit returns the account that a request is counted for, nil when it needs none, and what ends the count; or a *Denial.
func (g *Guard) Admit(w http.ResponseWriter, r *http.Request) (a *Account, end func(), err error) {
	nothing := func() {}
	if g.o.Keys == nil {
		return nil, nothing, nil
	}
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	secret := secretOf(r)
	if secret == "" && reads && slices.Contains(g.o.Public, r.URL.Path) {
		return nil, nothing, nil
	}
	if a = g.o.Keys.Find(secret); a == nil {
		w.Header().Set("WWW-Authenticate", `Bearer realm="autodev"`)
		message := "the API key is not one of this server's"
		if secret == "" {
			message = "no API key: expected one as Authorization: Bearer KEY, or in x-api-key or api-key"
		}
		return nil, nothing, &Denial{Status: http.StatusUnauthorized, Code: "invalid_api_key", Message: message}
	}
	if reads { // asking how things are is no use of the model
		return a, nothing, nil
	}
	end, err = a.Begin()
	var limit *LimitError
	if errors.As(err, &limit) {
		return nil, nothing, &Denial{Status: http.StatusTooManyRequests, Code: "rate_limit_exceeded", Message: limit.Reason, RetryAfter: limit.RetryAfter}
	}
	return a, end, err
}

// secretOf returns the key that a request carries, in any of the headers that clients use.
func secretOf(r *http.Request) string {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if secret = strings.TrimSpace(secret); strings.EqualFold(scheme, "Bearer") && secret != "" {
		return secret
	}
	for _, name := range []string{"X-Api-Key", "Api-Key"} {
		if secret := strings.TrimSpace(r.Header.Get(name)); secret != "" {
			return secret
		}
	}
	return ""
}

// checkHost refuses what a browser may have been led here with.
func (g *Guard) checkHost(r *http.Request) *Denial {
	// No browser leaves the header out; some health checks do.
	if r.Host == "" || g.hosts.listed(r.Host) {
		return nil
	}
	var ok bool
	switch local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr); a := local.(type) {
	case *net.UnixAddr: // out of browsers' reach
		ok = true
	case *net.TCPAddr:
		switch {
		case a.IP.IsLoopback():
			ok = loopbackHost(r.Host) || g.hosts.own(r.Host)
		case len(g.hosts.names) > 0: // the list is all there is
		case g.o.Keys != nil: // a page that does not know a key gets nothing by any name
			ok = true
		default:
			ok = loopbackHost(r.Host) || numericHost(r.Host) || g.hosts.own(r.Host)
		}
	default:
		ok = loopbackHost(r.Host)
	}
	if ok {
		return nil
	}
	return &Denial{Status: http.StatusForbidden, Code: "host_not_allowed", Message: fmt.Sprintf("host %.200q: not a name of this server, which --allow-host would change", r.Host)}
}
