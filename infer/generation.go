package infer

import (
	"bytes"
	"context"
	"slices"
	"time"
)

// generation is a completion under way. plan says which tokens have to be evaluated next, take uses what came of them, and so on
// until it is over; in between others may be evaluated, or nothing. It is for one goroutine at a time.
type generation struct {
	m     *Model
	j     *job
	s     *Session
	res   Result
	w     *writer
	pick  *sampler
	guess *drafter // nil: nothing is guessed
	span  span     // what plan asked for

	// A pass evaluates the last token, or the end of the prompt, and a draft. Its logits are used row by row as long as the draft is what is
	// chosen.
	pass   [headTokens]int32
	chosen [headTokens]int32 // what follows each, where the device says so
	draft  []int32           // the end of pass
	next   int               // index of the token to be chosen next

	prompted bool // the session holds the prompt
	begun    time.Time
	decoding time.Time // when the first token was to be chosen
	last     []float32 // logits after a prompt that was scored
}

func newGeneration(m *Model, j *job, s *Session, emit func(Chunk) error) *generation {
	g := &generation{m: m, j: j, s: s, begun: time.Now()}
	g.res = Result{PromptIDs: j.prompt.ids, Shortened: j.prompt.shortened, FinishReason: FinishLength, Cached: s.Len()}
	g.w, g.pick = newWriter(m.tok, j, emit, &g.res), m.sampler(j)
	if j.Speculate != SpeculateOff && j.prompt.maxNew > 2 {
		g.guess = newDrafter(&m.drafts, j.recent, j.prompt.ids, j.prompt.maxNew, j.Speculate == SpeculateAlways)
	}
	return g
}

// begin reports whether there is nothing to evaluate.
func (g *generation) begin() (over bool, err error) {
	switch {
	case g.j.PromptLogprobs:
		g.res.PromptTokens = g.m.promptTokens(g.j.prompt.ids)
	case g.j.prompt.maxNew == 0 && !g.j.prefill:
		g.settle()
		return true, g.w.end()
	}
	return false, nil
}

// left returns how many tokens of the prompt are to be evaluated.
func (g *generation) left() int {
	if g.prompted {
		return 0
	}
	return len(g.j.prompt.ids) - g.s.Len()
}

// growth is for how many tokens room is made at a time behind the prompt.
const growth = 256

// room returns how long a sequence of n tokens may become before room must be made again.
func (j *job) room(n, context int) int {
	return min(n+growth, len(j.prompt.ids)+j.prompt.maxNew, context)
}

// plan returns what to evaluate: at most chunk tokens of the prompt, in parts as even as can be, or the last token; and guesses behind what is last,
// as long as all are at most rows. others is how many tokens the pass evaluates beside them. After the pass take must be called.
func (g *generation) plan(ctx context.Context, chunk, rows, others int) (*span, error) {
	g.span = span{ctx: ctx, kv: g.s.kv, at: g.s.Len(), adapter: g.s.with.inPass()}
	g.choosePart(chunk, rows, others)
	if g.span.visit == nil && !g.j.Logprobs && !g.w.early() && g.pick.unchanged() {
		g.span.choices, g.span.next = g.chosen[:g.span.wanted()], g.next
		if !g.pick.greedy() {
			g.span.sampling = &g.pick.Sampling
		}
	}
	if n := g.span.at + len(g.span.ids); n > g.s.kv.capacity() {
		if err := g.s.reserve(g.j.room(n, g.m.Context())); err != nil {
			return nil, err
		}
	}
	return &g.span, nil
}

func (g *generation) choosePart(chunk, rows, others int) {
	if n := g.left(); n > 0 {
		g.span.ids = g.j.prompt.ids[g.s.Len():][:firstChunk(n, chunk)]
		g.span.from = len(g.span.ids)
		switch {
		case g.j.PromptLogprobs:
			g.span.from, g.span.visit = 0, g.score
		case len(g.span.ids) == n && g.j.prompt.maxNew > 0:
			g.span.from--
			if n < rows {
				copy(g.pass[:], g.span.ids)
				g.span.ids = g.drafted(n, rows, others)
			}
		}
		return
	}
	g.span.ids = g.drafted(1, rows, others)
}

// drafted returns the first n tokens of pass and guesses behind them, at most rows in all.
func (g *generation) drafted(n, rows, others int) []int32 {
	g.draft = nil
	if g.guess != nil {
		// The pass gives one choice more than it has guesses.
		g.draft = g.guess.draft(min(g.j.prompt.maxNew-g.next-1, rows-n), others+n-1)
		copy(g.pass[n:], g.draft)
	}
	return g.pass[:n+len(g.draft)]
}

