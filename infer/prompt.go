package infer

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"autodev/tokenizer"
)

// Order is the order of a fill-in-the-middle prompt (Bavarian et al. 2022).
type Order uint8

const (
	// OrderAuto is SPM for models that were trained with it, as far as their tokens tell, else PSM.
	OrderAuto Order = iota
	// PSM is <prefix>P<suffix>S<middle>.
	PSM
	// SPM is <prefix><suffix>S<middle>P: the model goes on with the prefix, so that typing only appends to the prompt.
	SPM
)

// FIM says whether a prompt gets the model's fill-in-the-middle tokens.
type FIM uint8

const (
	// FIMAuto uses them when there is a suffix.
	FIMAuto FIM = iota
	// FIMAlways uses them for an empty suffix too.
	FIMAlways
	// FIMNever completes the prefix alone and refuses a suffix.
	FIMNever
)

// Prompt is what a completion continues: text before and after the cursor, or ready token ids. Text is never searched for
// control tokens; the template is put around it here.
type Prompt struct {
	Prefix, Suffix string
	IDs            []int32 // instead of text: run as they are
	Order          Order
	FIM            FIM
	// Filename is the path of the file that is completed, and Files are others that the completion may need, the most relevant first. They are
	// put before the text in the model's own format where it has tokens for that, and as comments where it has not, as far as there is room.
	Filename string
	Files    []File
	// Repository is the name of the repository they belong to, for models that have seen it; may be empty.
	Repository string
	// Heal completes the word under the cursor as if it were not split into tokens there.
	Heal bool
	// Whole refuses a prompt that does not fit instead of shortening it (the prefix from the left, the suffix from the
	// right). Ids are never shortened.
	Whole bool
}

// File is text from beside the cursor's: a file or a part of one.
type File struct {
	Name string // a path as the user knows it; may be empty
	Text string
}

// PromptTooLongError says that a prompt that may not be shortened leaves no room in the context.
type PromptTooLongError struct{ Tokens, NewTokens, Context int }

func (e *PromptTooLongError) Error() string {
	return fmt.Sprintf("prompt: found %d tokens, expected at most %d: the model's context is %d and at least %d is left for the completion",
		e.Tokens, e.Context-e.NewTokens, e.Context, e.NewTokens)
}

// budgeted is a prompt that fits.
type budgeted struct {
	ids       []int32
	maxNew    int    // new tokens there is room for, at most those asked for
	shortened bool   // text was left out
	crlf      bool   // the newlines of the text are "\r\n", but those given to the model are "\n"
	cursor    int    // the prefix's tokens are the last ones before that index of ids
	prefix    int    // how many they are
	heal      string // the end of the prefix that was left out, for the completion to begin with
	healedNew int    // new tokens behind that, at most; maxNew counts those that spell it as well
}

// plain returns p with "\n" for newlines, if all of them are "\r\n".
func (p Prompt) plain() Prompt {
	if p.crlf() {
		p.Prefix, p.Suffix = strings.ReplaceAll(p.Prefix, "\r\n", "\n"), strings.ReplaceAll(p.Suffix, "\r\n", "\n")
	}
	return p
}

// crlf says whether all newlines are "\r\n". One with the cursor in its middle is not.
func (p Prompt) crlf() bool {
	n := strings.Count(p.Prefix, "\n") + strings.Count(p.Suffix, "\n")
	return n > 0 && n == strings.Count(p.Prefix, "\r\n")+strings.Count(p.Suffix, "\r\n")
}

