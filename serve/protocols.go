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

// Parts are what protocols need beside the models.
type Parts struct {
	Events tabby.Recorder   // nil: nobody keeps them
	Assist autodevv1.Assist // nil: there are no functions
}

// Protocols returns everything the server speaks, without parts.
func Protocols() []*wire.Protocol { return ProtocolsWith(Parts{}) }

// ProtocolsWith returns everything the server speaks.
func ProtocolsWith(p Parts) []*wire.Protocol {
	return []*wire.Protocol{
		openai.New(),
		mistral.New(),
		llamacpp.New(),
		ollama.New(),
		tabby.New(p.Events),
		tgi.New(),
		autodevv1.New(p.Assist),
	}
}
