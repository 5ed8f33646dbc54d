package infer

import (
	"slices"
	"strings"

	"autodev/tokenizer"
)

// writer turns generated tokens into chunks.
type writer struct {
	tok     *tokenizer.Tokenizer
	stream  *tokenizer.Stream // nil without a tokenizer
	stop    stopText
	emit    func(Chunk) error
	res     *Result
	text    strings.Builder
	keepAll bool    // tokens go into the result
	held    []Token // whose text is not shown yet
	ends    []int   // where it ends
	decoded int     // bytes of text decoded
	raw     []float32
}

func newWriter(tok *tokenizer.Tokenizer, j *job, emit func(Chunk) error, res *Result) *writer {
	w := &writer{tok: tok, stop: stopText{stops: j.Stop}, emit: emit, res: res, keepAll: j.Logprobs}
	if tok != nil {
		w.stream = tok.NewStream()
	}
	return w
}

// keep remembers the model's own logits, which sampling changes.
func (w *writer) keep(logits []float32) { w.raw = append(w.raw[:0], logits...) }

// token takes the next token and emits what became certain by it.
func (w *writer) token(t Token) error {
	w.res.IDs = append(w.res.IDs, t.ID)
	t.Start = w.decoded
	var text string
	if w.tok != nil {
		t.Bytes = w.tok.TokenBytes(t.ID)
		text = w.stream.Push(t.ID)
	}
	w.decoded += len(text)
	w.held, w.ends = append(w.held, t), append(w.ends, w.decoded)
	return w.show(w.stop.push(text), "")
}

// done says that the text has ended, whatever tokens would follow.
func (w *writer) done() bool { return w.stop.hit != "" }

// end emits what was held back, when no stop text has ended the completion.
func (w *writer) end() error {
	rest := ""
	if w.stream != nil {
		rest = w.stop.push(w.stream.Flush())
	}
	if w.stop.hit == "" {
		rest += w.stop.flush()
	}
	return w.show(rest, w.res.FinishReason)
}

// show adds text to the result and emits it with the tokens it completes. A reason, or a stop text hit, makes it the last
// chunk.
func (w *writer) show(text string, reason FinishReason) error {
	stopped := w.stop.hit != ""
	if stopped {
		reason, w.res.StopText = FinishStop, w.stop.hit
		w.res.FinishReason = reason
	}
	w.text.WriteString(text)
	shown := w.text.Len()
	n := 0
	for n < len(w.held) && (w.ends[n] <= shown || reason != "" && (!stopped || w.held[n].Start < shown)) {
		n++
	}
	tokens := w.held[:n]
	if w.keepAll {
		w.res.Tokens = append(w.res.Tokens, tokens...)
	}
	var err error
	if w.emit != nil && (text != "" || n > 0 || reason != "") {
		err = w.emit(Chunk{Text: text, Tokens: slices.Clone(tokens), FinishReason: reason, Shortened: reason != "" && w.res.Shortened})
	}
	w.held, w.ends = slices.Delete(w.held, 0, n), slices.Delete(w.ends, 0, n)
	return err
}
