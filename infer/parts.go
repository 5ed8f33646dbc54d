package infer

import (
	"slices"
	"time"
)

const (
	// stall is how long a part of a prompt may make those wait that generate, and patientStall if all of these are of lower classes.
	stall, patientStall = 100 * time.Millisecond, 400 * time.Millisecond
	// loss is how long a part of an Interactive prompt takes: who types on leaves it, and the next request begins behind the last whole part.
	loss = 150 * time.Millisecond
	// leastPart is the shortest part of a prompt, but for its end, and firstPart the length beside others before one was timed.
	leastPart, firstPart = 16, 32
	// togetherRows is up to how many tokens the rest of a prompt is short.
	togetherRows = 64
	// lately is how long ago calls of others make long parts of prompts unlikely to be left alone.
	lately = 10 * time.Second
)

// parts returns which prompts take part in a pass, and how many tokens of a prompt: most at most.
func (e *Engine) parts(p *jointPass, prompts, generating []*task, most int) (parts []*task, chunk int) {
	if len(prompts) == 0 {
		return nil, 0
	}
	first := prompts[0]
	chunk = most
	switch {
	case len(generating) > 0 && mostUrgent(generating) <= first.c.class:
		chunk = e.speed.part(stall, chunk)
	case first.c.class == Interactive && e.m.card == nil:
		chunk = e.speed.part(loss, chunk)
	case len(generating) > 0 || e.company():
		chunk = e.speed.part(patientStall, chunk)
	}
	// Short ones need not wait for a long one that is as urgent, every other time.
	short := func(t *task) bool { return t.g.left() <= togetherRows }
	p.long = !short(first) && (!p.long || !slices.ContainsFunc(prompts, func(t *task) bool { return short(t) && t.c.class == first.c.class }))
	left := chunk
	for _, t := range prompts {
		n := t.g.left()
		switch {
		case t == first && (p.long || short(first)):
			parts, left = append(parts, t), left-min(n, chunk)
		case short(t) && (n <= left || len(parts) == 0):
			parts, left = append(parts, t), left-n
		}
	}
	return parts, chunk
}

// company reports whether others than the caller of the latest call have been there lately.
func (e *Engine) company() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Since(e.others) < lately
}

// mostUrgent returns the class of the most urgent of tasks.
func mostUrgent(tasks []*task) Class {
	c := Background
	for _, t := range tasks {
		c = min(c, t.c.class)
	}
	return c
}

// speed is what passes take, to tell how long a part of a prompt makes others wait.
type speed struct {
	without float64 // seconds of a pass without a prompt
	token   float64 // that a token of a prompt adds; 0: none was timed
}

func (s *speed) pass(d time.Duration, generating, prompts int) {
	t := d.Seconds()
	switch {
	case prompts == 0:
		s.without = mix(s.without, t)
	case prompts < leastPart: // tells little
	case generating > 0:
		s.token = mix(s.token, max(0, t-s.without)/float64(prompts))
	default:
		s.token = mix(s.token, t/float64(prompts))
	}
}

func mix(mean, x float64) float64 {
	if mean == 0 {
		return x
	}
	return mean + (x-mean)/4
}

// part returns how many tokens of a prompt, at most most, take d beside others.
func (s *speed) part(d time.Duration, most int) int {
	if s.token == 0 {
		return min(firstPart, most)
	}
	return min(max(leastPart, int(d.Seconds()/s.token)), most)
}
