// Package openai is OpenAI's API over package infer.
//
//	protocol.go      routes
//	options.go       what the bodies of completions and of chat have in common
//	completions.go   POST /v1/completions with suffix, whole and as a stream
//	request.go       the body of such a request
//	response.go      the objects sent back
//	chat.go          POST /v1/chat/completions, whole and as a stream
//	chat_request.go  the body of such a request
//	chat_response.go the objects sent back
//	models.go        GET /v1/models
//
// What differs from OpenAI's server: temperature is 0 where a request does not say; tools and response formats are refused where a request demands
// them, and ignored where it allows them. Fields of other servers are honoured: top_k, min_p, repetition_penalty, repeat_penalty, repeat_last_n,
// stop_token_ids, min_tokens, ignore_eos (tokens of an end are never chosen, as in llama.cpp), n_predict; and this project's own: filename, files, heal, lines, no_overlap, no_loops, n_indent, truncate, and reuse, which allows
// an answer from a suggestion shown before. Timings in answers are llama.cpp's.
//
// What other protocols need too is in package wire.
package openai
