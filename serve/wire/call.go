package wire

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"autodev/infer"
)

// Call is one request on its way to an answer. It belongs to one goroutine.
type Call struct {
	W       http.ResponseWriter
	R       *http.Request
	Service Service
	Admin   bool   // Route.Admin of the path and method
	Record  Record // Client is set before Handle
	// Remember keeps what was completed, for events that name it later; nil: nobody does.
	Remember func(*Call, Suggestion)
	// Language and Around say of a completion what only its protocol knows.
	Language string        // as the client calls it
	Around   *infer.Prompt // the text around the cursor, where the engine is asked for something else

	limits  Limits
	began   time.Time
	body    []byte
	bodyErr error
	read    bool
	room    *roomReader // nil: nothing was taken
	fields  *Fields
	stream  *Stream
	id      string // of what is completed
}

// Body returns the whole body, which is read once. Reading it all also lets the server notice a client that goes away later.
func (c *Call) Body() ([]byte, error) {
	if !c.read {
		c.read = true
		c.body, c.bodyErr = c.readBody()
	}
	return c.body, c.bodyErr
}

// Bound lowers the bytes of a body that will be read.
func (c *Call) Bound(bytes int64) { c.limits.MaxBody = min(c.limits.MaxBody, bytes) }

// MaxTokenized is how much of a body of a request for tokens is taken, whose answer is many times as long.
const MaxTokenized = 1 << 20

// AtMost refuses a body of more bytes than that.
func (c *Call) AtMost(bytes int64) error {
	c.Bound(bytes)
	if body, err := c.Body(); err != nil {
		return err
	} else if int64(len(body)) > bytes { // it was read before
		return tooLarge(bytes)
	}
	return nil
}

func tooLarge(limit int64) error {
	return Errorf(http.StatusRequestEntityTooLarge, Invalid, "", "body_too_large", "body: found more than %d bytes, expected at most that", limit)
}

func (c *Call) readBody() ([]byte, error) {
	control := http.NewResponseController(c.W)
	// Not every ResponseWriter has deadlines; the one of a real connection does.
	_ = control.SetReadDeadline(time.Now().Add(c.limits.BodyTimeout))
	var r io.Reader = http.MaxBytesReader(c.W, c.R.Body, c.limits.MaxBody)
	if c.limits.Room != nil {
		c.room = &roomReader{Reader: r, room: c.limits.Room}
		r = c.room
	}
	body, err := io.ReadAll(r)
	if err == nil {
		// A later deadline would end the request's context in the middle of a long completion.
		_ = control.SetReadDeadline(time.Time{})
		return body, nil
	}
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return nil, tooLarge(over.Limit)
	}
	if errors.Is(err, errNoRoom) {
		e := Errorf(http.StatusServiceUnavailable, Overload, "", "busy", "body: too many long ones at the same time")
		e.RetryAfter = time.Second
		return nil, e
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return nil, Errorf(http.StatusRequestTimeout, Invalid, "", "body_timeout", "body: not complete after %v", c.limits.BodyTimeout)
	}
	return nil, Errorf(http.StatusBadRequest, Invalid, "", "body_unreadable", "body: %v", err)
}

// Fields returns the body as a JSON object.
func (c *Call) Fields() (*Fields, error) {
	body, err := c.Body()
	if err != nil {
		return nil, err
	}
	if c.fields == nil {
		if c.fields, err = ParseFields(body); err != nil {
			return nil, err
		}
	}
	return c.fields, nil
}

// Interpret sets what a body says that is no JSON, for Fields and Has.
func (c *Call) Interpret(f *Fields) { c.fields = f }

// Has says whether the body is a JSON object with any of the fields: what a Claims asks.
func (c *Call) Has(names ...string) bool {
	f, err := c.Fields()
	if err != nil {
		return false
	}
	for _, name := range names {
		if _, ok := f.Get(name); ok {
			return true
		}
	}
	return false
}

// End gives back what the call has taken, when it has been answered.
func (c *Call) End() {
	if c.room != nil {
		c.room.give()
	}
}

// Context ends when the client goes away or the server stops.
func (c *Call) Context() context.Context { return c.R.Context() }

// Use is Service.Use, noted in the record.
func (c *Call) Use(name string) (Model, func(), error) {
	m, release, err := c.Service.Use(name)
	if err == nil {
		c.Record.Model, c.Record.Adapter = m.ID, m.Adapter
	}
	return m, release, err
}

// Ask reads a call's JSON with parse and finds the model that the request names, which stays until release is called.
func Ask[R any](c *Call, parse func(*Fields) (R, error), name func(R) string) (req R, m Model, release func(), err error) {
	f, err := c.Fields()
	if err != nil {
		return req, m, nil, err
	}
	if req, err = parse(f); err != nil {
		return req, m, nil, err
	}
	m, release, err = c.Use(name(req))
	return req, m, release, err
}

