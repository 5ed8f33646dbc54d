package infer

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"autodev/infer/infertest"
	"autodev/model"
)

// formats are models of the same random weights in every format of weights, keys and values.
func formats(t *testing.T, threads int, change func(*model.Config)) map[string]*Model {
	t.Helper()
	all := map[string]*Model{}
	c := infertest.Config(97)
	c.Positions = 200
	if change != nil {
		change(&c)
	}
	ckpt := infertest.Checkpoint(c)
	for _, w := range WeightFormats() {
		for _, cache := range CacheFormats()[1:] {
			m, err := New(ckpt, nil, Options{Threads: threads, Weights: w, Cache: cache})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(m.Close)
			all[string(w)+" weights, "+string(cache)+" keys and values"] = m
		}
	}
	return all
}

// shift is a spanAdapter that adds a multiple of an input to every output of some matrices.
type shift struct {
	names []string
	by    float32
}

func (s *shift) adapts(w *matrix) bool { return slices.Contains(s.names, w.name) }

func (s *shift) add(w *matrix, y, x []float32, n int) {
	for i := range n {
		for j := range w.out {
			y[i*w.out+j] += s.by * x[i*w.in+j%w.in]
		}
	}
}

// batched is a sequence of a test of batches.
type batched struct {
	s       *Session
	ids     []int32
	want    [][]float32 // after every token
	adapter spanAdapter
}

// alone evaluates ids token by token with an adapter.
func alone(t interface{ Fatal(...any) }, m *Model, ids []int32, adapter spanAdapter) (all [][]float32) {
	s := m.NewSession()
	defer s.Close()
	if err := s.check(ids); err != nil {
		t.Fatal(err)
	}
	var b batch
	w, err := m.workspace()
	if err != nil {
		t.Fatal(err)
	}
	defer m.release(w)
	for i := range ids {
		sp := &span{ctx: context.Background(), kv: s.kv, ids: ids[i : i+1], at: i, adapter: adapter}
		if b.begin(m, w, []*span{sp}); wholly(&b) != nil || sp.err != nil {
			t.Fatal(sp.err)
		}
		all = append(all, slices.Clone(sp.logits))
	}
	return all
}

// wholly runs a batch that does not leave.
func wholly(b *batch) error {
	over, err := b.run()
	if err == nil && !over {
		err = errors.New("the batch has left")
	}
	return err
}

// TestBatchBits: whatever parts of whatever sequences a pass evaluates, with or without adapters, whoever leaves while it runs, and however often it is
// left for passes of other sequences: the logits after every token have the bits of a run of its sequence alone, token by token.
func TestBatchBits(t *testing.T) {
	for i, shape := range []func(*model.Config){
		nil,
		func(c *model.Config) { c.KVHeads, c.Tied, c.Layers, c.Embed, c.Inner = c.Heads, false, 1, 320, 520 },
	} {
		for name, m := range formats(t, 2, shape) {
			if i == 1 && string(CacheAuto.For(m.weights)) != m.cache.String() {
				continue
			}
			m.perLook = 1e-9 // kernels in parts
			t.Run(name, func(t *testing.T) {
				r := rand.New(rand.NewPCG(1, 2))
				linear := m.program.steps[slices.IndexFunc(m.program.steps, func(s step) bool { return s.op == opLinear && s.y >= 0 })].weight.name
				fused := m.program.steps[slices.IndexFunc(m.program.steps, func(s step) bool { return s.op == opLinear && s.fused })].weight.name
				plain := m.program.steps[slices.IndexFunc(m.program.steps, func(s step) bool { return s.op == opLinear && !s.fused && s.y < 0 })].weight.name
				var known []batched
				for i := range 5 {
					b := batched{ids: randomIDs(r, m.vocab, 150)}
					switch i {
					case 3:
						b.adapter = &shift{[]string{linear, plain}, 0.01}
					case 4:
						b.adapter = &shift{[]string{fused, linear}, -0.02}
					}
					b.want = alone(t, m, b.ids, b.adapter)
					known = append(known, b)
				}
				if sameBits(known[4].want[20], alone(t, m, known[4].ids[:21], nil)[20]) {
					t.Fatal("the adapter changes nothing")
				}
				var works [2]*workspace
				for i := range works {
					var err error
					if works[i], err = m.workspace(); err != nil {
						t.Fatal(err)
					}
					defer m.release(works[i])
				}
				left := 0
				rapid.Check(t, func(t *rapid.T) { left += randomBatches(t, m, works, known) })
				if left < 100 {
					t.Errorf("passes have been left %d times", left)
				}
			})
		}
	}
}

