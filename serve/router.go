package serve

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"autodev/serve/wire"
)

// handler is a route of a protocol.
type handler struct {
	protocol *wire.Protocol
	wire.Route
}

// router finds the protocol of a request: by path and method, and where several have both, by what the request says.
type router struct {
	mux    *http.ServeMux
	serve  func(w http.ResponseWriter, r *http.Request, path string, choose func(*wire.Call) (handler, error))
	byPath map[string]map[string][]handler
}

func newRouter(protocols []*wire.Protocol, serve func(w http.ResponseWriter, r *http.Request, path string, choose func(*wire.Call) (handler, error))) *router {
	rt := &router{mux: http.NewServeMux(), serve: serve, byPath: map[string]map[string][]handler{}}
	for _, p := range protocols {
		for _, route := range p.Routes {
			if rt.byPath[route.Path] == nil {
				rt.byPath[route.Path] = map[string][]handler{}
			}
			all := append(rt.byPath[route.Path][route.Method], handler{p, route})
			// Those that claim calls are asked first.
			slices.SortStableFunc(all, func(a, b handler) int {
				switch {
				case a.Claims != nil && b.Claims == nil:
					return -1
				case a.Claims == nil && b.Claims != nil:
					return 1
				}
				return 0
			})
			rt.byPath[route.Path][route.Method] = all
		}
	}
	for path, byMethod := range rt.byPath {
		rt.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			rt.serve(w, r, path, func(c *wire.Call) (handler, error) { return choose(c, byMethod) })
		})
	}
	if rt.byPath["/"] == nil {
		rt.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			rt.serve(w, r, "", func(c *wire.Call) (handler, error) {
				return handler{}, wire.Errorf(http.StatusNotFound, wire.Invalid, "", "not_found", "%s %s: no such route", c.R.Method, c.R.URL.Path)
			})
		})
	}
	return rt
}

// choose returns the handler of a call among those of its path.
func choose(c *wire.Call, byMethod map[string][]handler) (handler, error) {
	method := c.R.Method
	if method == http.MethodHead && byMethod[method] == nil {
		method = http.MethodGet
	}
	all := byMethod[method]
	for _, h := range all {
		if h.Claims == nil || h.Claims(c) {
			return h, nil
		}
	}
	if len(all) > 0 {
		// Nobody claims it: the first says, in its form, what is missing.
		return all[0], nil
	}
	allowed := slices.Sorted(maps.Keys(byMethod))
	if byMethod[http.MethodGet] != nil && byMethod[http.MethodHead] == nil {
		allowed = slices.Insert(allowed, slices.Index(allowed, http.MethodGet)+1, http.MethodHead)
	}
	c.W.Header().Set("Allow", strings.Join(allowed, ", "))
	// The protocol whose path it is, rather than one that claims some of its calls.
	var other *wire.Protocol
	for _, m := range allowed {
		for _, h := range byMethod[m] {
			if other == nil || h.Claims == nil {
				other = h.protocol
			}
		}
	}
	return handler{protocol: other}, wire.Errorf(http.StatusMethodNotAllowed, wire.Invalid, "", "method_not_allowed", "%s %s: expected %s", c.R.Method, c.R.URL.Path, strings.Join(allowed, " or "))
}
