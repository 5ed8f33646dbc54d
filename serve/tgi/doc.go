// Package tgi is the API of Hugging Face's Text Generation Inference over package infer, which llm-ls, the server behind several editors, speaks,
// and Continue.
//
//	protocol.go  routes, and failures in TGI's words and numbers
//	generate.go  POST /generate, /generate_stream and /, which is both
//	request.go   the body of such a request
//	response.go  the objects sent back
//	info.go      GET /info and POST /tokenize
//
// What differs from TGI, on purpose: a prompt that does not fit is shortened and not refused, unless its length was named; a stop text is not
// part of the answer; up to 64 of them; a temperature of 0 is greedy; failures before a stream begins have a status.
package tgi
