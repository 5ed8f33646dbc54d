// Package guard decides who may use a server, before anything is read of what they ask.
//
//	keyfile.go   the file of API keys: names, hashes and limits; made, listed and revoked
//	keys.go      the keys of a running server: read again when the file changes, compared in constant time
//	limits.go    what a key may use: requests a minute, tokens a day, requests at once
//	usage.go     what keys have used today, over a restart
//	hosts.go     the Host and Origin headers that are answered, against DNS rebinding; CORS
//	exposure.go  which addresses may be listened on without keys
//	listen.go    listeners: TCP and Unix sockets, a bound on connections
//	tls.go       certificates from files, read again when they change
//	guard.go     what a server asks: the middleware for hosts and origins, and who a request is from
//	call.go      the same as hooks of package serve
//
// A request that is turned away becomes a Denial; what it looks like on the wire is the protocol's business. The package knows
// nothing of bodies, and never logs or returns a key.
//
// # Keys
//
// A key is 160 random bits. Only its SHA-256 is stored: a slow hash protects what people choose from guessing, and nobody guesses
// 160 random bits, while every request would pay for it.
package guard
