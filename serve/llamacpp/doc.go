// Package llamacpp is the API of llama.cpp's server over package infer: what llama.vim, llama.vscode, Qt Creator's plugin and others speak.
//
//	protocol.go   routes, and the form of a failure
//	infill.go     POST /infill
//	completion.go POST /completion; prompts as texts, token ids and mixtures
//	options.go    the fields that both have in common
//	sampling.go   samplers, penalties and biases
//	adapter.go    GET and POST /lora-adapters, and the field lora
//	response.go   the objects sent back, and response_fields
//	tokens.go     POST /tokenize, /detokenize and /apply-template
//	status.go     GET /health, /props and /slots
//
// POST /v1/completions, /v1/chat/completions, /completions and GET /v1/models are package openai's, GET /v1/health is package tabby's.
//
// Where this server differs from llama.cpp's:
//   - Who names no temperature gets the most probable text, and so does the sampler "infill", which exists to prefer sure tokens; of several
//     choices that is the first, and the others are drawn. Samplers that package infer does not have (typ_p, xtc, dry, mirostat, top_n_sigma)
//     change nothing.
//   - The cache is always used, as it changes no answer. cache_prompt allows more, when a request sets it: to answer with the rest of a suggestion
//     shown before that the user types along.
//   - Text is never searched for control tokens, but in /tokenize, whose answer goes to no model.
//   - /infill that finds the server busy is answered with an empty content and status 200, as llama.vscode opens a box on anything else.
//     A completion whose prompt took longer than t_max_prompt_ms, which llama.cpp's server does not honour, has a content of null; what was
//     read of the prompt is in the cache for the next try.
//   - Of LoRA adapters one at a time is in use, at scale 1. POST /lora-adapters, which chooses what others get, is for those who run the server; the
//     field lora of a request is for everybody.
package llamacpp
