// Package wire is what the protocols of package serve are made of. Each is a package of its own that returns a *Protocol: routes, and the form
// of a failure.
//
//	service.go  the models that protocols translate to; routes and protocols
//	call.go     one request on its way to an answer
//	room.go     the memory of bodies, of all calls together
//	fields.go   JSON objects read member by member, strictly by type and leniently by field
//	messages.go conversations
//	reply.go    answers whole or as a stream, for protocols whose streams are events
//	stream.go   answers sent part by part
//	timings.go  token counts and times as several protocols write them
//	dialect.go  raw prompts with the markers of other models
//	errors.go   failures, before a protocol gives them its form
//
// A protocol is a translation and nothing else: it turns a body into infer.Requests and chunks into its own frames. Prompt templates, stop rules,
// budgets and admission are package infer's. What only one protocol has, is in its own package.
//
// Nothing here logs text of a user: no prompt, no completion, no field of a body.
package wire
