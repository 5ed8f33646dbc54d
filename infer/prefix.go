package infer

import (
	"slices"
	"sync"
	"time"
)

// prefixes keeps the keys and values of recent calls, so that a prompt which begins like one of them is not evaluated from the
// start: whole blocks are shared, of the last one the tokens are copied. Running sequences share what they have settled. A continued
// sequence has the bits of a new one. It is safe for use by any number of goroutines, but an entry's session is not evaluated while
// its entry is settled or put.
type prefixes struct {
	m     *Model
	open  func(*adapter) *Session
	limit int64 // bytes of keys and values, those of running sequences included
	now   func() time.Time

	mu      sync.Mutex
	tree    *prefixTree
	running map[*entry]struct{}
	private int // blocks of running sequences that are not in the tree
	stats   CacheStats
	recent  [][]int32 // ends of recent completions, the latest last
}

// entry is a sequence that is running.
type entry struct {
	session *Session
	owner   *owner
	root    *node   // nil: it shares nothing
	path    []*node // what the tree has of its blocks, from the first on. Only the last may not be full
	private int     // its other blocks
}

// CacheStats say how much prompts begin like others.
type CacheStats struct {
	Asked     int64 // tokens of prompts
	Found     int64 // of them, whose keys and values were there
	Blocks    int   // of keys and values in memory, those of running sequences included
	Bytes     int64 // which they take
	InUse     int64 // of them, by running sequences
	Limit     int64 // what Bytes may become; running sequences alone may take more
	Evictions int64 // blocks that were forgotten to make room
}

const (
	// recentTexts completions are remembered, each with the contextTokens before it that tell where it belongs.
	recentTexts   = 16
	contextTokens = 16
	recentTokens  = 4096 // in all
)

func newPrefixes(m *Model, limit int64) *prefixes {
	return &prefixes{m: m, open: m.newSession, limit: limit, now: time.Now, tree: newPrefixTree(m.blockTokens), running: map[*entry]struct{}{}}
}

// defaultCacheBytes is the memory for keys and values if none is given: a model that is served is to take 15 % more than its weights,
// of which what else a request needs is taken off. But it is a full context or, where those are small, eight in at most
// 32 MiB; and never more than eight contexts or a gigabyte.
func defaultCacheBytes(m *Model) int64 {
	if m.card != nil {
		return m.card.pageBytes * int64(m.card.pages)
	}
	context := m.cacheBytes(m.Context())
	least := max(context+m.blockBytes, min(8*context, 32<<20))
	other := otherBytes + int64(m.chunk*m.program.tokenBytes())
	return min(max(m.program.bytes()*15/100-other, least), 8*context, 1<<30)
}

// otherBytes is about what serving takes beside weights, keys and values, and a chunk's scratch memory: tokenizer, program, garbage.
const otherBytes = 80 << 20

// take returns a sequence that holds the longest known beginning of prompt, though not the whole: at least one token has to be
// evaluated to know what follows. It has room for total tokens. with is the adapter it is evaluated with, nil for none; who it is for.
// The caller gives it back with put. When there is no memory for it, nothing is taken.
func (p *prefixes) take(prompt []int32, total int, with *adapter, who turn) (*entry, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := &entry{session: p.open(with), owner: p.tree.owner(who)}
	s, o, now := e.session, e.owner, p.now()
	o.running++
	var path []*node
	var found int
	e.root, path, found = p.find(prompt, with)
	whole, rest := found/p.m.blockTokens, found%p.m.blockTokens
	for _, n := range path[:whole] {
		s.kv.share(n.block)
		p.tree.use(n)
	}
	e.path = slices.Clone(path[:whole])
	p.running[e] = struct{}{}
	p.count(e, max(0, p.m.blocksFor(total)-whole))
	var from *block // whose first tokens it begins with behind the whole blocks
	if rest > 0 {
		n := path[whole]
		from = n.block.hold()
		defer n.block.drop()
		switch {
		case n.free(rest) && !p.tree.keptFrom(o, n, now):
			p.tree.remove(n)
			path = path[:whole]
		case p.tree.supersede(n, rest, found, o, now):
			path = path[:whole]
		}
	}
	p.tree.touch(path, o, now)
	p.evict()
	if from != nil && from.holders.Load() == 1 {
		s.kv.share(from) // nobody else has it any more
		from = nil
	}
	err := s.reserve(total)
	for err != nil && p.evictOne() {
		err = s.reserve(total)
	}
	if err == nil && from != nil {
		err = s.kv.copyTokens(whole, from, rest)
	}
	if err != nil {
		p.end(e)
		return nil, err
	}
	s.commit(prompt[:found])
	p.stats.Asked += int64(len(prompt))
	p.stats.Found += int64(found)
	p.publish(e)
	return e, nil
}

// find returns the root of what was evaluated with an adapter, nil if that has ended, and what is known of a prompt but its last token; see
// prefixTree.find.
func (p *prefixes) find(prompt []int32, with *adapter) (root *node, path []*node, found int) {
	if with != nil && with.ended.Load() {
		return nil, nil, 0
	}
	root = p.tree.root(with.kind())
	path, found = p.tree.find(root, prompt[:max(0, len(prompt)-1)])
	return root, path, found
}

