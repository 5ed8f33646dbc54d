package infer

import (
	"cmp"
	"container/list"
	"slices"
	"time"
)

// keptFor is how long what somebody has used while typing outlives what requests of lower classes use.
const keptFor = 10 * time.Minute

// node is a block of a prefixTree: tokens, at least one, that follow those of its parents, and their keys and values.
type node struct {
	tokens   []int32
	block    *block  // which the tree holds
	parent   *node   // nil: this is a root, which has no block
	children []*node // in the order of their tokens, no two the same; of full blocks and roots only
	users    int     // running sequences that hold the block

	owner   *owner
	recency *list.Element // of owner.recent
	used    uint64        // when, on prefixTree.clock; 0: it was superseded
	typed   time.Time     // when an interactive request of its owner used it
}

// owner is the client whose interactive requests have used blocks last, or others.
type owner struct {
	client  string
	recent  list.List // of *node, the latest used first
	running int       // sequences
	private int       // their blocks that are not in the tree
}

func (o *owner) blocks() int { return o.recent.Len() + o.private }

// prefixTree holds the blocks of sequences by their tokens, those of different kinds apart. A child of a node begins with the first
// token of a new block, so that children may begin alike: among sorted ones the longest common beginning is found by a search.
//
// What is forgotten first is what no interactive request has used for keptFor, the least recently used before others; then comes what is
// kept of the client who has most, again the least recently used. So who types finds what he left, whatever Chat and Background requests
// have asked since, and no client's typing takes more than its share from another's.
type prefixTree struct {
	full   int               // tokens of a block
	roots  map[uint64]*node  // by kind
	owners map[string]*owner // that have blocks or sequences, by client
	others owner             // of what requests of lower classes have used, and of what was superseded
	clock  uint64            // uses of nodes
	nodes  int
	pinned int // nodes with users
}

func newPrefixTree(full int) *prefixTree {
	return &prefixTree{full: full, roots: map[uint64]*node{}, owners: map[string]*owner{}}
}

// owner returns whose the blocks are that a request uses.
func (t *prefixTree) owner(who turn) *owner {
	if who.class != Interactive {
		return &t.others
	}
	o := t.owners[who.client]
	if o == nil {
		o = &owner{client: who.client}
		t.owners[who.client] = o
	}
	return o
}

// release forgets an owner who has nothing.
func (t *prefixTree) release(o *owner) {
	if o.running == 0 && o.recent.Len() == 0 && o != &t.others {
		delete(t.owners, o.client)
	}
}

// kept says that n outlives what requests of lower classes use.
func (t *prefixTree) kept(n *node, now time.Time) bool {
	return n.owner != &t.others && now.Sub(n.typed) < keptFor
}

// keptFrom says that n is kept for somebody else than o.
func (t *prefixTree) keptFrom(o *owner, n *node, now time.Time) bool {
	return n.owner != o && t.kept(n, now)
}

// root returns the root of a kind.
func (t *prefixTree) root(kind uint64) *node {
	r := t.roots[kind]
	if r == nil {
		r = &node{}
		t.roots[kind] = r
	}
	return r
}

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

// search returns where among n's children one with these tokens is or belongs.
func (n *node) search(tokens []int32) (at int, found bool) {
	return slices.BinarySearchFunc(n.children, tokens, func(c *node, tokens []int32) int { return slices.Compare(c.tokens, tokens) })
}

// find returns the nodes after root with the longest beginning of tokens, and its length. Of the last node's tokens only some may be
// among them.
func (t *prefixTree) find(root *node, tokens []int32) (path []*node, length int) {
	for at := root; ; {
		best, most := at.longest(tokens[length:])
		if most == 0 {
			return path, length
		}
		path, length = append(path, best), length+most
		if most < t.full {
			return path, length
		}
		at = best
	}
}

// longest returns the child that most of tokens begin, and how many; of several that are as good a free one. They are beside the place
// where tokens belong.
func (n *node) longest(tokens []int32) (best *node, most int) {
	i, _ := n.search(tokens)
	look := func(c *node) bool {
		k := common(c.tokens, tokens)
		if k > most || k == most && k > 0 && c.free(k) {
			best, most = c, k
		}
		return k > 0 && k == most
	}
	for j := i; j < len(n.children) && look(n.children[j]); j++ {
	}
	for j := i - 1; j >= 0 && look(n.children[j]); j-- {
	}
	return best, most
}

// free says that n's first k tokens are all it has, and that nobody else has them.
func (n *node) free(k int) bool { return n.users == 0 && len(n.children) == 0 && k == len(n.tokens) }

