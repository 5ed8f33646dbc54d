// Package ollama is Ollama's API over package infer, as far as it is about completing and conversing: Continue, Zed, twinny, vim-ollama and other
// editors speak it.
//
//	protocol.go routes, and the form of a failure
//	generate.go POST /api/generate
//	chat.go     POST /api/chat
//	options.go  the fields that both have in common
//	response.go the objects sent back
//	models.go   GET /api/tags and /api/ps, POST /api/show and /api/pull
//
// Where this server differs from Ollama's:
//   - Who names no temperature gets the most probable text.
//   - A model has one template, its own: a request's template is not used, but that {{ .Prompt }} alone is raw. A prompt that holds another
//     model's fill-in-the-middle markers is a prefix and a suffix.
//   - Models without a chat template of their own complete a prompt as it is.
//   - Models are loaded by the server's operator: keep_alive is accepted and changes nothing, and nothing is created, copied or deleted.
package ollama
