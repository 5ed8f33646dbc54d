package cpu

import "fmt"

// Cache holds the keys and values of one layer of one sequence. It grows by blocks of 256 tokens that are never moved. It is
// for one goroutine at a time.
type Cache struct {
	layout layout
	heads  int
	blocks [][]uint32 // of heads·layout.words each
}

// NewCache returns a cache without room.
func NewCache(f CacheFormat, kvHeads, headDim int) *Cache {
	if f >= cacheFormatEnd || kvHeads < 1 || headDim < 1 {
		panic(fmt.Sprintf("cpu: cache of %d key heads of %d, format %v", kvHeads, headDim, f))
	}
	return &Cache{layout: layout{f, headDim}, heads: kvHeads}
}

// Format returns how keys and values are kept.
func (c *Cache) Format() CacheFormat { return c.layout.format }

// Grow makes room for at least the given number of tokens and keeps the contents.
func (c *Cache) Grow(tokens int) {
	for c.Capacity() < tokens {
		c.blocks = append(c.blocks, make([]uint32, c.heads*c.layout.words()))
	}
}

// Capacity returns the number of tokens there is room for.
func (c *Cache) Capacity() int { return len(c.blocks) * keyBlock }

// Bytes returns the memory in use.
func (c *Cache) Bytes() int { return len(c.blocks) * 4 * c.heads * c.layout.words() }

// BytesPerToken returns the memory that one token takes.
func (c *Cache) BytesPerToken() int { return 4 * c.heads * c.layout.words() / keyBlock }

// CopyPrefix makes the first tokens those of from, which has at least as many and the same format and heads, and grows as
// needed. The caches share no memory afterwards. Of from it reads these tokens alone: others may be written meanwhile.
func (c *Cache) CopyPrefix(from *Cache, tokens int) {
	if c.layout != from.layout || c.heads != from.heads || tokens > from.Capacity() {
		panic(fmt.Sprintf("cpu: prefix of %d tokens from a cache of %d tokens, %d key heads of %d, %v, into one of %d key heads of %d, %v",
			tokens, from.Capacity(), from.heads, from.layout.dim, from.layout.format, c.heads, c.layout.dim, c.layout.format))
	}
	c.Grow(tokens)
	for j := range (tokens + keyBlock - 1) / keyBlock {
		for g := range c.heads {
			c.layout.copyTokens(c.block(j, g), from.block(j, g), min(keyBlock, tokens-j*keyBlock))
		}
	}
}

// block returns key head g's part of block j.
func (c *Cache) block(j, g int) []uint32 {
	return c.blocks[j][g*c.layout.words():][:c.layout.words()]
}
