package typing

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Server is one that suggestions are asked of.
type Server struct {
	Name string
	URL  string
	// Expect, unless it is nil, tells the server the tokens to answer the request of a prefix with.
	Expect func(prefix string, ids []int32)
	// Count returns what the server has done so far; nil: nobody knows.
	Count func(context.Context) (Count, error)
}

// Count is what a server has done.
type Count struct {
	Prompt    int64 `json:"prompt_tokens_evaluated"`
	Generated int64 `json:"tokens_generated"`
	Drafted   int64 `json:"tokens_drafted"` // guesses, beside those
	Reused    int64 `json:"suggestions_reused"`
}

func (c Count) plus(b Count) Count {
	return Count{c.Prompt + b.Prompt, c.Generated + b.Generated, c.Drafted + b.Drafted, c.Reused + b.Reused}
}

func (c Count) minus(b Count) Count {
	return Count{c.Prompt - b.Prompt, c.Generated - b.Generated, c.Drafted - b.Drafted, c.Reused - b.Reused}
}

// Options say how traces are replayed.
type Options struct {
	Debounce  time.Duration // from a keystroke to the request, which the next keystroke prevents
	Speed     float64       // how many times as fast the user is
	MaxTokens int           // of a suggestion
	Scripted  bool          // suggestions are those of the trace
	Exact     bool          // answers from earlier suggestions are to be the model's, too
	Tokens    func(string) []int32
	Progress  func(done, total int)
}

// Sample is what came of a step.
type Sample struct {
	Trace int  `json:"trace"`
	Step  int  `json:"step"` // −1: the file was opened
	Wait  bool `json:"wait"`
	// Sent says that the step lasted long enough for a request, and Answered that the answer came before the next.
	Sent      bool          `json:"sent"`
	Answered  bool          `json:"answered"`
	Latency   time.Duration `json:"latency"` // from the keystroke
	Service   time.Duration `json:"service"` // from the request
	Cached    int           `json:"cached"`
	Prompt    int           `json:"prompt"`
	Generated int           `json:"generated"`
	Text      string        `json:"text"`
	Useful    int           `json:"useful"` // bytes of the suggestion, if they are what is typed next

	prefix, suffix string
}

// Run is what came of all traces with one server.
type Run struct {
	Server  string   `json:"server"`
	Samples []Sample `json:"samples"`
	Count   *Count   `json:"count"`
}