// randomBatches returns how often a pass was left.
func randomBatches(t *rapid.T, m *Model, works [2]*workspace, known []batched) (left int) {
	var live []batched
	var b batch
	for range rapid.IntRange(1, 6).Draw(t, "passes") {
		for len(live) < 1 || rapid.Bool().Draw(t, "join") && len(live) < 7 {
			x := known[rapid.IntRange(0, len(known)-1).Draw(t, "sequence")]
			x.s = m.NewSession()
			if err := x.s.reserve(len(x.ids)); err != nil {
				t.Fatal(err)
			}
			live = append(live, x)
		}
		var spans []*span
		ends := map[*span]bool{}
		visited := make([]int, len(live))
		for i, x := range live {
			n := min(rapid.SampledFrom([]int{1, 1, 1, 2, 5, 33, 90}).Draw(t, "tokens"), len(x.ids)-x.s.Len())
			if n == 0 {
				x.s.Truncate(rapid.IntRange(0, x.s.Len()-1).Draw(t, "back"))
				n = 1
			}
			at := x.s.Len()
			sp := &span{ctx: context.Background(), kv: x.s.kv, ids: x.ids[at : at+n], at: at, adapter: x.adapter}
			sp.from = rapid.IntRange(rapid.SampledFrom([]int{0, max(0, n-4)}).Draw(t, "least"), n).Draw(t, "from")
			if rapid.IntRange(0, 4).Draw(t, "visit") == 0 {
				visited[i] = sp.from
				sp.visit = func(first, n int, logits []float32) error {
					if first != visited[i] || n > headTokens {
						t.Fatalf("logits from %d on, %d of them, after %d", first, n, visited[i])
					}
					for j := range n {
						if !sameBits(logits[j*m.rows:][:m.rows], x.want[at+first+j]) {
							t.Fatalf("sequence %d: other logits after token %d, visited", i, at+first+j)
						}
					}
					visited[i] += n
					return nil
				}
			}
			if rapid.IntRange(0, 5).Draw(t, "leave") == 0 {
				ends[sp] = true
				sp.ctx = &countdown{Context: context.Background(), left: rapid.IntRange(0, 2*len(m.program.steps)).Draw(t, "looks")}
			}
			spans = append(spans, sp)
		}
		b.begin(m, works[0], spans)
		b.leave = nil
		if often := rapid.IntRange(0, 9).Draw(t, "kernels between passes of others"); often > 0 {
			n := 0
			b.leave = func() bool { n++; return n%often == 0 }
		}
		other := known[rapid.IntRange(0, len(known)-1).Draw(t, "sequence in between")]
		for {
			over, err := b.run()
			if err != nil {
				t.Fatal(err)
			}
			if over {
				break
			}
			if left++; left%4 == 0 {
				between(t, m, works[1], other, 1+left%40)
			}
		}
		for i, sp := range spans {
			x := live[i]
			if sp.err != nil {
				if !ends[sp] || !errors.Is(sp.err, context.Canceled) || sp.logits != nil {
					t.Fatalf("sequence %d: %v", i, sp.err)
				}
				continue // evaluated again, or not
			}
			if sp.visit != nil && visited[i] != len(sp.ids) || sp.visit == nil && len(sp.logits) != (len(sp.ids)-sp.from)*m.rows {
				t.Fatalf("sequence %d: %d logits, %d visited", i, len(sp.logits), visited[i])
			}
			for j := range len(sp.logits) / m.rows {
				if !sameBits(sp.logits[j*m.rows:][:m.rows], x.want[sp.at+sp.from+j]) {
					t.Fatalf("sequence %d of %d: other logits after token %d", i, len(live), sp.at+sp.from+j)
				}
			}
			x.s.commit(sp.ids)
			if keep := rapid.IntRange(0, 3).Draw(t, "forget"); keep == 0 {
				x.s.Truncate(x.s.Len() - rapid.IntRange(0, len(sp.ids)).Draw(t, "tokens forgotten"))
			}
		}
		live = slices.DeleteFunc(live, func(x batched) bool {
			if gone := rapid.IntRange(0, 4).Draw(t, "gone") == 0; gone {
				x.s.Close()
				return true
			}
			return false
		})
	}
	for _, x := range live {
		x.s.Close()
	}
	return left
}

// between evaluates the first n tokens of a sequence in a pass of their own.
func between(t *rapid.T, m *Model, w *workspace, x batched, n int) {
	s := m.NewSession()
	defer s.Close()
	if err := s.reserve(n); err != nil {
		t.Fatal(err)
	}
	sp := &span{ctx: context.Background(), kv: s.kv, ids: x.ids[:n], from: n - 1, adapter: x.adapter}
	var b batch
	if b.begin(m, w, []*span{sp}); wholly(&b) != nil || sp.err != nil || !sameBits(sp.logits, x.want[n-1]) {
		t.Fatalf("other logits after %d tokens, in a pass while another is left", n)
	}
}

// TestRowsOfLastBlock: behind the last attention a pass computes the rows of those tokens alone whose logits are wanted.
func TestRowsOfLastBlock(t *testing.T) {
	m := newModel(t, shaped(func(c *model.Config) { c.Layers = 2 }), nil, 2)
	w, err := m.workspace()
	if err != nil {
		t.Fatal(err)
	}
	defer m.release(w)
	ids := randomIDs(rand.New(rand.NewPCG(3, 4)), m.vocab, 40)
	for _, c := range []struct{ tokens, from, other int }{{40, 39, 40}, {40, 40, 40}, {40, 40, 38}, {40, 0, 40}, {1, 0, 39}} {
		var rows rowCount
		var spans []*span
		for _, from := range []int{c.from, c.other} {
			s := m.NewSession()
			defer s.Close()
			n := c.tokens
			if from == c.other {
				n = len(ids)
			}
			if err := s.reserve(n); err != nil {
				t.Fatal(err)
			}
			spans = append(spans, &span{ctx: t.Context(), kv: s.kv, ids: ids[:n], from: from, adapter: &rows})
		}
		var b batch
		b.begin(m, w, spans)
		if err := wholly(&b); err != nil {
			t.Fatal(err)
		}
		all, wanted := 0, 0
		for _, s := range spans {
			all, wanted = all+len(s.ids), wanted+len(s.ids)-s.from
		}
		// Of the four products of a block, the last three stand behind its attention.
		want := []int{all, all, all, all, all, wanted, wanted, wanted}
		if wanted == 0 {
			want = want[:5]
		}
		if !slices.Equal(rows, want) {
			t.Errorf("%d tokens, logits from %d and %d on: products of %v rows, expected %v", c.tokens, c.from, c.other, rows, want)
		}
	}
}

// rowCount is an adapter that adds nothing and notes how many rows each product has.
type rowCount []int

func (r *rowCount) adapts(*matrix) bool                  { return true }
func (r *rowCount) add(_ *matrix, _, _ []float32, n int) { *r = append(*r, n) }
