package tokenizer

import "math/bits"

// wordCache remembers the tokens of words seen lately. It is direct-mapped and of fixed size, belongs to one call at a
// time, and only ever changes the speed of an encoding. An entry is one cache line.
type wordCache struct {
	entries [1 << cacheBits]cacheEntry
}

const (
	cacheBits      = 15 // 2 MiB
	cacheWordBytes = 32 // longest word remembered
	cacheWordIDs   = 6  // most tokens remembered
)

type cacheEntry struct {
	key wordKey
	ids [cacheWordIDs]int32
	n   uint8
}

// wordKey is the content of a word of 1 to cacheWordBytes bytes: its 8-byte pieces, the last two overlapping those
// before, and its length, which together determine it.
type wordKey struct {
	a, b, c, d uint64
	size       uint8
}

func keyOf(w string) wordKey {
	n := len(w)
	k := wordKey{size: uint8(n)}
	switch {
	case n > 16:
		k.a, k.b, k.c, k.d = load64(w), load64(w[8:]), load64(w[n-16:]), load64(w[n-8:])
	case n >= 8:
		k.a, k.b = load64(w), load64(w[n-8:])
	case n >= 4:
		k.a = uint64(load32(w))<<32 | uint64(load32(w[n-4:]))
	default:
		k.a = uint64(w[0])<<16 | uint64(w[n/2])<<8 | uint64(w[n-1])
	}
	return k
}

// equal is ==, which compiles to a slower comparison of memory.
func (k *wordKey) equal(o *wordKey) bool {
	return k.a == o.a && k.b == o.b && k.size == o.size && (k.size <= 16 || k.c == o.c && k.d == o.d)
}

func load64(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

func load32(s string) uint32 {
	_ = s[3]
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

func (k *wordKey) slot() uint64 {
	const m1, m2 = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93
	h := (k.a ^ uint64(k.size)<<56) * m1
	if k.size >= 8 {
		h = (h ^ h>>32 ^ k.b) * m2
		if k.size > 16 {
			h = (h ^ h>>32 ^ k.c) * m1
			h = (h ^ h>>32 ^ bits.RotateLeft64(k.d, 17)) * m2
		}
	}
	h ^= h >> 32
	return h * m1 >> (64 - cacheBits)
}