// idle returns how many nodes are kept that no running sequence holds.
func (t *prefixTree) idle(now time.Time) (count int) {
	for _, o := range t.owners {
		for e := o.recent.Front(); e != nil && t.kept(e.Value.(*node), now); e = e.Next() {
			if e.Value.(*node).users == 0 {
				count++
			}
		}
	}
	return count
}

// supersede makes n, of which a sequence of o's takes the first k tokens and goes on otherwise, and all behind it the first to be forgotten, if
// nobody uses them, none is kept for another, and they hold no more tokens beside than the most given: it is likely that the sequence is
// another version of theirs. It reports whether it did.
func (t *prefixTree) supersede(n *node, k, most int, o *owner, now time.Time) bool {
	var chain []*node
	var walk func(n *node) bool
	walk = func(n *node) bool {
		chain, most = append(chain, n), most-len(n.tokens)
		return n.users == 0 && !t.keptFrom(o, n, now) && most >= 0 && !slices.ContainsFunc(n.children, func(c *node) bool { return !walk(c) })
	}
	if most += k; !walk(n) {
		return false
	}
	for _, n := range chain { // parents first
		t.leaveOwner(n)
		n.owner, n.used = &t.others, 0
		n.recency = t.others.recent.PushBack(n)
	}
	return true
}

// insert adds a node with the tokens, which are copied, as the i-th child of parent, and holds b. It is others' until it is touched.
func (t *prefixTree) insert(parent *node, i int, tokens []int32, b *block) *node {
	n := &node{tokens: slices.Clone(tokens), block: b.hold(), parent: parent, owner: &t.others}
	parent.children = slices.Insert(parent.children, i, n)
	n.recency = t.others.recent.PushFront(n)
	t.nodes++
	return n
}

// remove takes a node without children out of the tree and gives its block back.
func (t *prefixTree) remove(n *node) {
	i, _ := n.parent.search(n.tokens)
	n.parent.children = slices.Delete(n.parent.children, i, i+1)
	t.drop(n)
}

func (t *prefixTree) drop(n *node) {
	t.leaveOwner(n)
	t.nodes--
	if n.users > 0 {
		t.pinned--
	}
	n.block.drop()
}

func (t *prefixTree) leaveOwner(n *node) {
	n.owner.recent.Remove(n.recency)
	t.release(n.owner)
}

// removeRoot removes everything of a kind.
func (t *prefixTree) removeRoot(kind uint64) {
	var all func(n *node)
	all = func(n *node) {
		for _, c := range n.children {
			all(c)
			t.drop(c)
		}
	}
	if r := t.roots[kind]; r != nil {
		all(r)
		delete(t.roots, kind)
	}
}

// use and leave count a running sequence that holds n's block.
func (t *prefixTree) use(n *node) {
	if n.users++; n.users == 1 {
		t.pinned++
	}
}

func (t *prefixTree) leave(n *node) {
	if n.users--; n.users == 0 {
		t.pinned--
	}
}

// touch makes the nodes of a path the latest that o has used. What is kept for a client stays as it is when a request of a lower class uses it.
func (t *prefixTree) touch(path []*node, o *owner, now time.Time) {
	for _, n := range slices.Backward(path) {
		if o == &t.others && t.kept(n, now) {
			continue
		}
		if n.owner == o {
			o.recent.MoveToFront(n.recency)
		} else {
			t.leaveOwner(n)
			n.owner, n.recency = o, o.recent.PushFront(n)
		}
		t.clock++
		n.used, n.typed = t.clock, now
	}
}

// next returns the node to forget next: one without users and children. nil: there is none.
func (t *prefixTree) next(now time.Time) *node {
	best := t.others.oldest()
	for _, o := range t.owners {
		if n := o.oldest(); n != nil && (best == nil || t.before(n, best, now)) {
			best = n
		}
	}
	return best
}

// before says that a is forgotten before b; both are the oldest of their owners.
func (t *prefixTree) before(a, b *node, now time.Time) bool {
	switch x, y := t.kept(a, now), t.kept(b, now); {
	case x != y:
		return y
	case x:
		return cmp.Or(cmp.Compare(b.owner.blocks(), a.owner.blocks()), cmp.Compare(a.used, b.used)) < 0
	}
	return a.used < b.used
}

// oldest returns the least recently used node that can be removed, nil if there is none.
func (o *owner) oldest() *node {
	for e := o.recent.Back(); e != nil; e = e.Prev() {
		if n := e.Value.(*node); n.users == 0 && len(n.children) == 0 {
			return n
		}
	}
	return nil
}
