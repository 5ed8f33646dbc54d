package infer

import (
	"slices"
	"sync"
)

// prefixes keeps the sessions of recent calls, so that a prompt which begins like one of them is not evaluated from the start. A
// continued session has the bits of a new one. It is safe for use by any number of goroutines.
type prefixes struct {
	m     *Model
	limit int64 // bytes of keys and values that are kept
	block int   // tokens whose keys and values share memory

	mu      sync.Mutex
	entries []*entry  // the latest used last
	recent  [][]int32 // ends of recent completions, the latest last
}

// entry is a session, in use or idle. Its fields are guarded by prefixes.mu, the session's own by busy and readers: a busy
// session belongs to its call, which appends to it within what it has reserved and never goes back before the first stable
// tokens, so that whole blocks of those may be copied meanwhile; of an idle one everything may be copied; and it is not lent
// out, and so not cut or grown, while somebody copies.
type entry struct {
	session *Session
	busy    bool
	stable  []int32 // the tokens that may be copied
	readers int     // calls that are copying
	bytes   int64
}

const (
	// recentTexts completions are remembered, each with the contextTokens before it that tell where it belongs.
	recentTexts   = 16
	contextTokens = 16
	recentTokens  = 4096 // in all
)

func newPrefixes(m *Model, limit int64) *prefixes {
	p := &prefixes{m: m, limit: limit, block: 1}
	s := m.NewSession()
	defer s.Close()
	// Where there is no room for a token, nothing will ever be shared.
	if s.reserve(1) == nil {
		p.block = s.kv.capacity()
	}
	return p
}

// defaultCacheBytes is the memory for sessions if none is given: a model that is served is to take 15 % more than its weights,
// of which what else a request needs is taken off. But it is a full context or, where those are small, eight in at most
// 32 MiB; and never more than eight contexts or a gigabyte.
func defaultCacheBytes(m *Model) int64 {
	context := m.cacheBytes(m.Context())
	if m.card != nil {
		return m.card.pageBytes * int64(m.card.pages)
	}
	least := max(context+context/32, min(8*context, 32<<20))
	other := otherBytes + int64(m.chunk*m.program.tokenBytes())
	return min(max(m.program.bytes()*15/100-other, least), 8*context, 1<<30)
}

// otherBytes is about what serving takes beside weights, keys and values, and a chunk's scratch memory: tokenizer, program, garbage.
const otherBytes = 80 << 20

// common returns the number of tokens that a and b begin with together.
func common(a, b []int32) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// take returns a session that holds the longest known beginning of prompt, though not the whole: at least one token has to be
// evaluated to know what follows. It has room for total tokens. The caller gives it back with put. A session most of which would
// be lost is copied, not cut. When there is no memory for it, nothing is taken.
func (p *prefixes) take(prompt []int32, total int) (*entry, error) {
	p.mu.Lock()
	var best *entry
	shared := 0
	for _, e := range slices.Backward(p.entries) {
		n := min(common(e.stable, prompt), len(prompt)-1)
		if n > shared || n == shared && n > 0 && best.busy && !e.busy {
			best, shared = e, n
		}
	}
	if best != nil && !best.busy && best.readers == 0 && 2*shared >= len(best.stable) {
		best.busy, best.stable = true, nil
		p.mu.Unlock()
		best.session.Truncate(shared)
		if err := best.session.reserve(total); err != nil {
			p.put(best, false)
			return nil, err
		}
		p.settle(best)
		return best, nil
	}
	e := p.room(best, p.m.cacheBytes(total))
	p.entries = append(p.entries, e)
	var prefix []int32
	if best != nil {
		best.readers++
		prefix = best.stable[:shared]
	}
	p.mu.Unlock()
	err := e.session.reserve(total)
	if best != nil {
		if err == nil {
			err = e.session.copyPrefix(best.session, prefix)
		}
		p.mu.Lock()
		best.readers--
		p.mu.Unlock()
	}
	if err != nil {
		p.put(e, false)
		return nil, err
	}
	p.settle(e)
	return e, nil
}

// room returns a new entry that will take the given bytes. What has to go for it goes first, the least recently used; and its
// memory is used again. best stays. p.mu is held.
func (p *prefixes) room(best *entry, bytes int64) *entry {
	held := bytes
	for _, x := range p.entries {
		held += x.bytes
	}
	e := &entry{busy: true}
	p.entries = slices.DeleteFunc(p.entries, func(x *entry) bool {
		if x == best || x.busy || x.readers > 0 || held <= p.limit {
			return false
		}
		held -= x.bytes
		if e.session == nil {
			e.session = x.session
			e.session.Truncate(0)
		} else {
			x.session.Close()
		}
		return true
	})
	if e.session == nil {
		e.session = p.m.NewSession()
	}
	return e
}

// settle says that the tokens which a busy session holds now will stay until put.
func (p *prefixes) settle(e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.stable = e.session.ids[:e.session.Len():e.session.Len()]
	e.bytes = e.session.bytes()
}

// put takes a session back and forgets the least recently used idle ones beyond the limit, but for this one if it is to be kept.
func (p *prefixes) put(e *entry, keep bool) {
	e.session.park()
	p.mu.Lock()
	defer p.mu.Unlock()
	e.busy = false
	e.stable = e.session.ids[:e.session.Len():e.session.Len()]
	e.bytes = e.session.bytes()
	i := slices.Index(p.entries, e)
	p.entries = append(slices.Delete(p.entries, i, i+1), e)
	var held int64
	for _, x := range p.entries {
		held += x.bytes
	}
	p.entries = slices.DeleteFunc(p.entries, func(x *entry) bool {
		if x.busy || x.readers > 0 || keep && x == e || held <= p.limit && len(x.stable) > 0 {
			return false
		}
		held -= x.bytes
		x.session.Close()
		return true
	})
}

// remember adds a completion to those that the next may repeat.
func (p *prefixes) remember(prompt, completion []int32) {
	if len(completion) == 0 {
		return
	}
	text := slices.Concat(prompt[max(0, len(prompt)-contextTokens):], completion)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recent = append(p.recent, text)
	n := 0
	for i, r := range slices.Backward(p.recent) {
		if n += len(r); n > recentTokens || len(p.recent)-i > recentTexts {
			p.recent = slices.Delete(p.recent, 0, i+1)
			break
		}
	}
}

// texts returns the completions remembered.
func (p *prefixes) texts() [][]int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.recent)
}

// bytes returns the memory of all sessions, in use and idle.
func (p *prefixes) bytes() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.entries {
		n += e.bytes
	}
	return n
}

// clear forgets everything that is idle.
func (p *prefixes) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.entries = slices.DeleteFunc(p.entries, func(e *entry) bool {
		if e.busy || e.readers > 0 {
			return false
		}
		e.session.Close()
		return true
	})
	p.recent = nil
}
