package tgi

import (
	"cmp"
	"slices"

	"autodev/infer"
	"autodev/serve/wire"
)

// generated is an answer.
type generated struct {
	Text    string   `json:"generated_text"`
	Details *details `json:"details,omitempty"`
}

type details struct {
	FinishReason string     `json:"finish_reason"`
	Tokens       int        `json:"generated_tokens"`
	Seed         *uint64    `json:"seed"`
	Prefill      []prefill  `json:"prefill"`
	All          []token    `json:"tokens"`
	BestOf       []sequence `json:"best_of_sequences,omitempty"`
	Top          [][]token  `json:"top_tokens,omitempty"`
}

// sequence is one that was not the best.
type sequence struct {
	Text         string    `json:"generated_text"`
	FinishReason string    `json:"finish_reason"`
	Tokens       int       `json:"generated_tokens"`
	Seed         *uint64   `json:"seed"`
	Prefill      []prefill `json:"prefill"`
	All          []token   `json:"tokens"`
	Top          [][]token `json:"top_tokens,omitempty"`
}

// prefill is a token of the prompt.
type prefill struct {
	ID      int32    `json:"id"`
	Text    string   `json:"text"`
	LogProb *float64 `json:"logprob"`
}

type token struct {
	ID      int32   `json:"id"`
	Text    string  `json:"text"`
	LogProb float64 `json:"logprob"`
	Special bool    `json:"special"`
}

// event is a part of a stream.
type event struct {
	Index   int            `json:"index"`
	Token   token          `json:"token"`
	Top     []token        `json:"top_tokens,omitempty"`
	Text    *string        `json:"generated_text"` // of the whole answer, in the last
	Details *streamDetails `json:"details"`
}

type streamDetails struct {
	FinishReason string  `json:"finish_reason"`
	Tokens       int     `json:"generated_tokens"`
	Seed         *uint64 `json:"seed"`
	InputLength  int     `json:"input_length"`
}

// answer makes the objects of one request's answer: it is a wire.Form.
type answer struct {
	engine wire.Engine
	req    *generateRequest
	array  bool

	// Of a stream.
	index int
	shown int    // bytes in events
	text  string // not in events yet
	last  *event // held back: it has to say how the answer ended
}

// Whole implements wire.Form.
func (a *answer) Whole(results []infer.Result) any {
	best := 0
	for i, r := range results {
		if len(results) > 1 && mean(r) > mean(results[best]) {
			best = i
		}
	}
	g := generated{Text: a.whole(results[best])}
	if a.req.details || a.req.prefill {
		s := a.sequence(results[best])
		g.Details = &details{FinishReason: s.FinishReason, Tokens: s.Tokens, Seed: s.Seed, Prefill: s.Prefill, All: s.All, Top: s.Top}
		for i, r := range results {
			if i != best {
				g.Details.BestOf = append(g.Details.BestOf, a.sequence(r))
			}
		}
	}
	if a.array {
		return []generated{g}
	}
	return g
}

// whole returns a result's text as the request wants it.
func (a *answer) whole(r infer.Result) string {
	if a.req.fullText {
		return a.req.inputs + r.Text
	}
	return r.Text
}

// mean returns the mean log-probability of a result's tokens, by which the best of several is chosen.
func mean(r infer.Result) float64 {
	sum := 0.0
	for _, t := range r.Tokens {
		sum += t.LogProb
	}
	return sum / float64(max(1, len(r.Tokens)))
}

func (a *answer) sequence(r infer.Result) sequence {
	s := sequence{Text: a.whole(r), FinishReason: finishReason(r), Tokens: len(r.IDs), Seed: a.req.seed, Prefill: []prefill{}, All: []token{}}
	for _, t := range r.PromptTokens {
		p := prefill{ID: t.ID, Text: string(t.Bytes)}
		if t.Scored() {
			p.LogProb = &t.LogProb
		}
		s.Prefill = append(s.Prefill, p)
	}
	for i, text := range pieces(r.Text, 0, r.Tokens) {
		t := r.Tokens[i]
		s.All = append(s.All, token{ID: t.ID, Text: text, LogProb: t.LogProb})
		if a.req.top > 0 {
			s.Top = append(s.Top, a.top(t))
		}
	}
	return s
}

