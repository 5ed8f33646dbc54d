package metrics

import (
	"slices"
	"sync"
	"time"

	"autodev/serve/wire"
)

// Summary is what a server does now, and has done since it began. Times are in milliseconds.
type Summary struct {
	UptimeSeconds   float64 `json:"uptime_seconds"`
	Requests        int64   `json:"requests"`
	Completions     int64   `json:"completions"`
	PromptTokens    int64   `json:"prompt_tokens"`
	CachedTokens    int64   `json:"cached_tokens"` // of PromptTokens
	GeneratedTokens int64   `json:"generated_tokens"`
	DraftedTokens   int64   `json:"drafted_tokens"`
	AcceptedTokens  int64   `json:"accepted_tokens"` // of DraftedTokens
	// FirstText and Total are of the latest completions, 256 at most and from the last ten minutes; null: there were none.
	FirstText *Quantiles `json:"first_text_ms"`
	Total     *Quantiles `json:"total_ms"`
}

// Quantiles are the 50th and the 95th percentile.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
}

const (
	recentCalls = 256
	recentTime  = 10 * time.Minute
)

// recent keeps the latest calls' times.
type recent struct {
	now   func() time.Time
	began time.Time

	mu    sync.Mutex
	sum   Summary
	calls [recentCalls]latency // a ring
	next  int
}

type latency struct {
	at              time.Time
	firstText, took time.Duration
}

func newRecent(now func() time.Time) *recent { return &recent{now: now, began: now()} }

func (s *recent) add(r wire.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum.Requests++
	if len(r.Results) == 0 {
		return
	}
	for _, c := range r.Results {
		s.sum.Completions++
		s.sum.PromptTokens += int64(len(c.PromptIDs))
		s.sum.CachedTokens += int64(c.Cached)
		s.sum.GeneratedTokens += int64(len(c.IDs))
		s.sum.DraftedTokens += int64(c.Drafted)
		s.sum.AcceptedTokens += int64(c.Accepted)
	}
	s.calls[s.next%recentCalls] = latency{s.now(), r.FirstText, r.Took}
	s.next++
}

// Summary returns what the server does now.
func (m *Metrics) Summary() Summary {
	s := m.recent
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.sum
	now := s.now()
	sum.UptimeSeconds = now.Sub(s.began).Seconds()
	var first, total []time.Duration
	for _, l := range s.calls[:min(s.next, recentCalls)] {
		if now.Sub(l.at) > recentTime {
			continue
		}
		total = append(total, l.took)
		if l.firstText > 0 {
			first = append(first, l.firstText)
		}
	}
	sum.FirstText, sum.Total = quantiles(first), quantiles(total)
	return sum
}

// quantiles returns nil for none. A percentile is the smallest value that so many per cent do not exceed.
func quantiles(d []time.Duration) *Quantiles {
	if len(d) == 0 {
		return nil
	}
	slices.Sort(d)
	at := func(percent int) float64 { return wire.Milliseconds(d[(len(d)*percent+99)/100-1]) }
	return &Quantiles{at(50), at(95)}
}
