package infer

import (
	"errors"
	"slices"
	"time"
)

// Stats is what an engine has done since it was made, and what it is doing.
type Stats struct {
	// By Class, now: calls that wait, completions that take part in passes, and completions that pause for more urgent ones.
	Queued, Running, Paused [classCount]int

	Started    int64         // calls that have left the queue
	QueueWait  time.Duration // that they waited, in all
	Completed  int64         // calls that were answered
	Reused     int64         // of those, from suggestions shown before
	Cancelled  int64         // calls whose context ended or whose receiver failed
	Superseded int64         // calls that a later one of their session has ended
	Rejected   int64         // calls that found the queue full or waited too long
	Failed     int64         // calls that ended with another error

	Passes          int64
	Rows            int64 // tokens that passes have evaluated, guesses included
	PromptTokens    int64 // of prompts, evaluated
	CachedTokens    int64 // of prompts, found evaluated
	GeneratedTokens int64
	Drafted         int64 // guesses evaluated
	Accepted        int64 // guesses that were right

	CacheBytes     int64 // keys and values in memory, in use and kept
	CacheInUse     int64 // of those, by completions under way
	CacheLimit     int64 // of those that are kept
	CacheEvictions int64 // blocks of them that were forgotten to make room
}

const classCount = int(Background) + 1

// Stats returns a snapshot. It is cheap.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	for _, c := range e.calls {
		if !c.started {
			s.Queued[c.class]++
		}
	}
	for _, t := range e.held {
		if slices.Contains(e.active, t) {
			s.Running[t.c.class]++
		} else {
			s.Paused[t.c.class]++
		}
	}
	c := e.cache.read()
	s.CacheBytes, s.CacheInUse, s.CacheLimit, s.CacheEvictions = c.Bytes, c.InUse, c.Limit, c.Evictions
	return s
}

// count changes the counters.
func (e *Engine) count(f func(s *Stats)) {
	e.mu.Lock()
	f(&e.stats)
	e.mu.Unlock()
}

// add counts a result.
func (s *Stats) add(res Result) {
	s.GeneratedTokens += int64(len(res.IDs))
	s.Drafted += int64(res.Drafted)
	s.Accepted += int64(res.Accepted)
}

// ended counts the end of a call by err, nil if it was answered; broken says that it was a failure of ours.
func (s *Stats) ended(err error, broken bool) {
	var superseded *SupersededError
	var busy *BusyError
	switch {
	case err == nil:
		s.Completed++
	case errors.As(err, &superseded):
		s.Superseded++
	case errors.As(err, &busy):
		s.Rejected++
	case broken:
		s.Failed++
	default:
		s.Cancelled++
	}
}