// take uses the logits of the span that plan returned, of a pass of that duration and, if alone, of no others. It reports whether the
// completion is over.
func (g *generation) take(d time.Duration, alone bool) (over bool, err error) {
	if g.span.err != nil {
		return true, g.span.err
	}
	g.s.commit(g.span.ids)
	logits := g.span.logits
	if !g.prompted {
		if g.left() > 0 {
			if g.j.PromptTime > 0 && time.Since(g.begun) > g.j.PromptTime {
				return true, g.w.end()
			}
			return false, nil
		}
		g.settle()
		if g.last != nil {
			logits = g.last
		}
		if g.j.prompt.maxNew == 0 {
			return true, g.w.end()
		}
	}
	g.res.Drafted += len(g.draft)
	if g.guess != nil && alone && len(g.span.ids) == 1+len(g.draft) {
		g.m.drafts.timed(len(g.span.ids), d)
	}
	return g.choose(logits)
}

// settle notes that the session holds the prompt.
func (g *generation) settle() {
	g.prompted, g.decoding = true, time.Now()
	g.res.Timings.Prompt = g.decoding.Sub(g.begun)
}

// choose chooses tokens from the logits of the last pass, as far as they go, or takes the device's choices where there are none.
func (g *generation) choose(rows []float32) (over bool, err error) {
	j, row := g.j, 0
	// What follows the last right guess is forgotten.
	defer func() {
		g.s.Truncate(g.s.Len() - (len(g.draft) - row))
		g.draft = nil
	}()
	for {
		logits := g.row(rows, row)
		t := Token{scored: j.Logprobs}
		var z float64
		if j.Logprobs {
			z = logSumExp(logits)
			t.Top = topProbs(logits, z, j.Top)
			g.w.keep(logits)
		}
		early := g.w.early()
		if logits != nil {
			t.ID = g.pick.next(logits, g.next, early)
		} else {
			t.ID = g.span.choices[row]
		}
		if j.Replay != nil {
			t.ID = j.Replay[g.next]
		} else if !early && slices.Contains(j.stops, t.ID) {
			return g.stop()
		}
		if j.Logprobs {
			t.LogProb = float64(g.w.raw[t.ID]) - z
		}
		if over, err := g.add(t); over || err != nil {
			return true, err
		}
		if row == len(g.draft) || g.draft[row] != t.ID {
			break
		}
		row++
		g.res.Accepted++
	}
	if g.guess != nil {
		if len(g.draft) > 0 {
			g.guess.judged(len(g.draft), row)
		}
		for _, id := range g.res.IDs[g.next-1-row:] {
			g.guess.push(id)
		}
	}
	g.pass[0] = g.res.IDs[g.next-1]
	return false, nil
}

// add takes the token that was chosen, and reports whether the completion is over.
func (g *generation) add(t Token) (over bool, err error) {
	if err := g.w.token(t); err != nil || g.w.done() {
		return true, err
	}
	if g.next++; g.next == g.j.prompt.maxNew || g.late(t.ID) {
		return true, g.w.end()
	}
	return false, nil
}

// stop ends the completion at a stop token.
func (g *generation) stop() (over bool, err error) {
	g.res.FinishReason, g.res.stopped = FinishStop, true
	return true, g.w.end()
}

// row returns a row of a pass's logits, nil where there are none.
func (g *generation) row(rows []float32, i int) []float32 {
	if rows == nil {
		return nil
	}
	return rows[i*g.m.rows:][:g.m.vocab]
}

// late says that the time for generating is over and id ends a line.
func (g *generation) late(id int32) bool {
	return g.j.DecodeTime > 0 && time.Since(g.decoding) > g.j.DecodeTime && g.m.tok != nil && bytes.IndexByte(g.m.tok.TokenBytes(id), '\n') >= 0
}

// end returns the result, when the completion is over or err has ended it.
func (g *generation) end(err error) Result {
	if g.prompted {
		g.res.Timings.Decode = time.Since(g.decoding)
	}
	if err != nil {
		g.res.FinishReason = FinishCancel
	}
	g.res.Text = g.w.text.String()
	return g.res
}

// promptTokens returns the tokens of a prompt that is to be scored.
func (m *Model) promptTokens(ids []int32) []Token {
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
	return tokens
}

// score sets the log-probabilities of the tokens that follow those of the span from the first on.
func (g *generation) score(first, n int, logits []float32) error {
	for i := range n {
		row, next := logits[i*g.m.rows:][:g.m.vocab], g.span.at+first+i+1
		if next == len(g.j.prompt.ids) {
			g.last = slices.Clone(row)
			break
		}
		z := logSumExp(row)
		t := &g.res.PromptTokens[next]
		t.scored, t.LogProb, t.Top = true, float64(row[t.ID])-z, topProbs(row, z, g.j.Top)
	}
	return nil
}
