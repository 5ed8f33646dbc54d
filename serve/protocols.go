package serve

import (
	"autodev/serve/autodevv1"
	"autodev/serve/llamacpp"
	"autodev/serve/mistral"
	"autodev/serve/ollama"
	"autodev/serve/openai"
	"autodev/serve/tabby"
	"autodev/serve/tgi"
	"autodev/serve/wire"
)

// Protocols returns everything the server speaks.
func Protocols() []*wire.Protocol {
	return []*wire.Protocol{
		openai.New(),
		mistral.New(),
		llamacpp.New(),
		ollama.New(),
		tabby.New(nil),
		tgi.New(),
		autodevv1.New(nil),
	}
}