// advance lets e's session, which holds a beginning of prompt, go on behind the blocks of it that others have evaluated since, and returns by
// how many tokens. At least one token is left to evaluate.
func (p *prefixes) advance(e *entry, prompt []int32) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publish(e)
	s, at := e.session, e.session.Len()
	if e.root == nil {
		return 0
	}
	_, path, found := p.find(prompt, s.with)
	whole := found / p.m.blockTokens
	if whole*p.m.blockTokens <= at {
		return 0
	}
	if k := len(e.path) - 1; k >= 0 && len(e.path[k].tokens) < p.tree.full {
		p.tree.remove(e.path[k]) // the tokens of another's block take its place
		e.path = e.path[:k]
	}
	for i, n := range path[len(e.path):whole] {
		s.kv.replace(len(e.path)+i, n.block)
		p.tree.use(n)
	}
	e.path = slices.Clone(path[:whole])
	s.commit(prompt[at : whole*p.m.blockTokens])
	p.tree.touch(e.path, e.owner, p.now())
	p.count(e, len(s.kv.blocks())-whole)
	p.stats.Found += int64(whole*p.m.blockTokens - at)
	return whole*p.m.blockTokens - at
}

// count notes how many of e's blocks are not in the tree.
func (p *prefixes) count(e *entry, private int) {
	p.private += private - e.private
	e.owner.private += private - e.private
	e.private = private
}

// size returns the memory of n blocks.
func (p *prefixes) size(n int) int64 { return int64(n) * p.m.blockBytes }

// evict forgets blocks beyond the limit that no running sequence holds, as prefixTree says in which order.
func (p *prefixes) evict() {
	for p.size(p.tree.nodes+p.private) > p.limit && p.evictOne() {
	}
}

func (p *prefixes) evictOne() bool {
	n := p.tree.next(p.now())
	if n != nil {
		p.tree.remove(n)
		p.stats.Evictions++
	}
	return n != nil
}

// settle says that the tokens which e's session holds now will stay until put, so that others may begin with them.
func (p *prefixes) settle(e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publish(e)
}

// grown notes that e's session has made room for more tokens.
func (p *prefixes) grown(e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count(e, len(e.session.kv.blocks())-len(e.path))
	p.evict()
}

// publish brings e's blocks into the tree. What another has brought there before is used in place of e's own.
func (p *prefixes) publish(e *entry) {
	t, s := p.tree, e.session
	if e.root == nil {
		return
	}
	o, now := e.owner, p.now()
	blocks := s.kv.blocks()
	if k := len(e.path) - 1; k >= 0 && len(e.path[k].tokens) < t.full {
		n := e.path[k]
		if k*t.full+len(n.tokens) == s.Len() {
			return
		}
		t.remove(n) // and comes back with more tokens
		e.path = e.path[:k]
	}
	for i := len(e.path); i*t.full < s.Len(); i++ {
		parent := e.root
		if i > 0 {
			parent = e.path[i-1]
		}
		tokens := s.ids[i*t.full : min((i+1)*t.full, s.Len())]
		at, found := parent.search(tokens)
		var n *node
		switch {
		case found && len(tokens) == t.full:
			n = parent.children[at]
			if n.block != blocks[i] {
				s.kv.replace(i, n.block)
			}
		case at < len(parent.children) && common(parent.children[at].tokens, tokens) == len(tokens):
			// Another has these tokens and, it may be, more.
		default:
			n = t.insert(parent, at, tokens, blocks[i])
			for ; at > 0; at-- {
				less := parent.children[at-1]
				if less.users > 0 || t.keptFrom(o, less, now) || common(less.tokens, tokens) < len(less.tokens) {
					break
				}
				t.remove(less)
			}
		}
		if n == nil {
			break
		}
		t.use(n)
		e.path = append(e.path, n)
	}
	t.touch(e.path, o, now)
	p.count(e, len(blocks)-len(e.path))
}

// trim forgets what is beyond the limit, when those for whom it was kept have not come.
func (p *prefixes) trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.evict()
}

// put takes a sequence back. What is beyond the limit is forgotten, unless more says that another call with the same prompt follows at once.
func (p *prefixes) put(e *entry, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.publish(e)
	p.end(e)
	if !more {
		p.evict()
	}
	if p.m.card == nil {
		p.m.spare.keep(int(max(0, p.limit/max(1, p.m.blockBytes)-int64(p.tree.nodes+p.private))))
	}
}

// end forgets that e is running, and frees its session.
func (p *prefixes) end(e *entry) {
	for _, n := range e.path {
		p.tree.leave(n)
	}
	e.path = nil
	p.count(e, 0)
	e.owner.running--
	p.tree.release(e.owner)
	delete(p.running, e)
	e.session.Close()
}

// forget removes what was evaluated with an adapter. Sequences that still run with it share nothing from now on.
func (p *prefixes) forget(with *adapter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	root := p.tree.roots[with.kind()]
	if root == nil {
		return
	}
	for e := range p.running {
		if e.root == root {
			p.count(e, len(e.session.kv.blocks()))
			e.root, e.path = nil, nil
		}
	}
	p.tree.removeRoot(with.kind())
}

// CacheStats returns what the cache of keys and values holds and has found.
func (e *Engine) CacheStats() CacheStats { return e.cache.read() }

func (p *prefixes) read() CacheStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Blocks = p.tree.nodes + p.private
	s.Bytes, s.InUse, s.Limit = p.size(s.Blocks), p.size(p.tree.pinned+p.private), p.limit
	return s
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

// clear forgets everything that no running sequence holds.
func (p *prefixes) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for now := p.now(); ; {
		n := p.tree.next(now)
		if n == nil {
			break
		}
		p.tree.remove(n)
	}
	p.m.spare.keep(0)
	p.m.spare.keep(p.m.blocksFor(p.m.Context()))
	p.recent = nil
}
