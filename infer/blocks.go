package infer

import (
	"sync"
	"sync/atomic"
)

// block is the memory of the keys and values of Model.blockTokens consecutive tokens in all layers. Sequences that begin alike hold the
// same blocks; a token's place in a block is written by one sequence, before any other reads it.
type block struct {
	home    blockHome
	holders atomic.Int32
	words   []uint32 // on the processor: of the layers one after the other
	page    int32    // on a card
}

// blockHome takes blocks back that nobody holds.
type blockHome interface{ takeBack(b *block) }

// hold counts one more holder.
func (b *block) hold() *block {
	b.holders.Add(1)
	return b
}

// drop counts one less. The last gives the memory back.
func (b *block) drop() {
	switch n := b.holders.Add(-1); {
	case n == 0:
		b.home.takeBack(b)
	case n < 0:
		panic("infer: a block of keys and values was given back twice")
	}
}

// blocksFor returns how many blocks hold n tokens.
func (m *Model) blocksFor(n int) int { return (n + m.blockTokens - 1) / m.blockTokens }

// cacheBytes returns the memory of the blocks of n tokens.
func (m *Model) cacheBytes(n int) int64 { return int64(m.blocksFor(n)) * m.blockBytes }

// blockPool keeps the processor's blocks that nobody holds, to be used again.
type blockPool struct {
	mu   sync.Mutex
	idle []*block
	most int // of idle
}

// get returns a block of the given size that the caller holds. Its contents are what was left in it.
func (p *blockPool) get(words int) *block {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := &block{home: p}
	if n := len(p.idle); n > 0 {
		b, p.idle[n-1] = p.idle[n-1], nil
		p.idle = p.idle[:n-1]
	}
	if b.words == nil {
		b.words = make([]uint32, words)
	}
	return b.hold()
}

func (p *blockPool) takeBack(b *block) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) < p.most {
		p.idle = append(p.idle, b)
	}
}

// keep sets how many blocks are kept for later.
func (p *blockPool) keep(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = n
	if n < len(p.idle) {
		clear(p.idle[n:])
		p.idle = p.idle[:n]
	}
}
