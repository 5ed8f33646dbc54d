package infer

import (
	"slices"
	"strings"

	"autodev/tokenizer"
)

// writer turns generated tokens into chunks: tokens to text, without what Prompt.Heal took from the prompt, up to a stop text, cut to its
// Shape, with the newlines of the prompt.
type writer struct {
	tok     *tokenizer.Tokenizer
	stream  *tokenizer.Stream // nil without a tokenizer
	stop    stopText
	stops   []string // as they were asked for
	j       *job
	shape   *shaper         // nil: nothing is cut, or not yet
	sparing bool            // the last token is one of MinTokens
	spared  int             // bytes of text that those spell
	lead    strings.Builder // what was given to show of that text
	emit    func(Chunk) error
	res     *Result
	text    strings.Builder
	keepAll bool // tokens go into the result
	held    []heldToken
	decoded int      // bytes of text decoded, newlines as the model gives them
	shown   int      // of those, bytes that are in text
	starts  newlines // of the tokens
	texts   newlines // of text
	skip    int      // bytes still to come that stand before the cursor
	left    int      // tokens that may be behind it; 0: does not matter
	over    bool
	raw     []float32
}

// heldToken is a token whose text is not shown yet.
type heldToken struct {
	Token
	begin, end int // of its text in what is decoded
}

func newWriter(tok *tokenizer.Tokenizer, j *job, emit func(Chunk) error, res *Result) *writer {
	w := &writer{tok: tok, stop: stopText{stops: j.Stop}, stops: j.Stop, emit: emit, res: res, keepAll: j.Logprobs, j: j, shape: j.shape}
	if tok == nil {
		return w
	}
	w.stream = tok.NewStream()
	if j.prompt.crlf {
		w.starts.crlf, w.texts.crlf = true, true
		w.stop.stops = make([]string, len(j.Stop))
		for i, s := range j.Stop {
			w.stop.stops[i] = strings.ReplaceAll(s, "\r\n", "\n")
		}
	}
	if j.prompt.heal != "" {
		w.skip, w.left = len(j.prompt.heal), j.prompt.healedNew
	}
	return w
}

// keep remembers the model's own logits, which sampling changes.
func (w *writer) keep(logits []float32) { w.raw = append(w.raw[:0], logits...) }

// early says that the next token is one of MinTokens, which count from the cursor.
func (w *writer) early() bool { return len(w.res.IDs)-w.res.Healed < w.j.MinTokens }

// token takes the next token and emits what became certain by it.
func (w *writer) token(t Token) error {
	w.sparing = w.early()
	w.res.IDs = append(w.res.IDs, t.ID)
	if w.tok == nil {
		w.held = append(w.held, heldToken{Token: t})
		return w.show("", false)
	}
	before := w.skip
	text := w.after(w.stream.Push(t.ID))
	t.Bytes = w.tok.TokenBytes(t.ID)
	if before > 0 {
		n := min(before, len(t.Bytes))
		if t.Bytes = t.Bytes[n:]; len(t.Bytes) == 0 && n > 0 {
			w.res.Healed++
			return nil
		}
	}
	t.Start = w.starts.written
	t.Bytes = w.starts.bytes(t.Bytes)
	w.starts.write(text)
	w.held = append(w.held, heldToken{t, w.decoded, w.decoded + len(text)})
	w.decoded += len(text)
	show := w.pushStop(text)
	if w.left > 0 {
		if w.left--; w.left == 0 {
			w.over = true
			if w.stop.hit == "" {
				show += w.pushStop(w.after(w.stream.Flush()))
			}
			if w.stop.hit == "" {
				show += w.stop.flush()
			}
		}
	}
	return w.show(show, w.over)
}

// pushStop brings text, which became certain by the last token, through the stop texts.
func (w *writer) pushStop(text string) string {
	if w.sparing {
		w.spared += len(text)
		return w.stop.pass(text)
	}
	return w.stop.push(text)
}