// Replay replays traces, one after the other, against servers in turns, and returns what came of them by server.
func Replay(ctx context.Context, traces []Trace, servers []Server, o Options) ([]*Run, error) {
	total, done := 0, 0
	for _, t := range traces {
		total += len(t.Steps) * len(servers)
	}
	players := make([]*player, len(servers))
	runs := make([]*Run, len(servers))
	for i, s := range servers {
		runs[i] = &Run{Server: s.Name}
		players[i] = &player{c: newClient(s.URL), s: s, o: o, run: runs[i]}
		defer players[i].c.http.CloseIdleConnections()
	}
	for i := range traces {
		for k := range players {
			// Each is the first as often as any other: processors are not as fast at all times.
			p := players[(i+k)%len(players)]
			err := p.counted(ctx, func() error {
				return p.play(ctx, i, &traces[i], func() {
					if done++; o.Progress != nil {
						o.Progress(done, total)
					}
				})
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", p.s.Name, traces[i].Name, err)
			}
		}
	}
	return runs, nil
}

// player replays traces.
type player struct {
	c   *client
	s   Server
	o   Options
	run *Run
}

// counted adds what the server does meanwhile to the run's count.
func (p *player) counted(ctx context.Context, do func() error) error {
	if p.s.Count == nil {
		return do()
	}
	before, err := p.s.Count(ctx)
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	after, err := p.s.Count(ctx)
	if err != nil {
		return err
	}
	if p.run.Count == nil {
		p.run.Count = &Count{}
	}
	*p.run.Count = p.run.Count.plus(after).minus(before)
	return nil
}

// pending is a request under way.
type pending struct {
	sample Sample
	cancel context.CancelFunc
	done   chan error
}

// play replays one trace.
func (p *player) play(ctx context.Context, index int, t *Trace, stepped func()) error {
	doc := document{t.Text, t.Cursor}
	// The server has seen the file when it was opened.
	if err := p.wait(ctx, p.request(ctx, Sample{Trace: index, Step: -1, Wait: true}, &doc, "\n", 0)); err != nil {
		return err
	}
	at := time.Now()
	covered := 0 // bytes that are typed next and were suggested
	var under *pending
	for i, s := range t.Steps {
		at = at.Add(time.Duration(float64(s.Delay) / p.o.Speed))
		if err := sleepUntil(ctx, at); err != nil {
			return err
		}
		// A process that was held up does not type faster afterwards.
		if now := time.Now(); now.Sub(at) > 20*time.Millisecond {
			at = now
		}
		if err := p.finish(under); err != nil {
			return err
		}
		under = nil
		doc.apply(s)
		covered = max(0, covered-len(s.Insert))
		sample := Sample{Trace: index, Step: i, Wait: s.Wait}
		lasts := s.Wait || i+1 == len(t.Steps) || time.Duration(float64(t.Steps[i+1].Delay)/p.o.Speed) > p.o.Debounce
		switch {
		case !lasts:
			p.run.Samples = append(p.run.Samples, sample)
		case s.Wait:
			q := p.request(ctx, sample, &doc, s.Answer, p.o.Debounce)
			if err := p.wait(ctx, q); err != nil {
				return err
			}
			if covered == 0 {
				covered = p.useful(t, i)
			}
			at = time.Now()
		default:
			under = p.request(ctx, sample, &doc, s.Answer, p.o.Debounce)
		}
		stepped()
	}
	return p.finish(under)
}

// useful finds out whether the last sample's suggestion is typed next, and returns how many bytes it has then.
func (p *player) useful(t *Trace, i int) int {
	s := &p.run.Samples[len(p.run.Samples)-1]
	text, next := s.Text, t.next(i+1)
	if text != "" && len(text) <= len(next) && next[:len(text)] == text {
		s.Useful = len(text)
	}
	return s.Useful
}

// request begins to ask for a suggestion.
func (p *player) request(ctx context.Context, s Sample, doc *document, answer string, debounce time.Duration) *pending {
	s.prefix, s.suffix = doc.prefix(), doc.suffix()
	pressed := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	q := infill{Prefix: s.prefix, Suffix: s.suffix, Tokens: p.o.MaxTokens, Keep: true}
	if p.o.Scripted {
		ids := p.o.Tokens(answer)
		ids = ids[:min(len(ids), p.o.MaxTokens)]
		q.Tokens, q.IgnoreEOS = len(ids), true
		if p.s.Expect != nil {
			p.s.Expect(s.prefix, ids)
		}
	}
	r := &pending{sample: s, cancel: cancel, done: make(chan error, 1)}
	go func() {
		if err := sleepUntil(ctx, pressed.Add(debounce)); err != nil {
			r.done <- err
			return
		}
		r.sample.Sent = true
		sent := time.Now()
		a, err := p.c.ask(ctx, q)
		if err == nil {
			now := time.Now()
			r.sample.Answered, r.sample.Latency, r.sample.Service = true, now.Sub(pressed), now.Sub(sent)
			r.sample.Cached, r.sample.Prompt, r.sample.Generated, r.sample.Text = a.Timings.Cached, a.Timings.Prompt, a.Timings.Predicted, a.Content
			if p.o.Scripted {
				r.sample.Text = answer
			}
		}
		r.done <- err
	}()
	return r
}

// wait waits for a request's answer.
func (p *player) wait(ctx context.Context, r *pending) error {
	err := <-r.done
	r.cancel()
	if err != nil {
		return err
	}
	p.run.Samples = append(p.run.Samples, r.sample)
	return ctx.Err()
}

// finish ends a request, if there is one, unless it was answered.
func (p *player) finish(r *pending) error {
	if r == nil {
		return nil
	}
	r.cancel()
	err := <-r.done
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	p.run.Samples = append(p.run.Samples, r.sample)
	return nil
}

// sleepUntil returns at a time, or with the context's error before.
func sleepUntil(ctx context.Context, at time.Time) error {
	d := time.Until(at)
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
