package infer

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Request asks for one completion.
type Request struct {
	Prompt    Prompt
	MaxTokens int // at most; less when the context ends before
	// MinTokens is how many tokens nothing but MaxTokens, the context and the times end the completion before, as in vLLM: tokens that would are
	// not chosen, a stop text counts where it is complete behind them, and Shape looks at what follows as if the cursor stood there.
	MinTokens int
	Sampling  Sampling
	Stop      []string // texts that end the completion and are not part of it
	StopIDs   []int32  // tokens that do, beside the model's own
	// IgnoreEOS keeps the model's own tokens of an end from being chosen, but for those among StopIDs.
	IgnoreEOS bool
	// Logprobs asks for the log-probability of every token, and Top for those of the most probable alternatives.
	Logprobs bool
	Top      int
	// PromptLogprobs asks for the log-probabilities of the prompt's tokens too.
	PromptLogprobs bool
	// Speculate changes the time that a completion takes and nothing else.
	Speculate Speculate
	// Class, Client and Session say when it is this request's turn, and change nothing else.
	Class   Class
	Client  string // whom fairness counts it for
	Session string // an editor's: the latest request of a client's session ends those before it; "" ends none
	// Adapter names a LoRA adapter that the engine has loaded; "" is the model as it is.
	Adapter string
	// Shape cuts the completion to what fits where it is inserted.
	Shape Shape
	// PromptTime and DecodeTime bound how long the prompt may be evaluated and tokens generated; 0 is no bound. The first cuts nothing but the
	// answer, the second ends the completion after a whole line.
	PromptTime, DecodeTime time.Duration
	// Reuse allows a greedy request to be answered from an earlier suggestion that the user types along, without the model, as
	// EngineOptions.Reuse says.
	Reuse bool
	// Replay are token ids to follow in place of the model's choices: a measurement of what a completion of just these tokens
	// would cost, stop tokens and stop texts included. It bounds MaxTokens. Where Prompt.Heal takes text from the prompt, the tokens are those of that
	// text and theirs.
	Replay []int32
}

// FinishReason says why a completion ended.
type FinishReason string

const (
	FinishStop   FinishReason = "stop"   // an end-of-text token, a stop token or a stop text
	FinishLength FinishReason = "length" // MaxTokens, the end of the context, PromptTime or DecodeTime
	FinishCancel FinishReason = "cancel" // the context of the call ended, or emit failed
)

// Token is one token of a completion or a prompt.
type Token struct {
	ID      int32
	Bytes   []byte      // what it decodes to; need not be whole characters
	Start   int         // bytes of the decoded text that were certain before it: where it begins, but for broken characters
	LogProb float64     // natural logarithm of its probability under the model, before temperature and truncation; 0 unless asked for
	Top     []TokenProb // most probable first
	scored  bool
}

// Scored says whether LogProb was computed. The first token of a prompt has none.
func (t Token) Scored() bool { return t.scored }

// Chunk is a piece of a completion as it becomes certain: Text is whole characters and no part of a stop text. Tokens are
// those whose text is complete with it. The last chunk, whose text may be empty, says why the completion ended.
type Chunk struct {
	Text         string
	Tokens       []Token
	FinishReason FinishReason // "" but for the last
	Shortened    bool         // Result.Shortened, in the last
}

// Result is a completion.
type Result struct {
	Text         string
	IDs          []int32 // generated, without a stop token; with the tokens whose text a stop text cut off
	Tokens       []Token // those of Text, when Request.Logprobs
	FinishReason FinishReason
	StopText     string   // the stop text that ended it
	StopRule     StopRule // the rule of Request.Shape that did
	Healed       int      // of IDs: those that only spell again what Prompt.Heal took from the prompt
	Reused       bool     // answered from a suggestion shown before, without the model: IDs is empty
	PromptIDs    []int32
	PromptTokens []Token // when Request.PromptLogprobs
	stopped      bool    // a stop token has ended it
	Shortened    bool    // the prompt was cut to fit the context
	Cached       int     // tokens of the prompt that a call before had evaluated
	Drafted      int     // tokens that were evaluated as guesses
	Accepted     int     // guesses that were right
	Timings      Timings
}

// Timings are wall times.
type Timings struct {
	Queue  time.Duration // waiting for the engine
	Prompt time.Duration // evaluating the prompt
	Decode time.Duration // generating
}

// PromptRate returns tokens per second of n prompt tokens.
func (t Timings) PromptRate(n int) float64 { return rate(n, t.Prompt) }

// DecodeRate returns tokens per second of n generated tokens.
func (t Timings) DecodeRate(n int) float64 { return rate(n, t.Decode) }

