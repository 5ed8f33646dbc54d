package infer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"autodev/model"
)

// recount checks the cache's account of its blocks by counting them, and the order of its tree.
func recount(t interface {
	Helper()
	Errorf(string, ...any)
}, p *prefixes) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	holders, users := map[*block]int32{}, map[*node]int{}
	private := 0
	for e := range p.running {
		blocks := e.session.kv.blocks()
		for i, b := range blocks {
			holders[b]++
			if i < len(e.path) && e.path[i].block != b {
				t.Errorf("block %d of a running sequence is not that of its node", i)
			}
		}
		for _, n := range e.path {
			users[n]++
		}
		if e.private != len(blocks)-len(e.path) {
			t.Errorf("a running sequence has %d of %d blocks in the tree and %d others", len(e.path), len(blocks), e.private)
		}
		private += e.private
	}
	nodes, pinned := 0, 0
	var walk func(n *node, depth int)
	walk = func(n *node, depth int) {
		if !slices.IsSortedFunc(n.children, func(a, b *node) int { return slices.Compare(a.tokens, b.tokens) }) {
			t.Errorf("the children of a node are in no order")
		}
		for i, c := range n.children {
			if i > 0 && slices.Equal(c.tokens, n.children[i-1].tokens) {
				t.Errorf("a block is there twice: %v", c.tokens)
			}
			if len(c.tokens) == 0 || len(c.tokens) > p.tree.full || len(c.tokens) < p.tree.full && len(c.children) > 0 || c.parent != n {
				t.Errorf("a node of %d tokens with %d children", len(c.tokens), len(c.children))
			}
			if holders[c.block]++; c.users != users[c] {
				t.Errorf("a node has %d users, expected %d", c.users, users[c])
			}
			nodes++
			if c.users > 0 {
				pinned++
			}
			walk(c, depth+1)
		}
	}
	for _, r := range p.tree.roots {
		walk(r, 0)
	}
	for b, n := range holders {
		if b.holders.Load() != n {
			t.Errorf("a block has %d holders, expected %d", b.holders.Load(), n)
		}
	}
	if nodes != p.tree.nodes || pinned != p.tree.pinned || private != p.private || nodes+private < len(holders) {
		t.Errorf("%d nodes, %d in use, %d blocks beside; counted %d, %d, %d and %d blocks",
			p.tree.nodes, p.tree.pinned, p.private, nodes, pinned, private, len(holders))
	}
	recountOwners(t, p)
}

// letters is a sequence whose keys and values are the tokens themselves, in blocks of four.
type letters struct {
	sequence
	home *blockCount
	held []*block
}

const mostBlocks = 25

// blockCount counts the blocks that somebody holds.
type blockCount struct{ blocks int }

func (h *blockCount) takeBack(b *block) {
	h.blocks--
	b.words = nil // whoever reads it yet is mistaken
}

func (s *letters) blocks() []*block { return s.held }
func (s *letters) capacity() int    { return 4 * len(s.held) }
func (s *letters) share(b *block)   { s.held = append(s.held, b.hold()) }
func (s *letters) reserve(n int) error {
	for s.capacity() < n {
		if s.home.blocks == mostBlocks {
			return fmt.Errorf("no room")
		}
		s.home.blocks++
		b := &block{home: s.home, words: make([]uint32, 4)}
		s.held = append(s.held, b.hold())
	}
	return nil
}
func (s *letters) replace(i int, b *block) {
	s.held[i].drop()
	s.held[i] = b.hold()
}
func (s *letters) copyTokens(i int, from *block, n int) error {
	copy(s.held[i].words, from.words[:n])
	return nil
}
func (s *letters) free() {
	for _, b := range s.held {
		b.drop()
	}
	s.held = nil
}

// write evaluates a token.
func (s *letters) write(at int, id int32) { s.held[at/4].words[at%4] = uint32(id) }

