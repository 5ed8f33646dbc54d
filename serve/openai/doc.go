// Package openai is OpenAI's API over package infer.
//
//	protocol.go     routes
//	completions.go  POST /v1/completions with suffix, whole and as a stream
//	request.go      the body of such a request
//	response.go     the objects sent back
//	models.go       GET /v1/models
//
// What other protocols need too is in package wire.
package openai
