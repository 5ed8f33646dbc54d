package fim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"unicode/utf8"

	"autodev/data"
	"autodev/internal/rng"
)

// Tokenizer encodes text. Package tokenizer's Tokenizer is one. Encode must be safe for concurrent use, and must not give
// special tokens for any text.
type Tokenizer interface {
	Encode(text string) []int32
}

// Sentinels are the ids of the special tokens.
type Sentinels struct {
	Prefix, Middle, Suffix int32
	Pad                    int32 // fills what is left of a window
	EOT                    int32 // ends a document
}

// Level says where a document may be cut.
type Level string

// Scope says what is cut.
type Scope string

const (
	Char  Level = "char"  // between characters (Unicode code points); the parts are tokenised separately
	Token Level = "token" // between tokens

	Context  Scope = "context"  // pieces of at most a window, so that every FIM example fits whole
	Document Scope = "document" // the whole document, which a window may chop
)

// Options says how to transform. The zero value of each string field means its default; the rates have no hidden default, so that
// 0 can be said. Default returns the recommended values.
type Options struct {
	Rate    float64 // probability that a piece becomes a FIM example
	SPMRate float64 // probability that a FIM example is SPM, else PSM
	Level   Level   // default Char
	Scope   Scope   // default Context
}

// Default is half of the pieces, half of those SPM, cut between characters.
func Default() Options { return Options{Rate: .5, SPMRate: .5, Level: Char, Scope: Context} }

// Kind says what an Example is.
type Kind uint8

const (
	Plain Kind = iota // text in its order
	PSM
	SPM
)

// Example is a token sequence that is learnt from its second token on.
type Example struct {
	IDs  []int32
	Kind Kind
	// Middle is the index in IDs of the first token of the middle part; 0 for Plain.
	Middle int
	// Whole asks that the example be kept within one window.
	Whole bool
}

// Transformer turns documents into examples. It is safe for concurrent use.
type Transformer struct {
	opts      Options
	tok       Tokenizer
	sentinels Sentinels
	seed      uint64
	capacity  int // tokens of an example, EOT included
}

// New returns a Transformer whose examples have at most capacity tokens where they must fit whole (Scope Context). The
// tokenizer may be nil if all documents come with ids.
func New(opts Options, tok Tokenizer, s Sentinels, seed uint64, capacity int) (*Transformer, error) {
	if opts.Level == "" {
		opts.Level = Char
	}
	if opts.Scope == "" {
		opts.Scope = Context
	}
	switch {
	case !(opts.Rate >= 0 && opts.Rate <= 1):
		return nil, fmt.Errorf("fim rate %v: expected a probability from 0 to 1", opts.Rate)
	case !(opts.SPMRate >= 0 && opts.SPMRate <= 1):
		return nil, fmt.Errorf("fim spm_rate %v: expected a probability from 0 to 1", opts.SPMRate)
	case opts.Level != Char && opts.Level != Token:
		return nil, fmt.Errorf("fim level %q: expected char or token", opts.Level)
	case opts.Scope != Context && opts.Scope != Document:
		return nil, fmt.Errorf("fim scope %q: expected context or document", opts.Scope)
	case s.EOT < 0:
		return nil, fmt.Errorf("end-of-text token %d: the tokenizer has none", s.EOT)
	case opts.Rate > 0 && (s.Prefix < 0 || s.Middle < 0 || s.Suffix < 0):
		return nil, fmt.Errorf("fim rate %v, and the tokenizer lacks a FIM token (prefix %d, middle %d, suffix %d)", opts.Rate, s.Prefix, s.Middle, s.Suffix)
	case capacity < minCapacity:
		return nil, fmt.Errorf("fim: windows of %d tokens cannot hold a FIM example, expected at least %d", capacity, minCapacity)
	}
	return &Transformer{opts: opts, tok: tok, sentinels: s, seed: seed, capacity: capacity}, nil
}

// extra is the three sentinels and EOT of a FIM example; minCapacity leaves room for any character in byte tokens.
const (
	extra       = 4
	minCapacity = extra + 4
)

// Examples returns the examples of one document, in the order of its text. The same (seed, epoch, document) always gives
// the same. EOT ends the last plain example and every FIM example. An empty document has no example.
func (t *Transformer) Examples(doc *data.Document, epoch uint64, document uint64) ([]Example, error) {
	r := rng.New(t.seed, "fim", epoch, document)
	if doc.IDs != nil {
		if t.opts.Rate > 0 && t.opts.Level == Char {
			return nil, fmt.Errorf("%s: the document has ready input_ids, which cannot be cut between characters: use fim level token, or fim rate 0", doc.Origin)
		}
		return t.tokens(doc.IDs, r), nil
	}
	if doc.Content == "" {
		return nil, nil
	}
	if t.tok == nil {
		return nil, errors.New("fim: no tokenizer for a document of text")
	}
	if t.opts.Rate == 0 || t.opts.Level == Token {
		return t.tokens(t.tok.Encode(doc.Content), r), nil
	}
	ex, err := t.chars(doc.Content, r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doc.Origin, err)
	}
	return ex, nil
}

// decide draws whether the next piece becomes a FIM example.
func (t *Transformer) decide(r *rand.Rand) bool { return t.opts.Rate > 0 && r.Float64() < t.opts.Rate }

