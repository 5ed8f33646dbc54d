package infer

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// suggestions are recent completions, for requests that come while the user types one of them: when the new prefix is the old one and a
// beginning of the completion, the answer is the rest of it. Whoever types along so costs nothing.
//
// What is found for the very same prefix is what the model would say again, bit for bit. Behind typed text it is what it said before: the
// text may now be other tokens than those it had generated, and the model could go on otherwise. So it is for requests that allow it
// (Request.Reuse), of the kind whose answers depend on nothing but the prompt: greedy, without log-probabilities, and without MinTokens, which
// count from the cursor.
//
// A completion that MaxTokens had cut short serves as long as it has half as many tokens as the request asks for. It is safe for use by any
// number of goroutines, and forgets the least recently used.
type suggestions struct {
	mu    sync.Mutex
	limit int64
	bytes int64
	byKey map[suggestionKey][]*list.Element // the latest last
	order list.List                         // of *suggestion, the least recently used first
}

const (
	suggestionBytes = 4 << 20 // in all
	suggestionCount = 2048
	// suggestionOverhead is about what one takes beside its text.
	suggestionOverhead = 400
)

// suggestionKey is all that a completion depends on but the prefix and the number of tokens.
type suggestionKey [sha256.Size]byte

// suggestion is a completion that was shown.
type suggestion struct {
	key    suggestionKey
	length int // of the prefix
	prefix [sha256.Size]byte
	text   string
	tokens int // that it was generated as
	reason FinishReason
	stop   string
	rule   StopRule
}

func newSuggestions(limit int64) *suggestions {
	return &suggestions{limit: limit, byKey: map[suggestionKey][]*list.Element{}}
}

// suggests says whether the answer to j may come from, or become, a suggestion.
func (j *job) suggests() bool {
	s := &j.Sampling
	return j.Reuse && j.MinTokens == 0 && j.Prompt.IDs == nil && !j.Logprobs && !j.PromptLogprobs && (s.Temperature == 0 || s.TopK == 1)
}

// keyOf returns the key of j.
func keyOf(j *job) (key suggestionKey) {
	h := sha256.New()
	p, s := &j.Prompt, &j.Sampling
	write := func(text string) { writeString(h, text) }
	write(p.Suffix)
	write(p.Filename)
	write(p.Repository)
	for _, f := range p.Files {
		write(f.Name)
		write(f.Text)
	}
	// What a request has followed in place of the model's choices is for others that do so.
	write(fmt.Sprint(j.with.kind(), len(p.Files), p.Order, p.FIM, p.Heal, p.Whole, len(j.Stop), j.StopIDs, j.Shape, j.Replay != nil))
	for _, stop := range j.Stop {
		write(stop)
	}
	write(fmt.Sprint(s.PresencePenalty, s.FrequencyPenalty, s.RepetitionPenalty, s.RepetitionWindow))
	for _, id := range slices.Sorted(maps.Keys(s.Bias)) {
		write(fmt.Sprint(id, s.Bias[id]))
	}
	h.Sum(key[:0])
	return key
}

// writeString adds a string so that no two sequences of strings are the same bytes.
func writeString(h hash.Hash, s string) {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
	h.Write(n[:])
	h.Write([]byte(s))
}

// find returns the suggestion that the request types along, and how much of it has been typed.
func (x *suggestions) find(j *job) (found suggestion, typed int, ok bool) {
	key, prefix := keyOf(j), j.Prompt.Prefix
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range slices.Backward(x.byKey[key]) {
		s := e.Value.(*suggestion)
		n := len(prefix) - s.length
		if n < 0 || n > 0 && n >= len(s.text) || !strings.HasPrefix(s.text, prefix[s.length:]) || strings.TrimSpace(s.text[n:]) == "" && n > 0 {
			continue
		}
		if sha256.Sum256([]byte(prefix[:s.length])) == s.prefix {
			x.order.MoveToBack(e)
			return *s, n, true
		}
	}
	return suggestion{}, 0, false
}

// add remembers the answer to j.
func (x *suggestions) add(j *job, res Result) {
	if strings.TrimSpace(res.Text) == "" || res.FinishReason == FinishCancel || res.Reused {
		return
	}
	s := &suggestion{keyOf(j), len(j.Prompt.Prefix), sha256.Sum256([]byte(j.Prompt.Prefix)), res.Text, len(res.IDs), res.FinishReason, res.StopText, res.StopRule}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.byKey[s.key] {
		if old := e.Value.(*suggestion); old.length == s.length && old.prefix == s.prefix {
			x.remove(e)
			break
		}
	}
	x.byKey[s.key] = append(x.byKey[s.key], x.order.PushBack(s))
	x.bytes += s.bytes()
	for x.bytes > x.limit || x.order.Len() > suggestionCount {
		x.remove(x.order.Front())
	}
}

func (s *suggestion) bytes() int64 { return int64(len(s.text)) + suggestionOverhead }

// remove forgets a suggestion. x.mu is held.
func (x *suggestions) remove(e *list.Element) {
	s := x.order.Remove(e).(*suggestion)
	x.bytes -= s.bytes()
	all := x.byKey[s.key]
	if all = slices.DeleteFunc(all, func(o *list.Element) bool { return o == e }); len(all) > 0 {
		x.byKey[s.key] = all
	} else {
		delete(x.byKey, s.key)
	}
}

// answer returns what a suggestion says to j, ok false if none says enough.
func (x *suggestions) answer(m *Model, j *job) (res Result, ok bool) {
	if !j.suggests() || j.MaxTokens == 0 {
		return Result{}, false
	}
	s, typed, ok := x.find(j)
	if !ok {
		return Result{}, false
	}
	res = Result{
		Text: s.text[typed:], FinishReason: s.reason, StopText: s.stop, StopRule: s.rule,
		PromptIDs: j.prompt.ids, Cached: len(j.prompt.ids), Shortened: j.prompt.shortened, Reused: true,
	}
	ids := m.tok.Encode(res.Text)
	tokens := len(ids)
	if typed == 0 {
		tokens = s.tokens // a model may write a text in more or fewer tokens than the tokenizer
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

// reuse answers a call from what was suggested before, if it may and can be. It counts as one of its session.
func (e *Engine) reuse(c *call, emit func(i int, ch Chunk) error) (results []Result, ok bool, err error) {
	if len(c.tasks) != 1 {
		return nil, false, nil
	}
	res, ok := e.shown.answer(e.m, c.tasks[0].j)
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