// budget turns p into ids that leave room for completion tokens in a context of the given size. When the whole prompt leaves
// less room than maxNew, at most half of the context is kept free for the completion.
func (p Prompt) budget(tok *tokenizer.Tokenizer, vocab, context, maxNew int) (budgeted, error) {
	if maxNew < 0 {
		return budgeted{}, &OptionError{"max_tokens", fmt.Sprintf("found %d, expected 0 or more", maxNew)}
	}
	// The last token generated is never fed back, so a completion of n tokens needs n−1 positions after the prompt; the
	// budget still counts n, as every other server does.
	if p.IDs != nil {
		return p.budgetIDs(vocab, context, maxNew)
	}
	if tok == nil {
		return budgeted{}, fmt.Errorf("prompt: found text, expected token ids: the model has no tokenizer")
	}
	crlf := p.crlf()
	p = p.plain()
	fim, ok := tok.FIM()
	use := p.FIM == FIMAlways || p.FIM == FIMAuto && p.Suffix != ""
	switch {
	case use && !ok:
		return budgeted{}, &OptionError{"suffix", "the model cannot fill in: its tokenizer has no fill-in-the-middle tokens"}
	case !use && p.Suffix != "":
		return budgeted{}, &OptionError{"suffix", "found a suffix, expected none: fill-in-the-middle is switched off"}
	}
	overhead := 0
	if use {
		overhead = 3
	}
	if overhead >= context {
		return budgeted{}, &PromptTooLongError{overhead, 1, context}
	}
	prefix := newClip(tok, p.Prefix, context, false)
	suffix := newClip(tok, p.Suffix, context, true)
	format := formatOf(tok, languageOf(p.Filename))
	frame := p.frame(tok, format, use)
	if frame.len() > context/16 || overhead+frame.len()+len(prefix.ids)+len(suffix.ids)+maxNew > context {
		frame = framing{}
	}
	overhead += frame.len()
	out := budgeted{maxNew: min(maxNew, context-overhead), crlf: crlf}
	whole := overhead + len(prefix.ids) + len(suffix.ids)
	if p.Whole && (prefix.cut || suffix.cut || whole+min(maxNew, 1) > context) {
		n := whole
		if prefix.cut || suffix.cut {
			n = overhead + len(tok.Encode(p.Prefix)) + len(tok.Encode(p.Suffix))
		}
		return budgeted{}, &PromptTooLongError{n, min(maxNew, 1), context}
	}
	if whole+out.maxNew > context {
		out.maxNew = min(out.maxNew, max(context/2, context-whole))
		if p.Whole {
			out.maxNew = min(out.maxNew, context-whole)
		}
	}
	room := context - overhead - out.maxNew
	if len(prefix.ids)+len(suffix.ids) > room {
		// A quarter for the suffix; what one side does not need goes to the other, in steps: the suffix must not lose a token
		// with every one that is typed before it, or nothing after it could be found in the cache.
		step := max(1, room/8)
		s := min(len(suffix.ids), max(room/4, (room-len(prefix.ids))/step*step))
		suffix.fit(s)
		prefix.fit(room - len(suffix.ids))
	}
	out.shortened, out.prefix = prefix.cut || suffix.cut, len(prefix.ids)
	if !out.shortened {
		// What is left goes to the other files, in steps as well.
		step := max(1, context/8)
		left := context - overhead - out.maxNew - len(prefix.ids) - len(suffix.ids)
		frame.files = format.encodeFiles(tok, p.Files, min(context/2, left/step*step))
	}
	front, lead := join(frame.front, frame.files, frame.path), frame.lead
	if format.lang != nil {
		front, lead = nil, join(frame.files, frame.lead)
	}
	switch {
	case !use && frame.len() == 0 && len(prefix.ids) == 0:
		// A model needs something to go on from: the end of the text before.
		start, ok := tok.EOS()
		if !ok {
			return budgeted{}, &OptionError{"prompt", "found an empty text, expected at least one character: the tokenizer has no end-of-text token to start from"}
		}
		out.ids, out.maxNew = []int32{start}, min(out.maxNew, context-1)
	case !use:
		out.ids = join(front, lead, prefix.ids)
		out.cursor = len(out.ids)
	case p.Order == SPM || p.Order == OrderAuto && trainedSPM(tok, fim):
		out.ids = join(front, []int32{fim.Prefix, fim.Suffix}, suffix.ids, []int32{fim.Middle}, lead, prefix.ids)
		out.cursor = len(out.ids)
	default:
		out.ids = join(front, []int32{fim.Prefix}, lead, prefix.ids, []int32{fim.Suffix}, suffix.ids, []int32{fim.Middle})
		out.cursor = len(front) + 1 + len(lead) + len(prefix.ids)
	}
	return out, nil
}

// trainedSPM says whether models with these control tokens have seen SPM: the families of SantaCoder and StarCoder, whose
// training draws the order by lot, and the models made from them or like them, such as this project's.
func trainedSPM(tok *tokenizer.Tokenizer, fim tokenizer.FIM) bool {
	for _, name := range []string{"<fim-prefix>", "<fim_prefix>"} {
		if id, ok := tok.ID(name); ok && id == fim.Prefix {
			return true
		}
	}
	return false
}

