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
)

// suggestions are recent completions, for requests that come while the user types one of them: when the new prefix is the old one and a
// beginning of the completion. They are kept for requests that allow it (Request.Reuse), of the kind whose answers depend on nothing but the
// prompt: greedy, without log-probabilities, IgnoreEOS, and MinTokens, which count from the cursor. It is safe for use by any number of
// goroutines, and forgets the least recently used.
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
	reason FinishReason
	stop   string
	rule   StopRule

	prompt  int // its tokens
	tokens  [sha256.Size]byte
	heal    string  // what it had to begin with
	ids     []int32 // that it was generated as
	stopped bool    // a stop token came behind them
}

func newSuggestions(limit int64) *suggestions {
	return &suggestions{limit: limit, byKey: map[suggestionKey][]*list.Element{}}
}

// suggests says whether the answer to j may come from, or become, a suggestion.
func (j *job) suggests() bool {
	s := &j.Sampling
	return j.Reuse && j.MinTokens == 0 && !j.IgnoreEOS && j.Prompt.IDs == nil && !j.Logprobs && !j.PromptLogprobs && (s.Temperature == 0 || s.TopK == 1)
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

// sumOf tells token ids apart.
func sumOf(ids []int32) [sha256.Size]byte {
	b := make([]byte, 0, 4*len(ids))
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return sha256.Sum256(b)
}

// find returns the latest suggestion that the request types along and that fits, which is told how much of it has been typed.
func (x *suggestions) find(j *job, fits func(s *suggestion, typed int) bool) (found suggestion, typed int, ok bool) {
	key, prefix := keyOf(j), j.Prompt.Prefix
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range slices.Backward(x.byKey[key]) {
		s := e.Value.(*suggestion)
		n := len(prefix) - s.length
		if n >= 0 && strings.HasPrefix(s.text, prefix[s.length:]) && fits(s, n) && sha256.Sum256([]byte(prefix[:s.length])) == s.prefix {
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
	s := &suggestion{
		key: keyOf(j), length: len(j.Prompt.Prefix), prefix: sha256.Sum256([]byte(j.Prompt.Prefix)),
		text: res.Text, reason: res.FinishReason, stop: res.StopText, rule: res.StopRule,
		prompt: len(j.prompt.ids), tokens: sumOf(j.prompt.ids), heal: j.prompt.heal, ids: res.IDs, stopped: res.stopped,
	}
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

func (s *suggestion) bytes() int64 { return int64(len(s.text)+4*len(s.ids)) + suggestionOverhead }

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