// cuts draws two places among 0 … n in order, each pair of draws equally likely.
func cuts(r *rand.Rand, n int) (int, int) {
	a, b := r.IntN(n+1), r.IntN(n+1)
	return min(a, b), max(a, b)
}

// tokens cuts between tokens.
func (t *Transformer) tokens(ids []int32, r *rand.Rand) []Example {
	piece := len(ids)
	if t.opts.Scope == Context {
		piece = t.capacity - extra
	}
	var out []Example
	plain := 0 // start of the text that waits to become a plain example
	flush := func(end int) {
		if plain < end {
			out = append(out, Example{IDs: append([]int32(nil), ids[plain:end]...)})
		}
	}
	for at := 0; at < len(ids); {
		end := min(at+piece, len(ids))
		if t.decide(r) {
			flush(at)
			a, b := cuts(r, end-at)
			x := ids[at:end]
			out = append(out, t.arrange(x[:a], x[a:b], x[b:], r.Float64() < t.opts.SPMRate))
			plain = end
		}
		at = end
	}
	flush(len(ids))
	return t.finish(out)
}

// chars cuts between characters.
func (t *Transformer) chars(text string, r *rand.Rand) ([]Example, error) {
	var out []Example
	plain := 0
	flush := func(end int) {
		if plain < end {
			out = append(out, Example{IDs: t.tok.Encode(text[plain:end])})
		}
	}
	limit := t.capacity - extra
	for at := 0; at < len(text); {
		end := len(text)
		if t.opts.Scope == Context {
			end = at + t.fit(text[at:], limit)
		}
		if !t.decide(r) {
			at = end
			continue
		}
		flush(at)
		for {
			// The parts are tokenised separately and can take more tokens than the piece did. Then the piece is made shorter,
			// and what is cut off is left to the next.
			piece := text[at:end]
			a, b := runeCuts(r, piece)
			ex := t.arrange(t.tok.Encode(piece[:a]), t.tok.Encode(piece[a:b]), t.tok.Encode(piece[b:]), r.Float64() < t.opts.SPMRate)
			over := len(ex.IDs) + 1 - t.capacity
			if over <= 0 || t.opts.Scope == Document {
				out = append(out, ex)
				break
			}
			shorter := runeStart(piece, len(piece)-max(1, len(piece)*over/len(ex.IDs)))
			if shorter == 0 {
				return nil, fmt.Errorf("a single character takes more than %d tokens", limit)
			}
			end = at + shorter
		}
		at, plain = end, end
	}
	flush(len(text))
	return t.finish(out), nil
}

// fit returns the length in bytes of a beginning of text that takes at most limit tokens, nearly as many where the text
// is longer, and ends between characters.
func (t *Transformer) fit(text string, limit int) int {
	n := runeStart(text, min(len(text), 5*limit)) // code takes 3 to 4 bytes a token
	for grow := true; ; {
		tokens := len(t.tok.Encode(text[:n]))
		if tokens <= limit {
			if !grow || n == len(text) || tokens > limit/8*7 {
				return n
			}
			n = runeStart(text, min(len(text), n+n/4+utf8.UTFMax))
			continue
		}
		grow = false
		// Aim a little below the limit, so that mostly one more step suffices.
		shorter := runeStart(text, min(n-1, n*limit/tokens*31/32))
		if shorter == 0 {
			// One character must stay, or there is no progress.
			_, size := utf8.DecodeRuneInString(text)
			return size
		}
		n = shorter
	}
}

// runeStart returns the greatest place at or before n that does not lie inside a character.
func runeStart(s string, n int) int {
	if n >= len(s) {
		return len(s)
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return n
}

// runeCuts draws two places between the characters of s, as byte offsets.
func runeCuts(r *rand.Rand, s string) (int, int) {
	a, b := cuts(r, utf8.RuneCountInString(s))
	return runeOffset(s, a), runeOffset(s, b)
}

func runeOffset(s string, runes int) int {
	for i := range s {
		if runes == 0 {
			return i
		}
		runes--
	}
	return len(s)
}

// arrange builds a FIM example, without EOT.
func (t *Transformer) arrange(prefix, middle, suffix []int32, spm bool) Example {
	s := t.sentinels
	ids := make([]int32, 0, len(prefix)+len(middle)+len(suffix)+extra)
	ex := Example{Kind: PSM, Whole: t.opts.Scope == Context}
	if spm {
		ex.Kind = SPM
		ids = append(append(append(ids, s.Prefix, s.Suffix), suffix...), s.Middle)
		ids = append(ids, prefix...)
	} else {
		ids = append(append(ids, s.Prefix), prefix...)
		ids = append(append(append(ids, s.Suffix), suffix...), s.Middle)
	}
	ex.Middle = len(ids)
	ex.IDs = append(ids, middle...)
	return ex
}

// finish puts EOT behind every FIM example and behind the last one.
func (t *Transformer) finish(out []Example) []Example {
	for i := range out {
		if out[i].Kind != Plain || i == len(out)-1 {
			out[i].IDs = append(out[i].IDs, t.sentinels.EOT)
		}
	}
	return out
}
