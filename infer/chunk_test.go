package infer

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"autodev/model"
)

// TestFirstChunk: as few chunks as the longest allows, which are no longer and differ by one at most.
func TestFirstChunk(t *testing.T) {
	for _, c := range []struct{ n, most, want int }{{1, 192, 1}, {192, 192, 192}, {193, 192, 97}, {512, 512, 512}, {513, 512, 257}, {1300, 512, 434}, {1300, 414, 325}} {
		if got := firstChunk(c.n, c.most); got != c.want {
			t.Errorf("%d tokens, at most %d: %d, expected %d", c.n, c.most, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n, most := rapid.IntRange(1, 5000).Draw(t, "n"), rapid.IntRange(1, 600).Draw(t, "most")
		var chunks []int
		for left := n; left > 0; left -= chunks[len(chunks)-1] {
			chunks = append(chunks, firstChunk(left, most))
		}
		if fewest := (n + most - 1) / most; len(chunks) != fewest {
			t.Fatalf("%d chunks, expected %d", len(chunks), fewest)
		}
		for _, c := range chunks {
			if c < 1 || c > most || chunks[0]-c > 1 || c > chunks[0] {
				t.Fatalf("chunks %v", chunks)
			}
		}
	})
}

// TestChunkTokens: a chunk's memory is a share of the weights', between bounds.
func TestChunkTokens(t *testing.T) {
	for _, w := range WeightFormats() {
		ckpt := shaped(func(c *model.Config) { c.Embed, c.Inner, c.Layers = 64, 96, 100 })
		m, err := New(ckpt, nil, Options{Threads: 1, Weights: w})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		p := m.program
		registers := 0
		for _, width := range p.widths {
			registers += 4 * width
		}
		if got := p.tokenBytes(); got <= registers || got > registers+4*96 {
			t.Errorf("%s: %d bytes a token beside registers of %d", w, got, registers)
		}
		got, share := p.chunkTokens(), int(p.bytes()/chunkShare)/p.tokenBytes()
		if want := min(max(share, leastChunk), mostChunk); got != want || m.chunk != want {
			t.Errorf("%s: chunks of %d (model: %d), expected %d", w, got, m.chunk, want)
		}
		t.Logf("%s: %d bytes of weights, %d a token, chunks of %d", w, p.bytes(), p.tokenBytes(), got)
	}
}

// TestTokensAllocateNothing: the next token allocates nothing, in any format, and a prompt hardly anything.
func TestTokensAllocateNothing(t *testing.T) {
	for _, w := range WeightFormats() {
		m, err := New(shaped(func(c *model.Config) { c.Embed, c.Inner, c.Positions = 320, 600, 120 }), nil, Options{Threads: 2, Weights: w})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		ids := randomIDs(rand.New(rand.NewPCG(6, 7)), m.vocab, 60)
		s := m.NewSession()
		defer s.Close()
		s.reserve(m.Context())
		for _, c := range []struct{ tokens, most int }{{1, 1}, {5, 1}, {60, 8 * len(m.program.steps)}} {
			if _, err := s.Append(t.Context(), ids); err != nil {
				t.Fatal(err)
			}
			perRun := testing.AllocsPerRun(10, func() {
				s.Truncate(len(ids))
				if _, err := s.Append(t.Context(), ids[:c.tokens]); err != nil {
					t.Error(err)
				}
			})
			s.Truncate(0)
			// A collection in between may empty what is kept.
			if perRun > float64(c.most) {
				t.Errorf("%s: %d tokens make %v allocations, expected at most %d", w, c.tokens, perRun, c.most)
			}
		}
	}
}