func rate(n int, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// maxTop bounds Request.Top; the alternatives are sorted for every token.
const maxTop = 20

// job is a request that has been checked and whose prompt has been fitted into the context.
type job struct {
	Request
	prompt  budgeted
	shape   *shaper // of the one completion; nil: nothing is cut, or MinTokens come first
	stops   []int32
	recent  [][]int32 // texts that the completion may repeat
	with    *adapter  // nil: none
	prefill bool      // evaluate the prompt even when no token is asked for
}

// prepare checks everything about a request that can be checked without running the model.
func (m *Model) prepare(r Request) (*job, error) {
	if err := r.Sampling.Check(); err != nil {
		return nil, err
	}
	if r.Top < 0 || r.Top > maxTop {
		return nil, &OptionError{"logprobs", fmt.Sprintf("found %d, expected 0 to %d", r.Top, maxTop)}
	}
	if r.MinTokens < 0 || r.MinTokens > max(0, r.MaxTokens) {
		return nil, &OptionError{"min_tokens", fmt.Sprintf("found %d, expected 0 to max_tokens, %d", r.MinTokens, max(0, r.MaxTokens))}
	}
	for id := range r.Sampling.Bias {
		if id < 0 || int(id) >= m.vocab {
			return nil, &OptionError{"logit_bias", fmt.Sprintf("found token %d, expected 0 to %d", id, m.vocab-1)}
		}
	}
	for _, id := range r.StopIDs {
		if id < 0 || int(id) >= m.vocab {
			return nil, &OptionError{"stop_token_ids", fmt.Sprintf("found token %d, expected 0 to %d", id, m.vocab-1)}
		}
	}
	for _, s := range r.Stop {
		if s == "" {
			return nil, &OptionError{"stop", "found an empty text, expected at least one character"}
		}
	}
	if len(r.Stop) > 0 && m.tok == nil {
		return nil, &OptionError{"stop", "the model has no tokenizer"}
	}
	for i, id := range r.Replay {
		if id < 0 || int(id) >= m.vocab {
			return nil, &OptionError{"replay", fmt.Sprintf("token %d: found id %d, expected 0 to %d", i, id, m.vocab-1)}
		}
	}
	if r.Replay != nil {
		r.MaxTokens = min(r.MaxTokens, len(r.Replay))
	}
	with, err := m.adapter(r.Adapter)
	if err != nil {
		return nil, err
	}
	p, err := r.Prompt.budget(m.tok, m.vocab, m.Context(), r.MaxTokens)
	if err != nil {
		return nil, err
	}
	if r.Prompt.Heal && !r.PromptLogprobs {
		p = m.heal(p)
		if p.heal != "" && r.Replay != nil {
			r.Replay = m.tok.Encode(p.heal + string(m.tok.DecodeBytes(r.Replay)))
			p.maxNew = min(len(r.Replay), m.Context()-len(p.ids))
			p.healedNew = p.maxNew
		}
	}
	j := &job{Request: r, with: with, prompt: p, stops: append(slices.Clone(m.stops), r.StopIDs...)}
	if m.tok != nil && r.MinTokens == 0 {
		j.shape = newShaper(r.Shape, r.Prompt.plain())
	}
	return j, nil
}

// Generate completes the prompt of r. emit, which may be nil, gets the completion piece by piece; its texts joined are
// Result.Text. When ctx ends or emit fails, Generate stops within one kernel and returns what there is with the error. It may
// be called from any number of goroutines, which then share the processor.
func (m *Model) Generate(ctx context.Context, r Request, emit func(Chunk) error) (Result, error) {
	j, err := m.prepare(r)
	if err != nil {
		return Result{}, err
	}
	s := m.newSession(j.with)
	defer s.Close()
	return m.run(ctx, j, s, emit)
}

// run completes the prompt of j with s, which may hold a beginning of it, but not all. Afterwards s holds the prompt and the
// completion as far as they were evaluated.
func (m *Model) run(ctx context.Context, j *job, s *Session, emit func(Chunk) error) (Result, error) {
	g := newGeneration(m, j, s, emit)
	over, err := g.begin()
	if err == nil {
		err = s.reserve(min(len(j.prompt.ids)+j.prompt.maxNew, m.Context()))
	}
	for !over && err == nil {
		var sp *span
		if sp, err = g.plan(ctx, m.chunk, m.pass, 0); err != nil {
			break
		}
		before := time.Now()
		if err = s.kv.run(sp); err == nil {
			over, err = g.take(time.Since(before), true)
		}
	}
	return g.end(err), err
}

func topProbs(logits []float32, z float64, n int) []TokenProb {
	if n == 0 {
		return nil
	}
	top := make([]TokenProb, 0, n)
	for _, id := range largest(nil, logits, n) {
		top = append(top, TokenProb{id, float64(logits[id]) - z})
	}
	return top
}
