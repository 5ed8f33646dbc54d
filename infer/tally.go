package infer

import "slices"

// claim is the memory that a sequence takes: blocks that others may take too, and others.
type claim struct {
	shared []*node
	own    int
}

// claim returns what a running sequence takes.
func (p *prefixes) claim(e *entry) claim {
	p.mu.Lock()
	defer p.mu.Unlock()
	return claim{slices.Clone(e.path), e.private}
}

// claimNew returns what a sequence would take that begins with prompt and has room for total tokens.
func (p *prefixes) claimNew(prompt []int32, total int, with *adapter) claim {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, path, found := p.find(prompt, with)
	path = path[:found/p.m.blockTokens]
	return claim{path, max(0, p.m.blocksFor(total)-len(path))}
}

// kept returns the memory of the blocks that are kept for who types, but for those of running sequences: none where these have memory of
// their own.
func (p *prefixes) kept() int64 {
	if p.m.card != nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size(p.tree.idle(p.now()))
}

// tally adds up claims, each shared block once.
type tally struct {
	p      *prefixes
	seen   map[*node]bool
	blocks int
}

func (p *prefixes) tally() *tally { return &tally{p: p, seen: map[*node]bool{}} }

// with returns the memory of all that was added and c.
func (t *tally) with(c claim) int64 {
	n := t.blocks + c.own
	for _, x := range c.shared {
		if !t.seen[x] {
			n++
		}
	}
	return t.p.size(n)
}

func (t *tally) add(c claim) {
	t.blocks += c.own
	for _, x := range c.shared {
		if !t.seen[x] {
			t.seen[x] = true
			t.blocks++
		}
	}
}