// top returns the alternatives to a token.
func (a *answer) top(t infer.Token) (all []token) {
	for _, p := range t.Top {
		all = append(all, token{ID: p.ID, Text: string(a.engine.TokenText(p.ID)), LogProb: p.LogProb})
	}
	return all
}

// finishReason is in TGI's words. A completion that was ended before its time is as long as it is.
func finishReason(r infer.Result) string {
	switch {
	case r.FinishReason != infer.FinishStop:
		return "length"
	case r.StopText != "" || r.StopRule != "":
		return "stop_sequence"
	}
	return "eos_token"
}

// pieces cuts a text into what each of its tokens adds to it; base is the number of bytes before it. Joined they are the text. The bytes of a
// character that several tokens share are the last one's.
func pieces(text string, base int, tokens []infer.Token) []string {
	all := make([]string, len(tokens))
	at := 0
	for i := range tokens {
		end := len(text)
		if i+1 < len(tokens) {
			end = min(max(tokens[i+1].Start-base, at), len(text))
		}
		all[i], at = text[at:end], end
	}
	return all
}

// Events implements wire.Form. There is one for each token; text whose token is not certain yet waits for it.
func (a *answer) Events(_ int, c infer.Chunk) (events []any) {
	a.text += c.Text
	for i, text := range pieces(a.text, a.shown, c.Tokens) {
		if a.last != nil {
			events = append(events, *a.last)
		}
		t := c.Tokens[i]
		a.index++
		a.last = &event{Index: a.index, Token: token{ID: t.ID, Text: text, LogProb: t.LogProb}}
		if a.req.top > 0 {
			a.last.Top = a.top(t)
		}
	}
	if len(c.Tokens) > 0 {
		a.shown, a.text = a.shown+len(a.text), ""
		if c.FinishReason == "" {
			events, a.last = append(events, *a.last), nil
		}
	}
	return events
}

// End implements wire.Form: the last event has the whole text. Where no token is left for it, it is a special one, which clients do not show,
// unless there is text that no token has brought.
func (a *answer) End(results []infer.Result) (events []any) {
	r := results[0]
	if a.last != nil && a.text != "" {
		events, a.last = append(events, *a.last), nil
	}
	if a.last == nil {
		a.index++
		a.last = &event{Index: a.index, Token: token{Text: a.text, Special: a.text == ""}}
	}
	text := a.whole(r)
	a.last.Text = &text
	if a.req.details {
		a.last.Details = &streamDetails{finishReason(r), len(r.IDs), a.req.seed, len(r.PromptIDs)}
	}
	return append(events, *a.last)
}

// characters returns the offsets, in characters, of the tokens of a text that lie end to end in it; false where they do not.
func characters(text string, ids []int32, e wire.Engine) (tokens []simpleToken, ok bool) {
	starts := make([]int, 0, len(text)) // of characters
	for i := range text {
		starts = append(starts, i)
	}
	if len(starts) == 0 {
		return nil, len(ids) == 0
	}
	at := 0
	for _, id := range ids {
		end := at + len(e.TokenText(id))
		if end > len(text) {
			return nil, false
		}
		// A token may begin and end inside of characters: it has those that it touches.
		first, found := slices.BinarySearch(starts, at)
		if !found {
			first--
		}
		last, _ := slices.BinarySearchFunc(starts, end, cmp.Compare[int])
		tokens = append(tokens, simpleToken{ID: id, Start: first, Stop: last})
		from, to := starts[min(first, len(starts)-1)], len(text)
		if last < len(starts) {
			to = starts[last]
		}
		tokens[len(tokens)-1].Text = text[from:to]
		at = end
	}
	return tokens, at == len(text)
}
