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
// What other protocols need too is in package wire.
package openai
