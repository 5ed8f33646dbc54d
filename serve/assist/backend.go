package assist

import (
	"context"

	"autodev/infer/chat"
)

// Backend answers prompts: a model of this process (Local), or a service elsewhere (External).
type Backend interface {
	// Model is the name of the model, by which functions may choose their prompt.
	Model() string
	// Base says that the model was not tuned to follow instructions: it gets Query.Base when there is one.
	Base() bool
	// Answer generates an answer and calls emit with its text as it arrives. It stops soon after ctx has ended or emit has failed. The Reply is what is
	// known when it returns, error or not.
	Answer(ctx context.Context, q Query, emit func(text string) error) (Reply, error)
}

// Query is what a Backend is asked.
type Query struct {
	Messages    []chat.Message
	Base        string // what a model goes on with, in place of messages; "" to use the messages
	Stop        []string
	MaxTokens   int
	Temperature float64
	Seed        uint64
}

// Reply is how an answer ended.
type Reply struct {
	Finish Finish
	Usage  Usage
}

// Finish says why an answer ended.
type Finish string

const (
	FinishStop   Finish = "stop"   // the model ended it
	FinishLength Finish = "length" // it has reached its limit
	FinishLoop   Finish = "loop"   // it went round in circles, and was ended
	FinishCancel Finish = "cancel"
)

// Usage counts tokens.
type Usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

// TooLongError says that a prompt does not fit. With less around the selection it may.
type TooLongError struct{ Err error }

func (e *TooLongError) Error() string { return e.Err.Error() }
func (e *TooLongError) Unwrap() error { return e.Err }
