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
	Sampling  Sampling
	Stop      []string // texts that end the completion and are not part of it
	StopIDs   []int32  // tokens that do, beside the model's own
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
	// Reuse allows a greedy request to be answered with the rest of an earlier suggestion that the user types along, without the model.
	// Text typed into a suggestion may be other tokens than it was generated as: then the model could now say something else.
	Reuse bool
	// Replay are token ids to follow in place of the model's choices: a measurement of what a completion of just these tokens
	// would cost, stop tokens and stop texts included. It bounds MaxTokens.
	Replay []int32
}

// FinishReason says why a completion ended.
type FinishReason string

const (
	FinishStop   FinishReason = "stop"   // an end-of-text token, a stop token or a stop text
	FinishLength FinishReason = "length" // MaxTokens, or the end of the context
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
	prompt   budgeted
	stops    []int32
	recent   [][]int32 // texts that the completion may repeat
	prefill  bool      // evaluate the prompt even when no token is asked for
	prompted func()    // called when the session holds the prompt; may be nil
}

// prepare checks everything about a request that can be checked without running the model.
func (m *Model) prepare(r Request) (*job, error) {
	if err := r.Sampling.Check(); err != nil {
		return nil, err
	}
	if r.Top < 0 || r.Top > maxTop {
		return nil, &OptionError{"logprobs", fmt.Sprintf("found %d, expected 0 to %d", r.Top, maxTop)}
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
	p, err := r.Prompt.budget(m.tok, m.vocab, m.Context(), r.MaxTokens)
	if err != nil {
		return nil, err
	}
	return &job{Request: r, prompt: p, stops: append(slices.Clone(m.stops), r.StopIDs...)}, nil
}

// Generate completes the prompt of r. emit, which may be nil, gets the completion piece by piece; its texts joined are
// Result.Text. When ctx ends or emit fails, Generate stops within one kernel and returns what there is with the error. It may
// be called from any number of goroutines, which then share the processor.
func (m *Model) Generate(ctx context.Context, r Request, emit func(Chunk) error) (Result, error) {
	j, err := m.prepare(r)
	if err != nil {
		return Result{}, err
	}
	s := m.NewSession()
	defer s.Close()
	return m.run(ctx, j, s, emit)
}

// run completes the prompt of j with s, which may hold a beginning of it, but not all. Afterwards s holds the prompt and the
// completion as far as they were evaluated.
func (m *Model) run(ctx context.Context, j *job, s *Session, emit func(Chunk) error) (res Result, err error) {
	res = Result{PromptIDs: j.prompt.ids, Shortened: j.prompt.shortened, FinishReason: FinishLength, Cached: s.Len()}
	defer func() {
		if err != nil {
			res.FinishReason = FinishCancel
		}
	}()
	began := time.Now()
	if err := s.reserve(min(len(j.prompt.ids)+j.prompt.maxNew, m.Context())); err != nil {
		return res, err
	}
	var logits []float32
	switch {
	case j.PromptLogprobs:
		if res.PromptTokens, logits, err = m.scorePrompt(ctx, s, j); err != nil {
			return res, err
		}
	case j.prompt.maxNew > 0 || j.prefill:
		if logits, err = s.Append(ctx, j.prompt.ids[s.Len():]); err != nil {
			return res, err
		}
	}
	if j.prompted != nil {
		j.prompted()
	}
	decode := time.Now()
	res.Timings.Prompt = decode.Sub(began)
	defer func() { res.Timings.Decode = time.Since(decode) }()
	err = m.decode(ctx, j, s, logits, emit, &res)
	return res, err
}

// decode generates tokens into res, from the logits after the prompt on.
func (m *Model) decode(ctx context.Context, j *job, s *Session, logits []float32, emit func(Chunk) error, res *Result) error {
	w := newWriter(m.tok, j, emit, res)
	defer func() { res.Text = w.text.String() }()
	pick := m.sampler(j)
	var guess *drafter
	if j.Speculate != SpeculateOff && j.prompt.maxNew > 2 {
		guess = newDrafter(&m.drafts, j.recent, j.prompt.ids, j.prompt.maxNew, j.Speculate == SpeculateAlways)
	}
	// A pass evaluates the last token and a draft. Its logits are used row by row as long as the draft is what is chosen.
	var pass [headTokens]int32
	var draft []int32
	rows, row := logits, 0 // [1+len(draft), Model.rows]; the one that decides next
	forget := func() { s.Truncate(s.Len() - (len(draft) - row)) }
	defer forget()
	for i := range j.prompt.maxNew {
		logits := rows[row*m.rows:][:m.vocab]
		t := Token{scored: j.Logprobs}
		var z float64
		if j.Logprobs {
			z = logSumExp(logits)
			t.Top = topProbs(logits, z, j.Top)
			w.keep(logits)
		}
		t.ID = pick.next(logits, i)
		if j.Replay != nil {
			t.ID = j.Replay[i]
		} else if slices.Contains(j.stops, t.ID) {
			res.FinishReason = FinishStop
			break
		}
		if j.Logprobs {
			t.LogProb = float64(w.raw[t.ID]) - z
		}
		if err := w.token(t); err != nil || w.done() {
			return err
		}
		if i+1 == j.prompt.maxNew {
			break
		}
		if row < len(draft) && draft[row] == t.ID {
			row++
			res.Accepted++
			continue
		}
		forget()
		pass[0] = t.ID
		if guess != nil {
			if len(draft) > 0 {
				guess.judged(len(draft), row)
			}
			for _, id := range res.IDs[i-row:] {
				guess.push(id)
			}
			// The pass gives one choice more than it has guesses.
			draft = guess.draft(min(j.prompt.maxNew-i-2, m.pass-1))
			copy(pass[1:], draft)
		}
		before := time.Now()
		n := 1 + len(draft)
		row = 0
		var err error
		if rows, err = s.appendRows(ctx, pass[:n], 0); err != nil {
			draft = nil
			return err
		}
		res.Drafted += len(draft)
		if guess != nil {
			m.drafts.timed(n, time.Since(before))
		}
	}
	return w.end()
}

// scorePrompt evaluates the prompt and returns its tokens with their log-probabilities, and the logits after it.
func (m *Model) scorePrompt(ctx context.Context, s *Session, j *job) ([]Token, []float32, error) {
	ids := j.prompt.ids
	tokens := make([]Token, len(ids))
	for i, id := range ids {
		tokens[i].ID = id
	}
	if m.tok != nil {
		stream, start := m.tok.NewStream(), 0
		for i := range tokens {
			t := &tokens[i]
			t.Bytes, t.Start = m.tok.TokenBytes(t.ID), start
			start += len(stream.Push(t.ID))
		}
	}
	last := make([]float32, m.vocab)
	err := s.AppendAll(ctx, ids, 0, func(i int, logits []float32) error {
		if i+1 == len(ids) {
			copy(last, logits)
			return nil
		}
		z := logSumExp(logits)
		t := &tokens[i+1]
		t.scored, t.LogProb, t.Top = true, float64(logits[t.ID])-z, topProbs(logits, z, j.Top)
		return nil
	})
	return tokens, last, err
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