func (p Prompt) budgetIDs(vocab, context, maxNew int) (budgeted, error) {
	if p.Prefix != "" || p.Suffix != "" {
		return budgeted{}, &OptionError{"prompt", "found token ids and text, expected one of them"}
	}
	if len(p.IDs) == 0 {
		return budgeted{}, &OptionError{"prompt", "found no token ids, expected at least one"}
	}
	for i, id := range p.IDs {
		if id < 0 || int(id) >= vocab {
			return budgeted{}, &OptionError{"prompt", fmt.Sprintf("token %d: found id %d, expected 0 to %d", i, id, vocab-1)}
		}
	}
	if len(p.IDs)+min(maxNew, 1) > context {
		return budgeted{}, &PromptTooLongError{len(p.IDs), min(maxNew, 1), context}
	}
	return budgeted{ids: p.IDs, maxNew: min(maxNew, context-len(p.IDs))}, nil
}

func join(parts ...[]int32) []int32 {
	var all []int32
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// clip is one side of a prompt, cut to a number of tokens at the end away from the cursor.
type clip struct {
	tok  *tokenizer.Tokenizer
	text string
	ids  []int32
	head bool // keep the beginning (a suffix) instead of the end (a prefix)
	cut  bool // text was left out
}

// newClip encodes as much of text as can matter when at most limit tokens are kept: usually all, but a huge text is not
// encoded whole only to throw nearly all of it away.
func newClip(tok *tokenizer.Tokenizer, text string, limit int, head bool) clip {
	c := clip{tok: tok, head: head}
	for n := 8 * limit; ; n *= 2 {
		c.text = text
		if n < len(text) {
			c.text = c.keep(text, len(text)-n)
		}
		c.ids = tok.Encode(c.text)
		if len(c.ids) > limit || len(c.text) == len(text) {
			c.cut = len(c.text) < len(text)
			return c
		}
	}
}

// fit leaves out text until at most n tokens are left. What remains is the encoding of a text that starts (ends) at a line
// boundary where one is near, else between two characters.
func (c *clip) fit(n int) {
	for len(c.ids) > n {
		c.cut = true
		if n <= 0 {
			c.text, c.ids = "", nil
			return
		}
		if c.head {
			c.text = c.keep(c.text, max(len(c.tok.DecodeBytes(c.ids[n:])), 1))
		} else {
			drop := max(len(c.tok.DecodeBytes(c.ids[:len(c.ids)-n])), 1)
			c.text = c.text[anchor(c.text, min(drop, len(c.text))):]
		}
		c.ids = c.tok.Encode(c.text)
	}
}

// anchor returns where to cut text at or soon after the given byte so that the same place is found again after something was
// appended to text, or lost at its beginning: of the line starts in the next sixth of the text the one whose line has the
// smallest hash, or where no line starts, of the characters.
func anchor(text string, from int) int {
	end := from + (len(text)-from)/6
	best, lowest := -1, uint64(0)
	for _, lines := range []bool{true, false} {
		for i := from; i <= end && i < len(text); i++ {
			if lines && i > 0 && text[i-1] != '\n' || !utf8.RuneStart(text[i]) {
				continue
			}
			if h := fingerprint(text[i:min(i+48, len(text))]); best < 0 || h < lowest {
				best, lowest = i, h
			}
		}
		if best >= 0 {
			return best
		}
	}
	// In the middle of a character: at its end.
	for i := from; i < len(text) && i < from+utf8.UTFMax; i++ {
		if utf8.RuneStart(text[i]) {
			return i
		}
	}
	if len(text)-from < utf8.UTFMax {
		return len(text)
	}
	return from
}

// fingerprint is FNV-1a, stirred so that its order says nothing of the text.
func fingerprint(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	h ^= h >> 31
	return h * 0x9e3779b97f4a7c15
}

// keep returns text without at least drop bytes at the end away from the cursor, going on to a line boundary when that costs
// at most a quarter of what would be kept.
func (c *clip) keep(text string, drop int) string {
	if drop >= len(text) {
		return ""
	}
	near := (len(text) - drop) / 4
	if c.head {
		kept := text[:len(text)-drop]
		if i := strings.LastIndexByte(kept, '\n'); i >= 0 && len(kept)-(i+1) <= near {
			return kept[:i+1]
		}
		for i := len(kept); i >= 0 && len(kept)-i < utf8.UTFMax; i-- {
			if utf8.RuneStart(text[i]) {
				return kept[:i]
			}
		}
		return kept
	}
	if text[drop-1] == '\n' {
		return text[drop:]
	}
	kept := text[drop:]
	if i := strings.IndexByte(kept, '\n'); i >= 0 && i+1 <= near {
		return kept[i+1:]
	}
	for i := 0; i <= len(kept) && i < utf8.UTFMax; i++ {
		if i == len(kept) || utf8.RuneStart(kept[i]) {
			return kept[i:]
		}
	}
	return kept
}
