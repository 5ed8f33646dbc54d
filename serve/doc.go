// Package serve is HTTP over package infer: one port that speaks the protocols of many clients.
//
//	server.go      life cycle and limits
//	router.go      from a request to the protocol it is meant for
//	protocols.go   which protocols there are
//	operations.go  keys, metrics, events and the page around them
//	log.go         the request log
//
// Which models there are is package registry's. Each protocol is a package of its own, made of what package wire has for all. What a client may do
// is decided by hooks of Options.
//
// The package logs no text of a user, no prompt, no completion, no field of a body, unless Operations.LogContent asks for it.
package serve
