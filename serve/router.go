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

// serveFunc answers a request for a path. first is the handler that has the path, as far as can be told without the body, without a protocol for
// paths that nobody has; choose finds the handler, for which it may read the body.
type serveFunc func(w http.ResponseWriter, r *http.Request, path string, first handler, choose func(*wire.Call) (handler, error))

// router finds the protocol of a request: by path and method, and where several have both, by what the request says.
type router struct {
	mux    *http.ServeMux
	serve  serveFunc
	byPath map[string]map[string][]handler
}

func newRouter(protocols []*wire.Protocol, serve serveFunc) *router {
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
			rt.serve(w, r, path, owner(byMethod, r.Method), func(c *wire.Call) (handler, error) { return choose(c, byMethod) })
		})
	}
	if rt.byPath["/"] == nil {
		rt.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			rt.serve(w, r, "", handler{}, func(c *wire.Call) (handler, error) {
				return handler{}, wire.Errorf(http.StatusNotFound, wire.Invalid, "", "not_found", "%.20s %.200s: no such route", c.R.Method, c.R.URL.Path)
			})
		})
	}
	return rt
}

// owner returns the handler of a method of a path, or of the path itself, rather than one that claims some of its calls.
func owner(byMethod map[string][]handler, method string) handler {
	all := byMethod[method]
	if all == nil && method == http.MethodHead {
		all = byMethod[http.MethodGet]
	}
	// Who claims no calls is asked last.
	if n := len(all); n > 0 && all[n-1].Claims == nil {
		return all[n-1]
	}
	for _, m := range slices.Sorted(maps.Keys(byMethod)) {
		other := byMethod[m]
		if n := len(other); other[n-1].Claims == nil {
			return other[n-1]
		}
		if all == nil {
			all = other
		}
	}
	return all[0]
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
	return owner(byMethod, method), wire.Errorf(http.StatusMethodNotAllowed, wire.Invalid, "", "method_not_allowed", "%.20s %.200s: expected %s", c.R.Method, c.R.URL.Path, strings.Join(allowed, " or "))
}