// TestPrefixTree: of any mix of running sequences, the tokens that a new one begins with are the longest beginning that is known, and
// are what it finds in its blocks, whatever the others do; no block is lost, forgotten in use, or there beyond the limit but in
// use.
func TestPrefixTree(t *testing.T) {
	shared, rewritten, advanced, evicted, refused := 0, 0, 0, int64(0), 0
	chosen := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		home := &blockCount{}
		m := &Model{blockTokens: 4, blockBytes: 16}
		m.config = model.Config{Positions: 40}
		limit := rapid.SampledFrom([]int64{0, 16, 100, 400, 10000}).Draw(t, "limit")
		p := newPrefixes(m, limit)
		now := time.Now()
		p.now = func() time.Time { return now }
		whose := []turn{{Interactive, "a"}, {Interactive, "b"}, {Interactive, ""}, {Chat, "a"}, {Background, "b"}}
		p.open = func(with *adapter) *Session { return &Session{m: m, kv: &letters{home: home}, with: with} }
		adapters := []*adapter{nil, {generation: 1}, {generation: 2}}
		var running []*entry
		settled := map[*entry]int{}
		ids := func(n int) []int32 {
			return randomIDs(r, 2, n)
		}
		bases := [][]int32{ids(20), ids(20)}
		extend := func(e *entry, more []int32) {
			more = more[:min(len(more), e.session.kv.capacity()-e.session.Len())]
			for i, id := range more {
				e.session.kv.(*letters).write(e.session.Len()+i, id)
			}
			e.session.commit(more)
		}
		check := func() {
			recount(t, p)
			for _, e := range running {
				for i, id := range e.session.ids {
					if got := e.session.kv.blocks()[i/4].words[i%4]; got != uint32(id) {
						t.Fatalf("token %d of %v is %d", i, e.session.ids, got)
					}
				}
			}
			if got, want := p.tree.next(now), nextByDefinition(p); got != want {
				t.Fatalf("%+v is forgotten next, expected %+v", got, want)
			} else if got != nil {
				chosen[p.tree.kept(got, now)]++
			}
			if n := p.tree.nodes + p.private; n < home.blocks {
				t.Fatalf("%d blocks, %d are accounted for", home.blocks, n)
			}
		}
		for range 150 {
			i := 0
			if len(running) > 0 {
				i = r.IntN(len(running))
			}
			switch what := r.IntN(40); {
			case what < 12 && len(running) < 5 || len(running) == 0:
				prompt := slices.Concat(bases[r.IntN(2)][:r.IntN(21)], ids(r.IntN(4)))
				with := adapters[max(0, r.IntN(6)-3)]
				total := len(prompt) + r.IntN(13)
				want := longestKnown(p, with, prompt)
				inUse := p.tree.pinned + p.private
				who := whose[r.IntN(len(whose))]
				compare := marked(t, p, who, nil)
				e, err := p.take(prompt, total, with, who)
				compare(e)
				if err != nil {
					// One block may be what was to be copied.
					if refused++; inUse+m.blocksFor(total)+1 <= mostBlocks {
						t.Fatalf("refused with %d blocks in use", inUse)
					}
					break
				}
				if got := e.session.Len(); got != want || !slices.Equal(e.session.ids, prompt[:got]) {
					t.Fatalf("prompt %v: %v is known, expected %d", prompt, e.session.ids, want)
				}
				shared += e.session.Len() / 4
				running = append(running, e)
				settled[e] = e.session.Len()
				extend(e, prompt[e.session.Len():max(e.session.Len(), r.IntN(len(prompt)+1))])
			case what < 20:
				extend(running[i], ids(r.IntN(10)))
			case what < 23:
				e := running[i]
				e.session.Truncate(max(settled[e], e.session.Len()-3))
			case what < 24:
				e, at := running[i], running[i].session.Len()
				for _, prompt := range bases {
					if at == 0 || at >= len(prompt) || len(prompt) > e.session.kv.capacity() || !slices.Equal(prompt[:at], e.session.ids) {
						continue
					}
					want := max(at, longestKnown(p, e.session.with, prompt)/4*4)
					if e.root == nil {
						want = at
					}
					if n := p.advance(e, prompt); n != want-at || !slices.Equal(e.session.ids, prompt[:want]) {
						t.Fatalf("from %d of %v on by %d tokens, expected %d: %v", at, prompt, n, want-at, e.session.ids)
					} else if n > 0 {
						advanced++
					}
					settled[e] = e.session.Len()
				}
			case what < 28:
				before := slices.Clone(running[i].session.kv.blocks())
				compare := marked(t, p, whoseIs(p, running[i]), slices.Clone(running[i].path))
				p.settle(running[i])
				compare(running[i])
				settled[running[i]] = running[i].session.Len()
				if !slices.Equal(before, running[i].session.kv.blocks()) {
					rewritten++
				}
			case what < 30:
				now = now.Add(time.Duration(r.IntN(int(keptFor))))
			case what < 39:
				p.put(running[i], false)
				running = slices.Delete(running, i, i+1)
				if s := p.read(); s.Bytes > s.Limit && p.tree.nodes != p.tree.pinned {
					t.Fatalf("beyond the limit: %+v", s)
				}
			default:
				p.forget(adapters[1+r.IntN(2)])
			}
			check()
		}
		for _, e := range running {
			p.put(e, false)
		}
		running = nil
		check()
		s := p.read()
		if s.InUse != 0 || s.Bytes > limit || s.Blocks != home.blocks {
			t.Fatalf("in the end %d blocks: %+v", home.blocks, s)
		}
		evicted += s.Evictions
		p.limit = 0
		p.evict()
		if home.blocks != 0 {
			t.Fatalf("%d blocks are held when all is forgotten", home.blocks)
		}
	})
	if chosen[true] == 0 || chosen[false] == 0 {
		t.Errorf("to be forgotten next: what is kept and what is not %v times", chosen)
	}
	if shared == 0 || rewritten == 0 || advanced == 0 || evicted == 0 || refused == 0 {
		t.Errorf("%d blocks shared, %d times another's taken, %d times gone on behind one, %d evicted, %d refused", shared, rewritten, advanced, evicted, refused)
	}
}

