package tokenizer

import "math"

// merge says that the tokens left and right, side by side, become the token result.
type merge struct{ left, right, result int32 }

// maxMerges keeps a rank within the 24 bits that a queue key has for it.
const maxMerges = 1<<24 - 1

// noRank is the rank of a pair that does not merge.
const noRank = math.MaxUint32

// mergeTable finds the rank (position in the file: lower merges first) and the result of a pair of tokens. It is an
// open-addressing hash table at most half full: several times faster than a Go map, and this look-up is where encoding
// of unseen words spends its time.
type mergeTable struct {
	slots []mergeSlot
	shift uint8
}

type mergeSlot struct {
	key    uint64 // left<<32 | right, or emptySlot
	rank   uint32
	result int32
}

const emptySlot = math.MaxUint64

func newMergeTable(n int) mergeTable {
	bits := uint8(4)
	for 1<<bits < 2*n {
		bits++
	}
	t := mergeTable{slots: make([]mergeSlot, 1<<bits), shift: 64 - bits}
	for i := range t.slots {
		t.slots[i].key = emptySlot
	}
	return t
}

func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

func (t *mergeTable) home(key uint64) uint64 {
	key ^= key >> 32
	return key * 0x9E3779B97F4A7C15 >> t.shift
}

// put records m; when the pair is already there the later rank wins, as in the reference implementation.
func (t *mergeTable) put(m merge, rank uint32) {
	key := pairKey(m.left, m.right)
	mask := uint64(len(t.slots) - 1)
	i := t.home(key)
	for t.slots[i].key != emptySlot && t.slots[i].key != key {
		i = (i + 1) & mask
	}
	t.slots[i] = mergeSlot{key, rank, m.result}
}

func (t *mergeTable) get(left, right int32) (rank uint32, result int32) {
	key := pairKey(left, right)
	mask := uint64(len(t.slots) - 1)
	for i := t.home(key); ; i = (i + 1) & mask {
		s := &t.slots[i&mask]
		if s.key == key {
			return s.rank, s.result
		}
		if s.key == emptySlot {
			return noRank, 0
		}
	}
}

// longWord is the number of symbols from which a word is merged with a queue: finding each merge by looking at all
// pairs is faster for short words but quadratic.
const longWord = 96

// merger is the working memory of the merging of one word. The symbols of a word are merged lowest rank first,
// leftmost first among equals, until no pair of neighbours has a rank.
type merger struct {
	symbol []int32  // token
	rank   []uint32 // of the pair this symbol starts
	result []int32  // of that pair

	// Only for long words: the symbols are a linked list, the pairs a binary heap.
	prev, next []int32
	queue      []uint64 // rank<<40 | position, smallest first
}

// word appends the tokens of w. bytes gives the token of each byte, -1 for a byte that the vocabulary lacks.
func (m *merger) word(dst []int32, w string, bytes *[256]int32, table *mergeTable) []int32 {
	m.symbol = m.symbol[:0]
	for i := range len(w) {
		if id := bytes[w[i]]; id >= 0 {
			m.symbol = append(m.symbol, id)
		}
	}
	if len(m.symbol) < 2 {
		return append(dst, m.symbol...)
	}
	m.rank, m.result = m.rank[:0], m.result[:0]
	for i := range len(m.symbol) - 1 {
		r, id := table.get(m.symbol[i], m.symbol[i+1])
		m.rank, m.result = append(m.rank, r), append(m.result, id)
	}
	m.rank, m.result = append(m.rank, noRank), append(m.result, 0)
	if len(m.symbol) >= longWord {
		return m.long(dst, table)
	}
	return m.short(dst, table)
}

func (m *merger) short(dst []int32, table *mergeTable) []int32 {
	symbol, rank, result := m.symbol, m.rank, m.result
	for {
		best, at := uint32(noRank), -1
		for i, r := range rank {
			if r < best {
				best, at = r, i
			}
		}
		if at < 0 {
			return append(dst, symbol...)
		}
		symbol[at] = result[at]
		copy(symbol[at+1:], symbol[at+2:])
		copy(rank[at+1:], rank[at+2:])
		copy(result[at+1:], result[at+2:])
		n := len(symbol) - 1
		symbol, rank, result = symbol[:n], rank[:n], result[:n]
		rank[at] = noRank
		if at+1 < n {
			rank[at], result[at] = table.get(symbol[at], symbol[at+1])
		}
		if at > 0 {
			rank[at-1], result[at-1] = table.get(symbol[at-1], symbol[at])
		}
	}
}

// long does the same with a queue, in O(n log n). An entry of the queue is out of date when the rank at its position
// is no longer the entry's: a position's pair never gets the same rank twice, since its left token grows.
func (m *merger) long(dst []int32, table *mergeTable) []int32 {
	const positionBits = 40
	n := len(m.symbol)
	m.prev, m.next, m.queue = m.prev[:0], m.next[:0], m.queue[:0]
	for i := range n {
		m.prev, m.next = append(m.prev, int32(i-1)), append(m.next, int32(i+1))
		if r := m.rank[i]; r != noRank {
			m.queue = append(m.queue, uint64(r)<<positionBits|uint64(i))
		}
	}
	q := heap(m.queue)
	q.init()
	update := func(i int32) {
		m.rank[i] = noRank
		if j := m.next[i]; int(j) < n {
			if m.rank[i], m.result[i] = table.get(m.symbol[i], m.symbol[j]); m.rank[i] != noRank {
				q.push(uint64(m.rank[i])<<positionBits | uint64(i))
			}
		}
	}
	for len(q) > 0 {
		top := q.pop()
		i := int32(top & (1<<positionBits - 1))
		if uint64(m.rank[i]) != top>>positionBits {
			continue
		}
		j := m.next[i]
		m.symbol[i] = m.result[i]
		m.rank[j] = noRank
		m.next[i] = m.next[j]
		if int(m.next[i]) < n {
			m.prev[m.next[i]] = i
		}
		update(i)
		if m.prev[i] >= 0 {
			update(m.prev[i])
		}
	}
	for i := int32(0); int(i) < n; i = m.next[i] {
		dst = append(dst, m.symbol[i])
	}
	m.queue = q
	return dst
}

// trim gives back the working memory that an extraordinarily long word needed.
func (m *merger) trim() {
	const keep = 1 << 16
	if cap(m.symbol) > keep || cap(m.queue) > keep {
		*m = merger{}
	}
}

// heap is a binary min-heap of keys. container/heap would call through an interface for every comparison.
type heap []uint64

func (h heap) init() {
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h *heap) push(x uint64) {
	*h = append(*h, x)
	s := *h
	i := len(s) - 1
	for i > 0 {
		p := (i - 1) / 2
		if s[p] <= x {
			break
		}
		s[i] = s[p]
		i = p
	}
	s[i] = x
}

func (h *heap) pop() uint64 {
	s := *h
	top := s[0]
	n := len(s) - 1
	s[0] = s[n]
	*h = s[:n]
	if n > 0 {
		s[:n].down(0)
	}
	return top
}

func (h heap) down(i int) {
	x := h[i]
	for {
		c := 2*i + 1
		if c >= len(h) {
			break
		}
		if c+1 < len(h) && h[c+1] < h[c] {
			c++
		}
		if x <= h[c] {
			break
		}
		h[i] = h[c]
		i = c
	}
	h[i] = x
}
