package pack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"autodev/internal/rng"
)

// Shuffled hands out the windows of another Windows in blocks of a fixed number, each block permuted. A long document fills many
// windows in a row; read in that order, step after step would learn from one document. The permutation depends on the seed and the
// number of windows before the block.
type Shuffled struct {
	inner Windows
	size  int
	seed  uint64

	before []byte // state of inner before the block; nil before the first
	block  []counted
	order  []int // permutation of block; nil until it is whole
	index  int   // of the next window in order
	skip   int   // windows of the coming block that were returned before Restore
	stats  Stats
	end    error // of inner after the block
}

// counted is a window with what inner's Stats grew by for it.
type counted struct {
	window Window
	stats  Stats
}

// NewShuffled permutes blocks of size windows. Closing it closes inner.
func NewShuffled(inner Windows, size int, seed uint64) (*Shuffled, error) {
	if size < 2 {
		return nil, fmt.Errorf("shuffle blocks of %d windows: expected at least 2", size)
	}
	return &Shuffled{inner: inner, size: size, seed: seed}, nil
}

// Next implements Windows. An error in the middle of a block comes after the windows before it, like the end.
func (s *Shuffled) Next(ctx context.Context) (Window, error) {
	if s.order != nil && s.index == len(s.order) {
		if s.end != nil {
			return Window{}, s.end
		}
		s.before, s.block, s.order, s.index = nil, s.block[:0], nil, 0
	}
	if s.order == nil {
		if err := s.fill(ctx); err != nil {
			return Window{}, err
		}
	}
	if s.index == len(s.order) {
		return Window{}, s.end
	}
	c := &s.block[s.order[s.index]]
	s.index++
	s.stats = s.stats.plus(c.stats)
	w := c.window
	c.window = Window{}
	return w, nil
}

// fill reads a block. An interrupted call goes on where it was.
func (s *Shuffled) fill(ctx context.Context) error {
	if s.before == nil {
		var err error
		if s.before, err = s.inner.State(); err != nil {
			return err
		}
	}
	for len(s.block) < s.size && s.end == nil {
		last := s.inner.Stats()
		w, err := s.inner.Next(ctx)
		if err != nil {
			if ctx.Err() != nil && !errors.Is(err, io.EOF) {
				return err
			}
			s.end = err
			if n := len(s.block); n > 0 {
				// Documents without a window of their own count with the last one.
				s.block[n-1].stats = s.block[n-1].stats.plus(s.inner.Stats().minus(last))
			}
			break
		}
		s.block = append(s.block, counted{w, s.inner.Stats().minus(last)})
	}
	if s.skip > len(s.block) {
		return fmt.Errorf("data: resume at window %d of a shuffle block of %d: the data changed", s.skip, len(s.block))
	}
	before := s.stats.Windows - int64(s.skip)
	s.order = rng.New(s.seed, "shuffle windows", uint64(before)).Perm(len(s.block))
	for ; s.index < s.skip; s.index++ {
		s.block[s.order[s.index]].window = Window{}
	}
	s.skip = 0
	return nil
}

// plus adds counts; the epoch is the later one.
func (s Stats) plus(d Stats) Stats {
	return Stats{
		Windows: s.Windows + d.Windows, Scored: s.Scored + d.Scored, Padding: s.Padding + d.Padding,
		Documents: s.Documents + d.Documents, Epoch: max(s.Epoch, d.Epoch),
	}
}

// minus is what was added to d, with the epoch of s.
func (s Stats) minus(d Stats) Stats {
	return Stats{
		Windows: s.Windows - d.Windows, Scored: s.Scored - d.Scored, Padding: s.Padding - d.Padding,
		Documents: s.Documents - d.Documents, Epoch: s.Epoch,
	}
}

// shuffledState is what Shuffled.State writes.
type shuffledState struct {
	Version int             `json:"version"`
	Size    int             `json:"size"`
	Seed    uint64          `json:"seed"`
	Index   int             `json:"index"` // of the next window in the permuted block
	Stats   Stats           `json:"stats"`
	Block   json.RawMessage `json:"block"` // inner's state before the block
}

// State implements Windows.
func (s *Shuffled) State() ([]byte, error) {
	st := shuffledState{Version: stateVersion, Size: s.size, Seed: s.seed, Index: max(s.index, s.skip), Stats: s.stats, Block: s.before}
	if s.before == nil || s.order != nil && s.index == len(s.order) && s.end == nil {
		var err error
		if st.Block, err = s.inner.State(); err != nil {
			return nil, err
		}
		if s.before != nil {
			st.Index = 0
		}
	}
	return json.Marshal(st)
}

// Restore implements Windows.
func (s *Shuffled) Restore(state []byte) error {
	var st shuffledState
	if err := decodeState(state, &st); err != nil {
		return fmt.Errorf("data stream state: %w", err)
	}
	switch {
	case st.Version != stateVersion:
		return fmt.Errorf("data stream state: version %d, expected %d", st.Version, stateVersion)
	case st.Size != s.size || st.Seed != s.seed:
		return fmt.Errorf("data stream state: it belongs to shuffle blocks of %d windows and seed %d, expected %d and %d", st.Size, st.Seed, s.size, s.seed)
	case st.Index < 0 || st.Index > st.Size:
		return fmt.Errorf("data stream state: window %d of a shuffle block of %d", st.Index, st.Size)
	}
	if err := s.inner.Restore(st.Block); err != nil {
		return err
	}
	s.before, s.block, s.order, s.index, s.end = nil, nil, nil, 0, nil
	s.skip, s.stats = st.Index, st.Stats
	return nil
}

// Stats implements Windows.
func (s *Shuffled) Stats() Stats { return s.stats }

// Close implements Windows.
func (s *Shuffled) Close() error { return s.inner.Close() }
