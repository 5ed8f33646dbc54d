package cpu

import "fmt"

// BlockTokens is how many tokens a block of a Cache holds.
const BlockTokens = keyBlock

// Cache holds the keys and values of one layer of one sequence, in blocks of 256 tokens that are never moved and that several
// caches may share. It is for one goroutine at a time.
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
		c.blocks = append(c.blocks, make([]uint32, c.BlockWords()))
	}
}

// Capacity returns the number of tokens there is room for.
func (c *Cache) Capacity() int { return len(c.blocks) * keyBlock }

// Bytes returns the memory in use.
func (c *Cache) Bytes() int { return len(c.blocks) * 4 * c.BlockWords() }

// BytesPerToken returns the memory that one token takes.
func (c *Cache) BytesPerToken() int { return 4 * c.BlockWords() / keyBlock }

// BlockWords returns the size of a block.
func (c *Cache) BlockWords() int { return c.heads * c.layout.words() }

// Block returns block j: the keys and values of the tokens from BlockTokens·j on.
func (c *Cache) Block(j int) []uint32 { return c.blocks[j] }

// Add makes room for BlockTokens tokens more in block, of BlockWords words, which may hold some that a cache of the same format and
// heads has written at the same place. Caches may share a block as long as none of them writes a token that another reads.
func (c *Cache) Add(block []uint32) {
	c.check(block)
	c.blocks = append(c.blocks, block)
}

// Replace puts block, which holds the same tokens, in the place of block j.
func (c *Cache) Replace(j int, block []uint32) {
	c.check(block)
	c.blocks[j] = block
}

// CopyTokens makes the first tokens of block j those of another. Of that it reads these tokens alone: others may be written
// meanwhile.
func (c *Cache) CopyTokens(j int, from []uint32, tokens int) {
	c.check(from)
	if tokens < 0 || tokens > keyBlock {
		panic(fmt.Sprintf("cpu: %d tokens of a block of %d", tokens, keyBlock))
	}
	for g := range c.heads {
		at := g * c.layout.words()
		c.layout.copyTokens(c.block(j, g), from[at:][:c.layout.words()], tokens)
	}
}

func (c *Cache) check(block []uint32) {
	if len(block) != c.BlockWords() {
		panic(fmt.Sprintf("cpu: a block of %d words, expected %d", len(block), c.BlockWords()))
	}
}

// block returns key head g's part of block j.
func (c *Cache) block(j, g int) []uint32 {
	return c.blocks[j][g*c.layout.words():][:c.layout.words()]
}
