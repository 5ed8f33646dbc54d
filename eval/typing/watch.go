package typing

import (
	"context"
	"sync"

	"autodev/infer"
)

// Watched is an engine that follows a script.
type Watched struct {
	*infer.Engine

	mu     sync.Mutex
	script map[string][]int32
}

// Watch returns an engine that is another but for the script.
func Watch(e *infer.Engine) *Watched { return &Watched{Engine: e, script: map[string][]int32{}} }

// Expect has requests whose prompt has the prefix answered with ids, in place of the model's choices; nil: no more.
func (w *Watched) Expect(prefix string, ids []int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ids == nil {
		delete(w.script, prefix)
		return
	}
	w.script[prefix] = ids
}

// Complete is infer.Engine's.
func (w *Watched) Complete(ctx context.Context, reqs []infer.Request, emit func(i int, c infer.Chunk) error) ([]infer.Result, error) {
	w.mu.Lock()
	for i := range reqs {
		if ids, ok := w.script[reqs[i].Prompt.Prefix]; ok {
			reqs[i].Replay = ids
		}
	}
	w.mu.Unlock()
	return w.Engine.Complete(ctx, reqs, emit)
}

// Count returns what the engine has done so far.
func (w *Watched) Count(context.Context) (Count, error) {
	s := w.Stats()
	return Count{Prompt: s.PromptTokens, Generated: s.GeneratedTokens, Drafted: s.Drafted - s.Accepted, Reused: s.Reused}, nil
}
