package infer

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Reuse says when a request that allows it (Request.Reuse) is answered from an earlier suggestion, without the model.
type Reuse string

const (
	// ReuseExact, the default: where the answer is what the model would say now, bit for bit. The tokens of the prompt must be those of the earlier prompt and a
	// beginning of those that were generated. Behind typed text these may be other tokens than the model had chosen; then the model is asked.
	ReuseExact Reuse = "exact"
	// ReuseShown: with the rest of the text that was shown, whatever its tokens. What is shown does not change while it is typed, even where the
	// model would now say something else.
	ReuseShown Reuse = "shown"
	// ReuseOff: never.
	ReuseOff Reuse = "off"
)

// ParseReuse reads the name of a mode; "" is ReuseExact.
func ParseReuse(s string) (Reuse, error) {
	return parseName("reuse", Reuse(s), ReuseExact, []Reuse{ReuseExact, ReuseShown, ReuseOff})
}

// answer returns what a suggestion says to j, ok false if none says enough.
func (x *suggestions) answer(m *Model, j *job, how Reuse) (res Result, ok bool) {
	switch {
	case !j.suggests() || j.MaxTokens == 0 || how == ReuseOff:
		return Result{}, false
	case how == ReuseShown:
		res, ok = x.shown(m, j)
	default:
		res, ok = x.exact(m, j)
	}
	res.IDs, res.PromptIDs, res.Shortened, res.Healed = nil, j.prompt.ids, j.prompt.shortened, 0
	res.Cached, res.Reused = len(j.prompt.ids), true
	return res, ok
}

// exact returns what the model would answer to j, if a suggestion tells.
func (x *suggestions) exact(m *Model, j *job) (res Result, ok bool) {
	s, _, ok := x.find(j, func(s *suggestion, _ int) bool { return s.tells(m, j) })
	if !ok {
		return Result{}, false
	}
	return m.told(j, s.ids[len(j.prompt.ids)-s.prompt:], s.stopped)
}

// tells reports whether the model's choices for j are those of s behind j's prompt. A prompt that is s's prompt and its first tokens gives the logits
// that were there then. Of these the same tokens are chosen as long as all that may be chosen now could be chosen then: with healing, j's text
// has to begin as s's had to, and s's goes on as j's has to. Penalties for what a completion has generated see another completion.
func (s *suggestion) tells(m *Model, j *job) bool {
	p, n := &j.prompt, len(j.prompt.ids)-s.prompt
	if n < 0 || n > len(s.ids) || !slices.Equal(p.ids[s.prompt:], s.ids[:n]) || sumOf(p.ids[:s.prompt]) != s.tokens {
		return false
	}
	if n > 0 && (j.Sampling.PresencePenalty != 0 || j.Sampling.FrequencyPenalty != 0) {
		return false
	}
	then, now := s.heal, p.heal // still to be spelled
	for _, id := range s.ids[:n] {
		then = then[min(len(then), len(m.tok.TokenBytes(id))):]
	}
	if !strings.HasPrefix(now, then) {
		return false
	}
	for _, id := range s.ids[n:] {
		if now == "" {
			break
		}
		b := string(m.tok.TokenBytes(id))
		if b == "" || m.tok.IsSpecial(id) || !strings.HasPrefix(b, now) && !strings.HasPrefix(now, b) {
			return false
		}
		now = now[min(len(now), len(b)):]
	}
	return now == "" && (j.Replay == nil || slices.Equal(s.ids[n:], j.Replay))
}

// told returns the completion of j in which the model chooses ids and then, if stopped, a stop token; ok false if there would be more.
func (m *Model) told(j *job, ids []int32, stopped bool) (res Result, ok bool) {
	again := *j // a shape is for one completion
	again.shape = newShaper(j.Shape, j.Prompt.plain())
	g := &generation{m: m, j: &again, res: Result{FinishReason: FinishLength}}
	g.w = newWriter(m.tok, &again, nil, &g.res)
	over := false
	var err error
	for i := 0; i < len(ids) && !over && err == nil; i++ {
		over, err = g.add(Token{ID: ids[i]})
	}
	if !over && stopped {
		over, err = g.stop()
	}
	return g.end(nil), over && err == nil
}

// shown returns the rest of the suggestion that j types along. One that MaxTokens had cut short serves as long as it has half as many tokens as j
// asks for.
func (x *suggestions) shown(m *Model, j *job) (res Result, ok bool) {
	s, typed, ok := x.find(j, (*suggestion).shows)
	if !ok {
		return Result{}, false
	}
	res = Result{Text: s.text[typed:], FinishReason: s.reason, StopText: s.stop, StopRule: s.rule}
	ids := m.tok.Encode(res.Text)
	tokens := len(ids)
	if typed == 0 {
		tokens = len(s.ids) // a model may write a text in more or fewer tokens than the tokenizer
	}
	switch asked := min(j.MaxTokens, j.prompt.maxNew); {
	case s.reason == FinishLength && 2*tokens < asked:
		return Result{}, false
	case tokens > j.MaxTokens && len(ids) <= j.MaxTokens:
		return Result{}, false
	case tokens > j.MaxTokens:
		n := len(m.tok.DecodeBytes(ids[:j.MaxTokens]))
		for n > 0 && !utf8.RuneStart(res.Text[n]) {
			n--
		}
		res.Text, res.FinishReason, res.StopText, res.StopRule = res.Text[:n], FinishLength, "", ""
	}
	return res, true
}

// shows reports whether there is something to show of s when so many bytes have been typed.
func (s *suggestion) shows(typed int) bool {
	return typed == 0 || strings.TrimSpace(s.text[typed:]) != ""
}

// reuse answers a call from what was suggested before, if it may and can be. It counts as one of its session.
func (e *Engine) reuse(c *call, emit func(i int, ch Chunk) error) (results []Result, ok bool, err error) {
	if len(c.tasks) != 1 {
		return nil, false, nil
	}
	res, ok := e.shown.answer(e.m, c.tasks[0].j, e.o.Reuse)
	if !ok {
		return nil, false, nil
	}
	e.mu.Lock()
	switch {
	case e.closed:
		err = errEngineClosed
	case c.session != "":
		e.supersede(c)
	}
	e.mu.Unlock()
	if err != nil {
		return nil, true, err
	}
	if emit != nil {
		if failed := emit(0, Chunk{Text: res.Text, FinishReason: res.FinishReason, Shortened: res.Shortened}); failed != nil {
			res.FinishReason, err = FinishCancel, fmt.Errorf("%w: %w", errEmit, failed)
		}
	}
	e.count(func(s *Stats) {
		s.Reused++
		s.ended(err, false)
	})
	return []Result{res}, true, err
}
