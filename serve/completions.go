package serve

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"autodev/infer"
)

// completions answers POST /v1/completions.
func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	body, err := s.readBody(w, r)
	if err != nil {
		fail(w, r, err)
		return
	}
	req, err := parseCompletion(body)
	if err != nil {
		fail(w, r, err)
		return
	}
	var random [20]byte
	rand.Read(random[:]) // never fails
	if !req.seeded {
		req.sampling.Seed = binary.LittleEndian.Uint64(random[12:])
	}
	a := &answer{
		s: s, w: w, req: req,
		head: completion{ID: "cmpl-" + hex.EncodeToString(random[:12]), Object: "text_completion", Created: time.Now().Unix(), Model: s.o.Model},
	}
	reqs := req.requests()
	for i := range reqs {
		reqs[i].Prompt.Order, reqs[i].Speculate = s.o.Order, s.o.Speculate
	}
	a.echoes = make([]string, len(reqs))
	if req.echo {
		for i := range reqs {
			if a.echoes[i] = reqs[i].Prompt.Prefix; reqs[i].Prompt.IDs != nil {
				a.echoes[i] = s.engine.Decode(reqs[i].Prompt.IDs)
			}
		}
	}
	emit := a.event
	if !req.stream {
		emit = nil
	}
	results, err := s.engine.Complete(r.Context(), reqs, emit)
	note(r, results)
	switch {
	case err != nil && a.started:
		a.abort(r, err)
	case err != nil:
		fail(w, r, err)
	case req.stream:
		a.end(results)
	default:
		a.whole(results)
	}
}

// fail answers with an error in place of a completion.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	e := asAPIError(whyEnded(r, err))
	logged(r).Err = err
	if e.status == statusClientLeft {
		logged(r).status = statusClientLeft
		return
	}
	e.write(w)
}

// whyEnded returns what ended the request's context when that, and not a mistake in the request, is why err happened.
func whyEnded(r *http.Request, err error) error {
	var api *apiError
	if cause := context.Cause(r.Context()); cause != nil && !errors.As(err, &api) {
		return cause
	}
	return err
}

// note puts what the engine did into the request's log record.
func note(r *http.Request, results []infer.Result) {
	l := logged(r)
	for i, res := range results {
		l.attrs = append(l.attrs, slog.Group(fmt.Sprintf("completion%d", i),
			"prompt_tokens", len(res.PromptIDs), "cached", res.Cached, "tokens", len(res.IDs), "drafted", res.Drafted, "accepted", res.Accepted, "finish", string(res.FinishReason), "shortened", res.Shortened,
			"queue", res.Timings.Queue, "prompt", res.Timings.Prompt, "decode", res.Timings.Decode))
	}
}

// readBody reads the whole body, which also lets the server notice a client that goes away later.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	// Not every ResponseWriter has deadlines; the one of a real connection does.
	_ = control.SetReadDeadline(time.Now().Add(s.o.BodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.o.MaxBody))
	if err == nil {
		// A later deadline would end the request's context in the middle of a long completion.
		_ = control.SetReadDeadline(time.Time{})
		return body, nil
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, newError(http.StatusRequestEntityTooLarge, typeInvalid, "", "body_too_large", "body: found more than %d bytes, expected at most that", tooLarge.Limit)
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return nil, newError(http.StatusRequestTimeout, typeInvalid, "", "body_timeout", "body: not complete after %v", s.o.BodyTimeout)
	}
	return nil, newError(http.StatusBadRequest, typeInvalid, "", "body_unreadable", "body: %v", err)
}

// answer writes the completions of one request.
type answer struct {
	s       *Server
	w       http.ResponseWriter
	req     *completionRequest
	head    completion
	echoes  []string // by choice
	started bool     // the stream's header is out
	choice  int      // whose events are being sent
	begun   bool     // it has had an event
	base    int      // characters of its text before the completion
	at      offsets
}

