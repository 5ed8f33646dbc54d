// Package mistral is Mistral's API for filling in code over package infer: what Continue, minuet, Zed and Mistral's own clients send.
//
//	protocol.go    routes, and the form of failures
//	completions.go POST /v1/fim/completions, whole and as a stream
//	request.go     the body of such a request
//	response.go    the objects sent back
//
// What differs from Mistral's server: temperature is 0 where a request does not say, and max_tokens 256, or min_tokens if that is more.
// Fields of OpenAI's (seed, presence_penalty, frequency_penalty, logit_bias, max_completion_tokens) are honoured, as are this project's own:
// filename, files, heal, lines, no_overlap, no_loops, n_indent; reuse allows an answer from a suggestion shown before.
package mistral
