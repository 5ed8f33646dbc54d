// Package page is the built-in page at /: try a completion and the assistance functions, see models, cache and what the server does
// now.
//
//	page.go    GET / for browsers
//	status.go  GET /v1/status
//	assets     the page: HTML, CSS and JavaScript, put together into one answer when the server starts
//
// The page loads nothing from anywhere: its content security policy lets scripts and styles run that have the hashes of its own, and connections
// go to its own server. Text of models and users becomes text nodes, never markup. It uses the public protocols, as any client, and /v1/status.
package page
