// Package tabby is Tabby's API over package infer, as its agent, which sits between its editors and the server, speaks it.
//
//	protocol.go     routes
//	completions.go  POST /v1/completions with segments: what OpenAI's clients send to this path has none
//	request.go      the body of such a request
//	events.go       POST /v1/events: suggestions that were seen, taken or left, those of other protocols too
//	health.go       what the agent asks about the server, and llama.cpp's clients at the same path
//
// Prompts, stop rules and budgets are package infer's. Tabby's server answers failures with a status and no text that a program could read; its
// agent shows the text it finds, so there is one.
package tabby