// whole writes the answer as one object.
func (a *answer) whole(results []infer.Result) {
	c := a.head
	c.Usage, c.Timings = usageOf(results, a.req.n), timingsOf(results)
	var total infer.Timings
	for i, r := range results {
		ch := choice{Text: a.echoes[i] + r.Text, Index: i, FinishReason: optional(string(r.FinishReason)), Shortened: r.Shortened}
		if a.req.logprobs != nil {
			ch.Logprobs = &logprobs{Tokens: []string{}, TokenLogprobs: []*float64{}, TopLogprobs: []map[string]float64{}, TextOffset: []int{}}
			ch.Logprobs.add(r.PromptTokens, 0, &offsets{text: a.echoes[i]}, a.s.engine.TokenText)
			ch.Logprobs.add(r.Tokens, utf8.RuneCountInString(a.echoes[i]), &offsets{text: r.Text}, a.s.engine.TokenText)
		}
		c.Choices = append(c.Choices, ch)
		total.Queue = max(total.Queue, r.Timings.Queue)
		total.Prompt += r.Timings.Prompt
		total.Decode += r.Timings.Decode
	}
	a.w.Header().Set("Server-Timing", fmt.Sprintf("queue;dur=%.3f, prompt;dur=%.3f, decode;dur=%.3f", milliseconds(total.Queue), milliseconds(total.Prompt), milliseconds(total.Decode)))
	writeJSON(a.w, http.StatusOK, c)
}

// event sends a chunk of choice i.
func (a *answer) event(i int, chunk infer.Chunk) error {
	if i != a.choice {
		a.choice, a.begun, a.at = i, false, offsets{}
	}
	a.at.text += chunk.Text
	ch := choice{Text: chunk.Text, Index: i, FinishReason: optional(string(chunk.FinishReason)), Shortened: chunk.Shortened}
	if !a.begun {
		a.begun = true
		a.base = utf8.RuneCountInString(a.echoes[i])
		ch.Text = a.echoes[i] + ch.Text
	}
	if ch.Text == "" && ch.FinishReason == nil && a.req.logprobs == nil {
		return nil
	}
	if a.req.logprobs != nil {
		ch.Logprobs = &logprobs{Tokens: []string{}, TokenLogprobs: []*float64{}, TopLogprobs: []map[string]float64{}, TextOffset: []int{}}
		ch.Logprobs.add(chunk.Tokens, a.base, &a.at, a.s.engine.TokenText)
	}
	c := a.head
	c.Choices = []choice{ch}
	return a.send(c)
}

// send writes one server-sent event.
func (a *answer) send(v any) error {
	control := http.NewResponseController(a.w)
	if !a.started {
		a.started = true
		h := a.w.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no") // proxies that collect answers would hold the stream back
		a.w.WriteHeader(http.StatusOK)
	}
	// A client that stops reading must not hold the engine.
	_ = control.SetWriteDeadline(time.Now().Add(a.s.o.StallTimeout))
	var b strings.Builder
	b.WriteString("data: ")
	if text, ok := v.(string); ok {
		b.WriteString(text + "\n")
	} else {
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			return err
		}
	}
	b.WriteString("\n")
	if _, err := io.WriteString(a.w, b.String()); err != nil {
		return err
	}
	return control.Flush()
}

// end closes a stream. A failure to write means that the client has gone.
func (a *answer) end(results []infer.Result) {
	if a.req.includeUsage {
		c := a.head
		c.Choices, c.Usage, c.Timings = []choice{}, usageOf(results, a.req.n), timingsOf(results)
		if a.send(c) != nil {
			return
		}
	}
	_ = a.send("[DONE]")
}

// abort ends a stream with an error.
func (a *answer) abort(r *http.Request, err error) {
	err = whyEnded(r, err)
	e := asAPIError(err)
	l := logged(r)
	l.Err, l.status = err, e.status
	if e.status != statusClientLeft {
		_ = a.send(errorBody{e})
	}
}
