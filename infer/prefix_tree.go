package infer

import (
	"container/list"
	"slices"
)

// node is a block of a prefixTree: tokens, at least one, that follow those of its parents, and their keys and values.
type node struct {
	tokens   []int32
	block    *block  // which the tree holds
	parent   *node   // nil: this is a root, which has no block
	children []*node // in the order of their tokens, no two the same; of full blocks and roots only
	users    int     // running sequences that hold the block
	recency  *list.Element
}

// prefixTree holds the blocks of sequences by their tokens, those of different kinds apart. A child of a node begins with the first
// token of a new block, so that children may begin alike: among sorted ones the longest common beginning is found by a search.
type prefixTree struct {
	full   int              // tokens of a block
	roots  map[uint64]*node // by kind
	recent list.List        // of *node, the latest used first; none is before its parent
	nodes  int
	pinned int // nodes with users
}

func newPrefixTree(full int) *prefixTree { return &prefixTree{full: full, roots: map[uint64]*node{}} }

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

// supersede makes n, of which a sequence takes the first k tokens and goes on otherwise, and all behind it the first to be forgotten, if
// nobody uses them and they hold no more tokens beside than the most given: it is likely that the sequence is another version of theirs.
// It reports whether it did.
func (t *prefixTree) supersede(n *node, k, most int) bool {
	var chain []*node
	var walk func(n *node) bool
	walk = func(n *node) bool {
		chain, most = append(chain, n), most-len(n.tokens)
		return n.users == 0 && most >= 0 && !slices.ContainsFunc(n.children, func(c *node) bool { return !walk(c) })
	}
	if most += k; !walk(n) {
		return false
	}
	for _, n := range chain { // parents first
		t.recent.MoveToBack(n.recency)
	}
	return true
}

// insert adds a node with the tokens, which are copied, as the i-th child of parent, and holds b.
func (t *prefixTree) insert(parent *node, i int, tokens []int32, b *block) *node {
	n := &node{tokens: slices.Clone(tokens), block: b.hold(), parent: parent}
	parent.children = slices.Insert(parent.children, i, n)
	n.recency = t.recent.PushFront(n)
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
	t.recent.Remove(n.recency)
	t.nodes--
	if n.users > 0 {
		t.pinned--
	}
	n.block.drop()
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

// touch makes the nodes of a path the latest used.
func (t *prefixTree) touch(path []*node) {
	for _, n := range slices.Backward(path) {
		t.recent.MoveToFront(n.recency)
	}
}

// oldest returns the least recently used node that can be removed: without users and, as none is before its parent, without children. nil: there
// is none.
func (t *prefixTree) oldest() *node {
	for e := t.recent.Back(); e != nil; e = e.Prev() {
		if n := e.Value.(*node); n.users == 0 && len(n.children) == 0 {
			return n
		}
	}
	return nil
}
