package assist

import (
	"context"
	"errors"

	"autodev/infer"
	"autodev/infer/chat"
)

// Engine generates completions: *infer.Engine by way of a server's call or a function.
type Engine interface {
	// Context returns the longest sequence in tokens.
	Context() int
	// Complete generates one completion; emit gets it piece by piece.
	Complete(ctx context.Context, r infer.Request, emit func(infer.Chunk) error) (infer.Result, error)
}

// Conversation makes prompts of conversations: a *chat.Prompter, or what stands for it in a server.
type Conversation interface {
	Prompt(messages []chat.Message) (infer.Prompt, []string, error)
	StopIDs() []int32
}

// Local answers with a model of this process.
type Local struct {
	Name   string
	Engine Engine
	// Chat is nil for a model that cannot converse.
	Chat Conversation
	// Instruct says that the model follows instructions.
	Instruct bool
}

func (l *Local) Model() string { return l.Name }

func (l *Local) Base() bool { return !l.Instruct || l.Chat == nil }

func (l *Local) Answer(ctx context.Context, q Query, emit func(string) error) (Reply, error) {
	r := infer.Request{
		MaxTokens: q.MaxTokens, Stop: q.Stop, Class: infer.Chat,
		Sampling: infer.Sampling{Temperature: q.Temperature, TopP: 1, Seed: q.Seed},
	}
	switch {
	case q.Base != "":
		r.Prompt = infer.Prompt{Prefix: q.Base, FIM: infer.FIMNever, Whole: true}
	case l.Chat == nil:
		return Reply{Finish: FinishCancel}, errors.New("the model cannot converse, and the function has no text for models that cannot")
	default:
		p, stops, err := l.Chat.Prompt(q.Messages)
		var refused *chat.Error
		if errors.As(err, &refused) && len(q.Messages) > 1 && q.Messages[0].Role == "system" {
			// Some templates have no place for a system message.
			merged := append([]chat.Message{{Role: "user", Content: q.Messages[0].Content + "\n\n" + q.Messages[1].Content}}, q.Messages[2:]...)
			p, stops, err = l.Chat.Prompt(merged)
		}
		if err != nil {
			return Reply{Finish: FinishCancel}, err
		}
		r.Prompt, r.Stop, r.StopIDs = p, append(append([]string{}, q.Stop...), stops...), l.Chat.StopIDs()
		if p.IDs == nil {
			r.Prompt.Whole = true
		}
		// An answer is about as long as what it is about: less room than this is no use.
		if least := min(q.MaxTokens, l.Engine.Context()/4); len(p.IDs)+least > l.Engine.Context() {
			return Reply{Finish: FinishCancel}, &TooLongError{&infer.PromptTooLongError{Tokens: len(p.IDs), NewTokens: least, Context: l.Engine.Context()}}
		}
	}
	res, err := l.Engine.Complete(ctx, r, func(c infer.Chunk) error { return emit(c.Text) })
	reply := Reply{Finish: Finish(res.FinishReason), Usage: Usage{len(res.PromptIDs), len(res.IDs), len(res.PromptIDs) + len(res.IDs)}}
	var tooLong *infer.PromptTooLongError
	if errors.As(err, &tooLong) {
		err = &TooLongError{err}
	}
	return reply, err
}