// eachNode calls each with the nodes of a cache.
func eachNode(p *prefixes, each func(n *node)) {
	var walk func(n *node)
	walk = func(n *node) {
		for _, c := range n.children {
			each(c)
			walk(c)
		}
	}
	for _, r := range p.tree.roots {
		walk(r)
	}
}

// recountOwners checks whose the blocks of a cache are, and their order.
func recountOwners(t interface{ Errorf(string, ...any) }, p *prefixes) {
	nodes, running, private := map[*owner]int{}, map[*owner]int{}, map[*owner]int{}
	owners := map[*owner]bool{&p.tree.others: true}
	for client, o := range p.tree.owners {
		if owners[o] = true; o.client != client {
			t.Errorf("%q has the blocks of %q", client, o.client)
		}
	}
	eachNode(p, func(n *node) {
		if nodes[n.owner]++; !owners[n.owner] || n.recency.Value.(*node) != n {
			t.Errorf("a node is %q's, who is not there, or not at its place", n.owner.client)
		}
	})
	for e := range p.running {
		running[e.owner]++
		private[e.owner] += e.private
		if !owners[e.owner] {
			t.Errorf("a sequence is %q's, who is not there", e.owner.client)
		}
	}
	for o := range owners {
		if o.recent.Len() != nodes[o] || o.running != running[o] || o.private != private[o] {
			t.Errorf("%q has %d blocks, %d sequences with %d blocks beside; counted %d, %d and %d", o.client, o.recent.Len(), o.running, o.private, nodes[o], running[o], private[o])
		}
		if o != &p.tree.others && nodes[o] == 0 && running[o] == 0 {
			t.Errorf("%q, who has nothing, is remembered", o.client)
		}
		for x := o.recent.Front(); x != nil && x.Next() != nil; x = x.Next() {
			if a, b := x.Value.(*node), x.Next().Value.(*node); a.used < b.used || a.used == b.used && a.used > 0 {
				t.Errorf("%q: a node used at %d is before one used at %d", o.client, a.used, b.used)
			}
		}
	}
}

// nextByDefinition returns the node to forget next.
func nextByDefinition(p *prefixes) (best *node) {
	blocks := map[*owner]int{}
	for e := range p.running {
		blocks[e.owner] += e.private
	}
	eachNode(p, func(n *node) { blocks[n.owner]++ })
	place := map[*node]int{} // among what was superseded, which has no time
	for i, x := 0, p.tree.others.recent.Back(); x != nil; i, x = i+1, x.Prev() {
		place[x.Value.(*node)] = i
	}
	rank := func(n *node) []int {
		if n.owner == &p.tree.others || p.now().Sub(n.typed) >= keptFor {
			return []int{0, int(n.used), place[n]}
		}
		return []int{1, -blocks[n.owner], int(n.used)}
	}
	eachNode(p, func(n *node) {
		if n.users == 0 && len(n.children) == 0 && (best == nil || slices.Compare(rank(n), rank(best)) < 0) {
			best = n
		}
	})
	return best
}

// whoseIs returns for whom a sequence runs.
func whoseIs(p *prefixes, e *entry) turn {
	if e.owner == &p.tree.others {
		return turn{class: Chat}
	}
	return turn{Interactive, e.owner.client}
}