// Complete has m's engine complete reqs, with what the model and the call say about all of them filled in: order, speculation, healing, reuse, adapter,
// client and session. X-Completion-Id in the answer's header names what is completed, for events. Where a later request of the session ended this one, that is no error: what there is, is the answer, and what there is not,
// FinishCancel.
func (c *Call) Complete(m Model, reqs []infer.Request, emit func(i int, chunk infer.Chunk) error) ([]infer.Result, error) {
	for i := range reqs {
		r := &reqs[i]
		if r.Prompt.Order == infer.OrderAuto {
			r.Prompt.Order = m.Order
		}
		if r.Speculate == infer.SpeculateAuto {
			r.Speculate = m.Speculate
		}
		if fills := r.Prompt.Suffix != "" || r.Prompt.FIM == infer.FIMAlways; fills && r.Prompt.IDs == nil {
			r.Prompt.Heal = r.Prompt.Heal || m.Heal && !c.Has("heal")
			r.Reuse = r.Reuse || m.Reuse && !c.Has("reuse", "cache_prompt")
		}
		r.Adapter, r.Client = m.Adapter, c.Record.Client
		if r.Session == "" {
			r.Session = c.R.Header.Get("X-Session-Id")
		}
	}
	c.CompletionID("cmpl-")
	counted := emit
	if emit != nil {
		counted = func(i int, chunk infer.Chunk) error {
			if c.Record.FirstText == 0 && chunk.Text != "" {
				c.Record.FirstText = time.Since(c.began)
			}
			return emit(i, chunk)
		}
	}
	results, err := m.Engine.Complete(c.Context(), reqs, counted)
	c.Record.Results = append(c.Record.Results, results...)
	if later := (*infer.SupersededError)(nil); errors.As(err, &later) {
		for len(results) < len(reqs) {
			results = append(results, infer.Result{FinishReason: infer.FinishCancel})
		}
		err = nil
	}
	if err != nil {
		c.W.Header().Del(completionHeader)
		return results, c.whyEnded(err)
	}
	c.remember(reqs, results)
	return results, nil
}

// completionHeader of an answer holds the id that events may name it by. Not all protocols have a place for one in their answers.
const completionHeader = "X-Completion-Id"

// CompletionID returns the id of what the call completes, and puts it into the answer's header: prefix and a random number, the first time.
func (c *Call) CompletionID(prefix string) string {
	if c.id == "" {
		c.id = NewID(prefix)
		c.W.Header().Set(completionHeader, c.id)
	}
	return c.id
}

// whyEnded returns what ended the request's context when that, and not a mistake in the request, is why err happened.
func (c *Call) whyEnded(err error) error {
	var own *Error
	if err == nil || errors.As(err, &own) {
		return err
	}
	if cause := context.Cause(c.Context()); cause != nil {
		return cause
	}
	return err
}

// Suggestion is a completion as events name it.
type Suggestion struct {
	ID       string       // as the client knows it
	Language string       // as the client calls it; "" when unknown
	Prompt   infer.Prompt // the text around it; empty where it is no completion of one text: an answer in a conversation, several prompts, token ids
	Texts    []string     // by choice; none without a text around them
}

// remember has what was completed kept for events.
func (c *Call) remember(reqs []infer.Request, results []infer.Result) {
	if c.Remember == nil || len(reqs) == 0 {
		return
	}
	s := Suggestion{ID: c.id, Language: c.Language}
	if oneText(reqs) {
		if s.Prompt = reqs[0].Prompt; c.Around != nil {
			s.Prompt = *c.Around
		}
		for _, r := range results {
			s.Texts = append(s.Texts, r.Text)
		}
	}
	c.Remember(c, s)
}

// oneText says whether all of reqs complete the same text.
func oneText(reqs []infer.Request) bool {
	first := &reqs[0].Prompt
	return !slices.ContainsFunc(reqs, func(r infer.Request) bool {
		return r.Class == infer.Chat || r.Prompt.IDs != nil || r.PromptLogprobs || r.Prompt.Prefix != first.Prefix || r.Prompt.Suffix != first.Suffix
	})
}

// JSON answers with v as one line.
func (c *Call) JSON(v any) error {
	WriteJSON(c.W, http.StatusOK, v)
	return nil
}

// Text answers with a text.
func (c *Call) Text(contentType, text string) error {
	c.W.Header().Set("Content-Type", contentType)
	c.W.WriteHeader(http.StatusOK)
	_, err := io.WriteString(c.W, text)
	return err
}

// ServerTiming puts where the time went into a header that browsers show. It must come before the answer.
func (c *Call) ServerTiming(results []infer.Result) {
	var total infer.Timings
	for _, r := range results {
		total.Queue = max(total.Queue, r.Timings.Queue)
		total.Prompt += r.Timings.Prompt
		total.Decode += r.Timings.Decode
	}
	c.W.Header().Set("Server-Timing", fmt.Sprintf("queue;dur=%.3f, prompt;dur=%.3f, decode;dur=%.3f", Milliseconds(total.Queue), Milliseconds(total.Prompt), Milliseconds(total.Decode)))
}

// Finish answers with err, in the form of p, if there is one and nothing else was answered; a stream ends with it.
func (c *Call) Finish(p *Protocol, err error) {
	if err == nil {
		return
	}
	e := AsError(c.whyEnded(err))
	c.Record.Err = err
	switch {
	case e.Status == StatusClientLeft:
		c.Record.Status = StatusClientLeft
	case c.stream != nil && c.stream.started:
		c.Record.Status = e.Status
		c.stream.fault(p, e)
	case p != nil && p.Refusal != nil:
		contentType, body := p.Refusal(c, e)
		e.retryAfter(c.W)
		c.W.Header().Set("Content-Type", contentType)
		c.W.WriteHeader(e.Status)
		_, _ = io.WriteString(c.W, body)
	default:
		WriteError(c.W, p, e)
	}
}

// NewID returns a prefix with 96 random bits in hexadecimal.
func NewID(prefix string) string {
	var b [12]byte
	rand.Read(b[:]) // never fails
	return prefix + hex.EncodeToString(b[:])
}

// NewSeed returns a random seed, for requests that name none.
func NewSeed() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}