// after returns what of the next text stands behind the cursor.
func (w *writer) after(text string) string {
	n := min(w.skip, len(text))
	w.skip -= n
	return text[n:]
}

// done says that the text has ended, whatever tokens would follow.
func (w *writer) done() bool { return w.over }

// end emits what was held back, when nothing has ended the completion before.
func (w *writer) end() error {
	rest := ""
	if w.stream != nil {
		rest = w.pushStop(w.after(w.stream.Flush()))
	}
	if w.stop.hit == "" {
		rest += w.stop.flush()
	}
	return w.show(rest, true)
}

// show adds text to the result and emits it with the tokens it completes. When the text has ended with it, or a rule or a stop text ends
// it, it is the last chunk.
func (w *writer) show(text string, last bool) error {
	last = last || w.stop.hit != ""
	lead, text := w.cutLead(text)
	if w.shape != nil {
		text = w.shape.push(text)
		if last && !w.shape.ended {
			text += w.shape.flush()
		}
		w.res.StopRule = w.shape.rule
		last = last || w.shape.ended
	}
	text = lead + text
	cut := w.res.StopRule != "" || w.stop.hit != ""
	reason := FinishReason("")
	if last {
		w.over = true
		if cut {
			w.res.FinishReason = FinishStop
		}
		if w.res.StopRule == "" {
			w.res.StopText = w.stopText()
		}
		reason = w.res.FinishReason
	}
	w.shown += len(text)
	n := 0
	for n < len(w.held) && (w.held[n].end <= w.shown || last && (!cut || w.held[n].begin < w.shown)) {
		n++
	}
	tokens := make([]Token, n)
	for i := range tokens {
		tokens[i] = w.held[i].Token
	}
	w.held = slices.Delete(w.held, 0, n)
	if w.keepAll {
		w.res.Tokens = append(w.res.Tokens, tokens...)
	}
	text = w.texts.write(text)
	w.text.WriteString(text)
	if w.emit == nil || text == "" && n == 0 && !last {
		return nil
	}
	return w.emit(Chunk{Text: text, Tokens: tokens, FinishReason: reason, Shortened: last && w.res.Shortened})
}

// cutLead returns what of the next text MinTokens spell, and the rest. Where the rest begins, so does the shape.
func (w *writer) cutLead(text string) (lead, rest string) {
	if w.j.MinTokens == 0 || w.tok == nil {
		return "", text
	}
	n := min(w.spared-w.lead.Len(), len(text))
	w.lead.WriteString(text[:n])
	if w.shape == nil && !w.sparing && w.lead.Len() == w.spared {
		p := w.j.Prompt.plain()
		p.Prefix += w.lead.String()
		w.shape = newShaper(w.j.Shape, p)
	}
	return text[:n], text[n:]
}

// stopText returns the stop text that ended the text as it was asked for.
func (w *writer) stopText() string {
	if i := slices.Index(w.stop.stops, w.stop.hit); i >= 0 {
		return w.stops[i]
	}
	return ""
}

// newlines gives a text that arrives in pieces the newlines of the text around it.
type newlines struct {
	crlf    bool // a newline alone becomes "\r\n"
	cr      bool // the text so far ends in "\r"
	written int  // bytes given out
}

// write returns the next piece.
func (n *newlines) write(s string) string {
	if n.crlf && s != "" {
		last := s[len(s)-1] == '\r'
		s = n.string(s)
		n.cr = last
	}
	n.written += len(s)
	return s
}

// bytes returns the next piece in bytes, and does not take it.
func (n *newlines) bytes(b []byte) []byte {
	if !n.crlf {
		return b
	}
	return []byte(n.string(string(b)))
}

// string returns s with its newlines changed.
func (n *newlines) string(s string) string {
	if !n.crlf || !strings.Contains(s, "\n") {
		return s
	}
	var b strings.Builder
	cr := n.cr
	for i := range len(s) {
		if s[i] == '\n' && !cr {
			b.WriteByte('\r')
		}
		cr = s[i] == '\r'
		b.WriteByte(s[i])
	}
	return b.String()
}