// marked notes whose the blocks of a cache are. The function it returns checks them when a sequence for who has begun or settled: its blocks are
// its client's now, if that is typing, and what is kept for another stays as it is unless it is typed at again, forgotten for want of room, or
// one of those given, which the sequence itself has settled and may take back.
func marked(t *rapid.T, p *prefixes, who turn, own []*node) func(e *entry) {
	type mark struct {
		owner *owner
		used  uint64
		typed time.Time
	}
	of := func(n *node) mark { return mark{n.owner, n.used, n.typed} }
	before, clock, evictions := map[*node]mark{}, p.tree.clock, p.stats.Evictions
	eachNode(p, func(n *node) { before[n] = of(n) })
	kept := func(m mark) bool { return m.owner != &p.tree.others && p.now().Sub(m.typed) < keptFor }
	return func(e *entry) {
		there := map[*node]bool{}
		eachNode(p, func(n *node) { there[n] = true })
		for n, m := range before {
			switch {
			case !kept(m) || who.class == Interactive && m.owner.client == who.client:
			case !there[n]:
				if p.stats.Evictions == evictions && !slices.Contains(own, n) {
					t.Fatalf("for %v: a block kept for %q is gone", who, m.owner.client)
				}
			case of(n) != m && (who.class != Interactive || n.used <= clock):
				t.Fatalf("for %v: a block kept for %q is now %+v, was %+v", who, m.owner.client, of(n), m)
			}
		}
		if e == nil {
			return
		}
		for _, n := range e.path {
			m, known := before[n]
			switch {
			case known && n.used <= clock: // nothing was settled, or it is kept
				if own == nil && who.class != Interactive && !kept(m) && n.owner != &p.tree.others {
					t.Fatalf("for %v: a block that was kept for %q still is", who, n.owner.client)
				}
			case who.class != Interactive && n.owner != &p.tree.others,
				who.class == Interactive && (n.owner.client != who.client || n.owner == &p.tree.others || !n.typed.Equal(p.now())):
				t.Fatalf("for %v: a block is %q's, used at %v", who, n.owner.client, n.typed)
			}
		}
	}
}

// longestKnown returns how many tokens of prompt but the last are those of a path in the tree.
func longestKnown(p *prefixes, with *adapter, prompt []int32) (most int) {
	if len(prompt) == 0 {
		return 0
	}
	prompt = prompt[:len(prompt)-1]
	var walk func(n *node, before []int32)
	walk = func(n *node, before []int32) {
		for _, c := range n.children {
			all := slices.Concat(before, c.tokens)
			most = max(most, common(all, prompt))
			walk(c, all)
		}
	}
	if r := p.tree.roots[with.kind()]; r != nil {
		walk(r, nil)
	}
	return most
}

// TestPrefixKnown: every beginning of every prompt and its completion is known afterwards, whatever else was asked, as long as nothing
// is forgotten.
func TestPrefixKnown(t *testing.T) {
	m := randomModel(t, func(c *model.Config) { c.Positions, c.Layers, c.Embed, c.Inner = 900, 1, 16, 16 }, 1)
	e := NewEngine(m, EngineOptions{CacheBytes: 1 << 30})
	r := rand.New(rand.NewPCG(3, 1))
	file := randomIDs(r, m.vocab, 700)
	var texts [][]int32
	for _, n := range []int{650, 300, 520, 90, 700} {
		p := slices.Concat(file[:n], randomIDs(r, m.vocab, 40))
		texts = append(texts, slices.Concat(p, completed(t, e, Request{Prompt: Prompt{IDs: p}, MaxTokens: 30}).IDs))
	}
	for _, text := range texts {
		// The last token was generated, not evaluated.
		for _, n := range []int{1, 513, 512, 89, 511, 257, 2, 256, 255, len(text) - 1} {
			if n >= len(text) {
				continue
			}
			entry, err := e.cache.take(slices.Concat(text[:n], []int32{0}), n+1, nil, turn{})
			if err != nil {
				t.Fatal(err)
			}
			if got := entry.session.Len(); got != n {
				t.Errorf("%d of %d tokens are known", got, n)
			}
			e.cache.put(entry, true)
		}
	}
}

