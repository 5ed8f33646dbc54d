package guard

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"autodev/serve/wire"
)

// wireError gives a denial to the protocol of a call.
func (d *Denial) wireError() *wire.Error {
	kind := wire.Forbidden
	switch d.Status {
	case http.StatusUnauthorized:
		kind = wire.Unauthorized
	case http.StatusTooManyRequests:
		kind = wire.Overload
	}
	return &wire.Error{Status: d.Status, Kind: kind, Code: d.Code, Message: d.Message, RetryAfter: d.RetryAfter}
}

// Wrap is Handler for package serve.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return g.Handler(next, func(w http.ResponseWriter, _ *http.Request, d *Denial) { wire.WriteError(w, nil, d.wireError()) })
}

// Call is Admit for package serve: it names the call's client, and what it returns counts the tokens that the call has used.
func (g *Guard) Call(c *wire.Call) (done func(), err error) {
	account, end, err := g.Admit(c.W, c.R)
	var d *Denial
	if errors.As(err, &d) {
		return nil, d.wireError()
	}
	c.Record.Client = clientOf(account, c.R)
	if c.Admin && !g.mayAdminister(account, c.R) {
		end()
		return nil, wire.Errorf(http.StatusForbidden, wire.Forbidden, "", "not_an_administrator", "%s: expected a key that was made with --admin, or, where no keys are asked for, a request from this machine", c.R.URL.Path)
	}
	return func() {
		end()
		if account == nil {
			return
		}
		for _, r := range c.Record.Results {
			account.Spend(len(r.PromptIDs) - r.Cached + len(r.IDs))
		}
	}, nil
}

// clientOf returns whom fairness counts a request for: its key's name, or else the machine it came from. Everything on this machine is one.
func clientOf(a *Account, r *http.Request) string {
	if a != nil {
		return a.Name
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || loopbackHost(host) {
		return ""
	}
	return host
}

func (g *Guard) mayAdminister(a *Account, r *http.Request) bool {
	if g.o.Keys != nil {
		return a != nil && a.Admin()
	}
	if local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr); local != nil && local.Network() == "unix" {
		return true
	}
	remote, err := netip.ParseAddrPort(strings.TrimSpace(r.RemoteAddr))
	return err == nil && remote.Addr().Unmap().IsLoopback()
}
