package openai

import "autodev/serve/wire"

// chatHead is what chat's objects begin with.
type chatHead struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	Model   string `json:"model"`
}

// chatCompletion is OpenAI's chat.completion object.
type chatCompletion struct {
	chatHead
	Choices []chatChoice `json:"choices"`
	Usage   *wire.Usage  `json:"usage"`
	// Timings are not of OpenAI's but as llama.cpp's server gives them.
	Timings *wire.Timings `json:"timings"`
}

type chatChoice struct {
	Index        int           `json:"index"`
	Message      chatMessage   `json:"message"`
	Logprobs     *chatLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
}

type chatMessage struct {
	Role    string  `json:"role"`
	Content string  `json:"content"`
	Refusal *string `json:"refusal"` // never, but clients' types demand it
}

// chatChunk is OpenAI's chat.completion.chunk object, one event of a stream.
type chatChunk struct {
	chatHead
	Choices []chatChunkChoice `json:"choices"`
	Usage   *wire.Usage       `json:"usage,omitempty"`
	Timings *wire.Timings     `json:"timings,omitempty"`
}

type chatChunkChoice struct {
	Index        int           `json:"index"`
	Delta        chatDelta     `json:"delta"`
	Logprobs     *chatLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
}

type chatDelta struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

// chatLogprobs has an element for each token.
type chatLogprobs struct {
	Content []chatToken `json:"content"`
	Refusal []chatToken `json:"refusal"` // never
}

type chatToken struct {
	tokenLogprob
	Top []tokenLogprob `json:"top_logprobs"`
}

type tokenLogprob struct {
	Token   string  `json:"token"`
	Logprob float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

func newTokenLogprob(b []byte, logprob float64) tokenLogprob {
	t := tokenLogprob{Token: tokenString(b), Logprob: logprob, Bytes: make([]int, len(b))}
	for i, c := range b {
		t.Bytes[i] = int(c)
	}
	return t
}