// TestPrefixSuperseded: what was known of versions of a file that somebody has typed over is forgotten before what others have asked.
func TestPrefixSuperseded(t *testing.T) {
	m := randomModel(t, func(c *model.Config) { c.Positions, c.Layers, c.Embed, c.Inner = 1200, 1, 16, 16 }, 1)
	r := rand.New(rand.NewPCG(3, 1))
	file, others, typed := randomIDs(r, m.vocab, 700), randomIDs(r, m.vocab, 400), randomIDs(r, m.vocab, 40)
	for name, cursor := range map[string]int{"at the end": 700, "in the middle": 450} {
		e := NewEngine(m, EngineOptions{CacheBytes: 10 * m.blockBytes})
		ask := func(ids []int32) Result { return completed(t, e, Request{Prompt: Prompt{IDs: ids}, MaxTokens: 20}) }
		ask(others)
		for i := range typed {
			ask(slices.Concat(file[:cursor], typed[:i], file[cursor:]))
		}
		if got := ask(others); got.Cached != len(others)-1 {
			t.Errorf("typing %s: %d of %d tokens of another prompt are known afterwards", name, got.Cached, len(others))
		}
		if s := e.CacheStats(); s.Evictions < 20 {
			t.Errorf("typing %s: %+v, expected more to be forgotten", name, s)
		}
		recount(t, e.cache)
		e.Close()
	}
}

// TestPrefixPublished: a call finds what another has evaluated of the same prompt before that is over.
func TestPrefixPublished(t *testing.T) {
	m := randomModel(t, func(c *model.Config) { c.Positions = 900 }, 2)
	e := NewEngine(m, EngineOptions{CacheBytes: -1})
	ids := randomIDs(rand.New(rand.NewPCG(4, 4)), m.vocab, 600)
	want, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: ids}, MaxTokens: 8, Logprobs: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := e.cache.take(ids, 620, nil, turn{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{200, 512, 590} {
		if _, err := first.session.Append(context.Background(), ids[first.session.Len():n]); err != nil {
			t.Fatal(err)
		}
		e.cache.settle(first)
		before := e.CacheStats().Blocks
		got := completed(t, e, Request{Prompt: Prompt{IDs: ids}, MaxTokens: 8, Logprobs: true})
		if got.Cached != n || !sameCompletion(got, want) {
			t.Errorf("%d tokens are settled, %d found", n, got.Cached)
		}
		recount(t, e.cache)
		if after := e.CacheStats().Blocks; after != before {
			t.Errorf("%d blocks before a call that is over, %d after", before, after)
		}
	}
	e.cache.put(first, false)
	if s := e.CacheStats(); s.Blocks != 0 {
		t.Errorf("%d blocks held", s.Blocks)
	}
}

// TestPrefixAdvance: of equal prompts that arrive together the whole blocks are evaluated once, and more of such calls have room at a time than would if
// each had memory of its own.
func TestPrefixAdvance(t *testing.T) {
	m := randomModel(t, func(c *model.Config) { c.Positions = 900 }, 2)
	ids := randomIDs(rand.New(rand.NewPCG(4, 4)), m.vocab, 600)
	req := Request{Prompt: Prompt{IDs: ids}, MaxTokens: 8, Logprobs: true}
	want, err := m.Generate(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := NewEngine(m, EngineOptions{Concurrency: 4, CacheBytes: -1})
	defer e.Close()
	e.room = 8 * m.blockBytes
	together := 0
	arrived := false
	e.looking = func() {
		for together = max(together, len(e.active)); !arrived; time.Sleep(time.Millisecond) {
			e.mu.Lock()
			arrived = len(e.calls) == 8
			e.mu.Unlock()
		}
	}
	var wg sync.WaitGroup
	results := make([]Result, 8)
	for i := range results {
		wg.Go(func() { results[i] = completed(failing{t}, e, req) })
	}
	wg.Wait()
	evaluated := 0
	for i, got := range results {
		if evaluated += len(ids) - got.Cached; !sameCompletion(got, want) {
			t.Errorf("call %d with %d tokens cached: %v, expected %v", i, got.Cached, got.IDs, want.IDs)
		}
	}
	if evaluated > len(ids)+7*(len(ids)-512) {
		t.Errorf("%d tokens of 8 prompts of %d were evaluated", evaluated, len(ids))
	}
	if together != 4 {
		t.Errorf("%d calls ran at a time, expected 4: they take %d blocks of %d that share two", together, 4*m.blocksFor(608), m.blocksFor(608))
	}
	if s := e.Stats(); s.PromptTokens != int64(evaluated) || s.CachedTokens+s.PromptTokens != int64(8*len(ids)) {
		t.Errorf("%d tokens evaluated: %+v", evaluated, s)
	}
}
