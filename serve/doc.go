// Package serve is HTTP over package infer.
//
//	server.go       routes, life cycle, limits, request log
//	completions.go  POST /v1/completions (OpenAI), whole and as a stream of server-sent events
//	request.go      the body of such a request, read strictly by type and leniently by field
//	response.go     the objects sent back
//	errors.go       every failure as OpenAI's error object
//
// A protocol is a translation and nothing else: it turns a body into infer.Requests and chunks into its own frames. Prompt
// templates, stop rules, budgets and admission are package infer's.
//
// The package never logs text of a user: no prompt, no completion, no field of a body.
package serve
