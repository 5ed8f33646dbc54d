package infer

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"autodev/compute"
	"autodev/infer/infertest"
	"autodev/model"
	"autodev/tokenizer"
)

// randomModel returns a model of random weights that is given token ids.
func randomModel(t testing.TB, change func(*model.Config), threads int) *Model {
	t.Helper()
	c := infertest.Config(97)
	if change != nil {
		change(&c)
	}
	return newModel(t, infertest.Checkpoint(c), nil, threads)
}

func newModel(t testing.TB, ckpt *model.Checkpoint, tok *tokenizer.Tokenizer, threads int) *Model {
	t.Helper()
	m, err := New(ckpt, tok, Options{Threads: threads})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

func randomIDs(r *rand.Rand, vocab, n int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(r.IntN(vocab))
	}
	return ids
}

// allLogits evaluates ids in chunks of the given sizes (the last repeats).
func allLogits(t testing.TB, m *Model, ids []int32, sizes ...int) [][]float32 {
	t.Helper()
	s := m.NewSession()
	defer s.Close()
	var all [][]float32
	for i := 0; len(ids) > 0; i++ {
		n := min(sizes[min(i, len(sizes)-1)], len(ids))
		err := s.AppendAll(context.Background(), ids[:n], 0, func(_ int, logits []float32) error {
			all = append(all, slices.Clone(logits))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		ids = ids[n:]
	}
	return all
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// TestCachedEqualsUncached: the bits of every logit are the same however the sequence is cut, for any number of threads, and
// after a truncation.
func TestCachedEqualsUncached(t *testing.T) {
	for name, change := range map[string]func(*model.Config){
		"multi-query": nil,
		"multi-head":  func(c *model.Config) { c.KVHeads = c.Heads; c.Tied = false; c.Activation = compute.GELUErf },
		"wide":        func(c *model.Config) { c.Embed = 576; c.Inner = 1100; c.Layers = 1; c.Positions = 200 },
	} {
		t.Run(name, func(t *testing.T) {
			m1, m3 := randomModel(t, change, 1), randomModel(t, change, 3)
			r := rand.New(rand.NewPCG(3, 4))
			ids := randomIDs(r, m1.vocab, m1.Context())
			whole := allLogits(t, m1, ids, len(ids))
			check := func(what string, got [][]float32) {
				t.Helper()
				for i := range whole {
					if !sameBits(got[i], whole[i]) {
						t.Fatalf("%s: logits after token %d differ", what, i)
					}
				}
			}
			check("three threads", allLogits(t, m3, ids, len(ids)))
			check("one token at a time", allLogits(t, m3, ids, 1))
			for _, m3.chunk = range []int{7, 100, 512} {
				check("another chunk", allLogits(t, m3, ids, len(ids)))
			}
			for range 4 {
				check("random chunks", allLogits(t, m3, ids, r.IntN(300)+1, r.IntN(20)+1, 1, r.IntN(150)+1, r.IntN(40)+1))
			}
			s := m3.NewSession()
			defer s.Close()
			for range 6 {
				n := r.IntN(len(ids)-1) + 1
				s.Truncate(r.IntN(s.Len() + 1))
				if s.Len() >= n {
					s.Truncate(n - 1)
				}
				last, err := s.Append(t.Context(), ids[s.Len():n])
				if err != nil {
					t.Fatal(err)
				}
				if !sameBits(last, whole[n-1]) {
					t.Fatalf("after truncation: logits after token %d differ", n-1)
				}
				// What comes after a truncation may differ from what was there before.
				if n+5 < len(ids) {
					if _, err := s.Append(t.Context(), randomIDs(r, m3.vocab, 5)); err != nil {
						t.Fatal(err)
					}
					s.Truncate(n)
				}
			}
		})
	}
}

func TestSessionLimits(t *testing.T) {
	m := randomModel(t, func(c *model.Config) { c.Positions = 16 }, 1)
	s := m.NewSession()
	defer s.Close()
	if _, err := s.Append(t.Context(), make([]int32, 17)); err == nil || err.Error() != "sequence: found 17 tokens, expected at most the model's 16 positions" {
		t.Errorf("17 tokens: %v", err)
	}
	if _, err := s.Append(t.Context(), make([]int32, 16)); err != nil {
		t.Errorf("16 tokens: %v", err)
	}
	var tooLong *ContextError
	if _, err := s.Append(t.Context(), []int32{1}); !errors.As(err, &tooLong) || *tooLong != (ContextError{17, 16}) {
		t.Errorf("one more: %v", err)
	}
	s.Truncate(3)
	for id, want := range map[int32]string{-1: "sequence: token 0: found id -1, expected 0 to 96", 97: "sequence: token 0: found id 97, expected 0 to 96"} {
		if _, err := s.Append(t.Context(), []int32{id}); err == nil || err.Error() != want {
			t.Errorf("id %d: %v, expected %s", id, err, want)
		}
	}
	if _, err := s.Append(t.Context(), nil); err == nil {
		t.Error("no tokens: expected an error")
	}
	if _, err := m.NLL(t.Context(), make([]int32, 18), 0); !errors.As(err, &tooLong) {
		t.Errorf("scoring 18 tokens: %v", err)
	}
	if nll, err := m.NLL(t.Context(), make([]int32, 17), 0); err != nil || len(nll) != 16 {
		t.Errorf("scoring 17 tokens: %d, %v; only 16 of them are read", len(nll), err)
	}
}

// countdown is a context that ends at the n-th look at it.
type countdown struct {
	context.Context
	left int
	done chan struct{}
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func (c *countdown) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *countdown) Value(any) any               { return nil }
func (c *countdown) Done() <-chan struct{}       { return c.done }

// TestCancelBetweenKernels: wherever a prompt is cancelled, no further kernel runs, and the session stays usable with the same
// results.
func TestCancelBetweenKernels(t *testing.T) {
	m := randomModel(t, func(c *model.Config) { c.Positions = 3 * leastChunk }, 2)
	ids := randomIDs(rand.New(rand.NewPCG(5, 6)), m.vocab, 2*leastChunk+20)
	s := m.NewSession()
	want, err := s.Append(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	want = slices.Clone(want)
	s.Close()
	perChunk := m.program.narrow + 1 // behind that no logits are wanted, but of the last
	for _, looks := range []int{0, 1, 7, perChunk, perChunk + 3, 2*perChunk + len(m.program.steps) - 1} {
		s := m.NewSession()
		c := &countdown{Context: context.Background(), left: looks}
		if _, err := s.Append(c, ids); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled at look %d: %v", looks, err)
		}
		if c.left != -1 {
			t.Errorf("cancelled at look %d: the context was looked at %d times more", looks, -1-c.left)
		}
		if s.Len() != min(looks/perChunk, 2)*firstChunk(len(ids), leastChunk) {
			t.Errorf("cancelled at look %d: %d tokens in the session, expected the whole chunks", looks, s.Len())
		}
		got, err := s.Append(t.Context(), ids[s.Len():])
		if err != nil || !sameBits(got, want) {
			t.Errorf("cancelled at look %d and gone on: other logits (%v)", looks, err)
		}
		s.Close()
	}
}

// TestNLL: equal to the soft-max of the logits over the rows that are tokens, from any first token, and untouched by padding
// rows.
func TestNLL(t *testing.T) {
	padded := func(c *model.Config) { c.VocabSize, c.Vocab = 120, 97 }
	m := randomModel(t, padded, 2)
	ids := randomIDs(rand.New(rand.NewPCG(7, 8)), m.vocab, 301)
	all, err := m.NLL(t.Context(), ids, 0)
	if err != nil {
		t.Fatal(err)
	}
	logits := allLogits(t, m, ids, 300, 1)
	for i, v := range all {
		if len(logits[i]) != 97 {
			t.Fatalf("%d logits, expected the 97 tokens", len(logits[i]))
		}
		var sum float64
		for _, x := range logits[i] {
			sum += math.Exp(float64(x))
		}
		if want := math.Log(sum) - float64(logits[i][ids[i+1]]); math.Abs(v-want) > 1e-6 {
			t.Fatalf("token %d: %v, expected %v", i+1, v, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.IntRange(-2, 305).Draw(t, "from")
		part, err := m.NLL(context.Background(), ids, from)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(part, all[min(max(0, from-1), len(all)):]) {
			t.Fatalf("from token %d: other values than from 0", from)
		}
	})
	if _, err := m.NLL(t.Context(), []int32{1, 97}, 0); err == nil || err.Error() != "token 1: found id 97, expected 0 to 96" {
		t.Errorf("padding row as a target: %v", err)
	}
}
