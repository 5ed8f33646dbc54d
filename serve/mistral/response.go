package mistral

import "autodev/serve/wire"

// head is what the objects begin with.
type head struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	Model   string `json:"model"`
}

// completion is the whole answer, in the form of a chat.
type completion struct {
	head
	Choices []choice    `json:"choices"`
	Usage   *wire.Usage `json:"usage"`
}

type choice struct {
	Index        int     `json:"index"`
	Message      message `json:"message"`
	FinishReason *string `json:"finish_reason"`
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// chunk is an event of a stream. The last one has the usage.
type chunk struct {
	head
	Choices []chunkChoice `json:"choices"`
	Usage   *wire.Usage   `json:"usage,omitempty"`
}

type chunkChoice struct {
	Index        int     `json:"index"`
	Delta        delta   `json:"delta"`
	FinishReason *string `json:"finish_reason"`
}

type delta struct {
	Role    string `json:"role,omitempty"`
	Content string `json:"content"`
}
