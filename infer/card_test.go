package infer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"autodev/compute"
	"autodev/compute/cuda"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/devices"
	"autodev/infer/infertest"
	"autodev/model"
)

// onCard makes the stand-in this machine's driver, under a schedule; on a GPU it does nothing.
func onCard(t testing.TB, seed int64) {
	t.Helper()
	if cudatest.GPU() {
		return
	}
	l := cudatest.Library(t, "")
	if err := l.Set("seed", seed); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AUTODEV_LIBCUDA", l.CUDA)
	t.Setenv("AUTODEV_LIBCUBLASLT", l.CublasLt)
	t.Cleanup(func() {
		if fault := l.Fault(); fault != "" && !t.Failed() {
			t.Errorf("the stand-in reports: %s", fault)
		}
	})
}

// cardModel returns ckpt on the card, and on the processor with the same weights.
func cardModel(t testing.TB, ckpt *model.Checkpoint, w Weights) (onCard, onCPU *Model) {
	t.Helper()
	for _, o := range []Options{{Device: devices.Spec{Kind: devices.CUDA}, Weights: w}, {Weights: w}} {
		m, err := New(ckpt, nil, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		onCard, onCPU = onCPU, m
	}
	return onCard, onCPU
}

var cardShapes = map[string]func(*model.Config){
	"multi-query": nil,
	"multi-head": func(c *model.Config) {
		c.KVHeads = c.Heads
		c.Tied = false
		c.Activation = compute.GELUErf
		c.Layers = 2
	},
	"wide": func(c *model.Config) { c.Embed, c.Inner, c.Layers, c.VocabSize = 128, 160, 1, 131 },
}

func cardCheckpoint(change func(*model.Config)) *model.Checkpoint {
	c := infertest.Config(97)
	c.Positions = 400
	if change != nil {
		change(&c)
	}
	return infertest.Checkpoint(c)
}

// furthest returns the largest difference.
func furthest(a, b [][]float32) (d float64) {
	for i := range a {
		for j := range a[i] {
			if e := math.Abs(float64(a[i][j] - b[i][j])); !(e <= d) {
				d = e
			}
		}
	}
	return d
}

// TestCardLogits: a card gives the processor's logits but for rounding, however the sequence is cut: whole, behind cached tokens, a few
// at a time.
func TestCardLogits(t *testing.T) {
	for name, change := range cardShapes {
		t.Run(name, func(t *testing.T) {
			onCard(t, 1)
			card, cpu := cardModel(t, cardCheckpoint(change), Float32)
			ids := randomIDs(rand.New(rand.NewPCG(1, 2)), card.vocab, 210)
			want := allLogits(t, cpu, ids, len(ids))
			for _, sizes := range [][]int{{len(ids)}, {40, 3, 8, 1, 150}, {5, 200}} {
				if d := furthest(allLogits(t, card, ids, sizes...), want); !(d < 2e-4) {
					t.Errorf("cut by %d: %v from the processor's", sizes, d)
				}
			}
			// Long parts at once: attention to 150 new tokens of which each sees 60 cached ones.
			s := card.NewSession()
			defer s.Close()
			for _, part := range [][]int32{ids[:60], ids[60:]} {
				got, err := s.Append(t.Context(), part)
				if err != nil {
					t.Fatal(err)
				}
				if d := furthest([][]float32{got}, want[s.Len()-1:s.Len()]); !(d < 2e-4) {
					t.Errorf("after %d tokens: %v from the processor's", s.Len(), d)
				}
			}
		})
	}
}

// TestCardBits: passes of up to cuda.FewRows tokens give the same bits, as graphs and call by call, under any schedule, after a truncation and in a
// copy of the session.
func TestCardBits(t *testing.T) {
	ckpt := cardCheckpoint(cardShapes["wide"])
	ids := randomIDs(rand.New(rand.NewPCG(1, 2)), 97, 90)
	for _, w := range []Weights{BFloat16, Float32, Int4} {
		var want [][]float32
		for seed := range int64(2) {
			t.Run(fmt.Sprint(w, " seed ", seed), func(t *testing.T) {
				onCard(t, seed)
				if seed == 1 {
					t.Setenv(devices.GraphsEnv, "0")
				}
				m, _ := cardModel(t, ckpt, w)
				s := m.NewSession()
				defer s.Close()
				if _, err := s.Append(t.Context(), ids[:60]); err != nil {
					t.Fatal(err)
				}
				other := m.NewSession()
				defer other.Close()
				if err := errors.Join(other.reserve(60), other.kv.copyTokens(0, s.kv.blocks()[0], 60)); err != nil {
					t.Fatal(err)
				}
				other.commit(ids[:60])
				for _, sizes := range [][]int{{1}, {8}, {3, 5, 2, 1}, {8}} {
					for _, s := range []*Session{s, other} {
						got := fewAtATime(t, s, ids[60:], sizes)
						if want == nil {
							want = got
						}
						if !slices.EqualFunc(got, want, sameBits) {
							t.Errorf("tokens by %d have other bits", sizes)
						}
						s.Truncate(60)
					}
				}
			})
		}
	}
}

// fewAtATime appends ids by sizes, over and over, and returns all logits.
func fewAtATime(t *testing.T, s *Session, ids []int32, sizes []int) (all [][]float32) {
	t.Helper()
	for i := 0; len(ids) > 0; i++ {
		n := min(sizes[i%len(sizes)], len(ids))
		rows, err := s.appendRows(t.Context(), ids[:n], 0)
		if err != nil {
			t.Fatal(err)
		}
		for r := range n {
			all = append(all, slices.Clone(rows[r*s.m.rows:][:s.m.vocab]))
		}
		ids = ids[n:]
	}
	return all
}

// TestCardNLL: scores are the processor's, exactly but for rounding in float32 and nearly in bfloat16, from any token on.
func TestCardNLL(t *testing.T) {
	onCard(t, 2)
	ckpt := cardCheckpoint(cardShapes["wide"])
	ids := randomIDs(rand.New(rand.NewPCG(3, 4)), 97, 300)
	for w, tolerance := range map[Weights]float64{Float32: 1e-4, BFloat16: 0.3} {
		card, cpu := cardModel(t, ckpt, w)
		want, err := cpu.NLL(t.Context(), ids, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range []int{0, 17, 299} {
			got, err := card.NLL(t.Context(), ids, from)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(ids)-max(1, from) {
				t.Fatalf("%d scores from %d on", len(got), from)
			}
			mean := 0.0
			for i, v := range got {
				d := v - want[len(want)-len(got)+i]
				mean += d / float64(len(got))
				if !(math.Abs(d) < tolerance) {
					t.Errorf("%s: score %d of %d: %v, expected %v", w, i, len(got), v, want[len(want)-len(got)+i])
				}
			}
			if len(got) > 1 && !(math.Abs(mean) < tolerance/15) {
				t.Errorf("%s: the mean score is %v from the processor's", w, mean)
			}
		}
	}
}

// TestCardCompletes: greedy completions in float32 are the processor's token for token, with guessed tokens too, through the engine's cache
// of prompts; sampled ones are the same with and without guesses.
func TestCardCompletes(t *testing.T) {
	onCard(t, 3)
	card, cpu := cardModel(t, cardCheckpoint(func(c *model.Config) { c.Layers = 2 }), Float32)
	r := rand.New(rand.NewPCG(5, 6))
	a := randomIDs(r, card.vocab, 70)
	repeated := slices.Concat(a[:30], a[:30], a[:12])
	engine := NewEngine(card, EngineOptions{})
	for _, prompt := range [][]int32{a, repeated, a, slices.Concat(a[:50], repeated[:5]), slices.Concat(a[:20], a[40:])} {
		for _, speculate := range []Speculate{SpeculateOff, SpeculateAlways} {
			req := Request{Prompt: Prompt{IDs: prompt}, MaxTokens: 10, Speculate: speculate}
			want, err := cpu.Generate(t.Context(), req, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := completed(t, engine, req)
			if !slices.Equal(got.IDs, want.IDs) {
				t.Errorf("%d of %d tokens cached, speculation %v: %v, expected %v", got.Cached, len(prompt), speculate, got.IDs, want.IDs)
			}
		}
	}
	if s := engine.CacheStats(); s.Blocks < 4 || s.Bytes != int64(s.Blocks)*card.card.pageBytes || s.InUse != 0 || s.Found < 200 {
		t.Errorf("the engine's cache: %+v", s)
	}
	recount(t, engine.cache)
	drafted := 0
	for seed := range uint64(2) {
		req := Request{Prompt: Prompt{IDs: repeated}, MaxTokens: 14, Logprobs: true, Sampling: Sampling{Temperature: 0.8, TopP: 0.9, Seed: seed}, Speculate: SpeculateOff}
		want, err := card.Generate(t.Context(), req, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Speculate = SpeculateAlways
		got, err := card.Generate(t.Context(), req, nil)
		if err != nil {
			t.Fatal(err)
		}
		drafted += got.Drafted
		if !sameCompletion(got, want) {
			t.Errorf("seed %d: with guesses %v, without %v", seed, got.IDs, want.IDs)
		}
	}
	if drafted == 0 {
		t.Error("nothing was ever guessed")
	}
}

// TestCardTogether: completions that an engine makes at the same time on a card are those of the processor, also when some leave, and
// their pages are given back.
func TestCardTogether(t *testing.T) {
	onCard(t, 3)
	card, cpu := cardModel(t, cardCheckpoint(func(c *model.Config) { c.Layers = 1 }), Float32)
	all := len(card.card.free)
	e := NewEngine(card, EngineOptions{Concurrency: 3})
	r := rand.New(rand.NewPCG(6, 7))
	var wg sync.WaitGroup
	for i := range 6 {
		req := Request{Prompt: Prompt{IDs: randomIDs(r, card.vocab, 20+10*i)}, MaxTokens: 6, Client: string(rune('a' + i%2))}
		want, err := cpu.Generate(t.Context(), req, nil)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if i%3 == 1 {
				ctx, cancel := context.WithCancel(context.Background())
				_, _ = e.Complete(ctx, []Request{req}, func(int, Chunk) error { cancel(); return nil })
			}
			if got := completed(failing{t}, e, req); !slices.Equal(got.IDs, want.IDs) {
				t.Errorf("request %d: %v, expected %v", i, got.IDs, want.IDs)
			}
		})
	}
	wg.Wait()
	e.Close()
	if n := len(card.card.free); n != all {
		t.Errorf("%d pages of %d were given back", n, all)
	}
}

// TestCardPages: what sessions hold is given back; what there is no room for is refused and costs nothing.
func TestCardPages(t *testing.T) {
	onCard(t, 4)
	m, _ := cardModel(t, cardCheckpoint(nil), Float32)
	all := len(m.card.free)
	if per := pagesFor(m.Context()); all != m.card.pages || all != cardContexts*per {
		t.Fatalf("%d pages, expected %d", all, cardContexts*per)
	}
	var sessions []*Session
	for range cardContexts {
		s := m.NewSession()
		if err := s.reserve(m.Context()); err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, s)
	}
	last := m.NewSession()
	if _, err := last.Append(t.Context(), []int32{1, 2, 3}); err == nil || !strings.Contains(err.Error(), "0 pages of 64 tokens are free, expected 1") {
		t.Errorf("error %v", err)
	}
	if _, err := m.Generate(t.Context(), Request{Prompt: Prompt{IDs: []int32{1}}, MaxTokens: 3}, nil); err == nil {
		t.Error("completed without memory")
	}
	sessions[0].Close()
	if _, err := last.Append(t.Context(), []int32{1, 2, 3}); err != nil {
		t.Error(err)
	}
	last.Close()
	for _, s := range sessions[1:] {
		s.Close()
	}
	if len(m.card.free) != all {
		t.Errorf("%d pages given back of %d", len(m.card.free), all)
	}
	// An engine's sessions leave room for its calls, whatever is asked of it.
	for _, o := range []EngineOptions{{}, {CacheBytes: 1 << 40}, {Concurrency: 3}, {Concurrency: cardContexts}} {
		e := NewEngine(m, o)
		calls := int64(max(1, o.Concurrency))
		if room := int64(all-int(calls)*pagesFor(m.Context())) * m.card.pageBytes; e.o.CacheBytes > room || room > 0 && e.o.CacheBytes <= 0 {
			t.Errorf("%+v: keeps %d bytes of %d", o, e.o.CacheBytes, room)
		}
	}
}

// TestCardCancel: a cancelled prompt ends between chunks and the session goes on.
func TestCardCancel(t *testing.T) {
	onCard(t, 5)
	m, cpu := cardModel(t, cardCheckpoint(nil), Float32)
	m.chunk = 50
	ids := randomIDs(rand.New(rand.NewPCG(7, 8)), m.vocab, 120)
	want := allLogits(t, cpu, ids, len(ids))
	s := m.NewSession()
	defer s.Close()
	c := &countdown{Context: context.Background(), left: 2}
	if _, err := s.Append(c, ids); !errors.Is(err, context.Canceled) || s.Len() != 80 {
		t.Fatalf("%d tokens and error %v", s.Len(), err)
	}
	got, err := s.Append(t.Context(), ids[s.Len():])
	if err != nil || !(furthest([][]float32{got}, want[len(ids)-1:]) < 2e-4) {
		t.Errorf("gone on: %v from the processor's (%v)", furthest([][]float32{got}, want[len(ids)-1:]), err)
	}
	m.Close()
	if _, err := s.Append(t.Context(), ids[:1]); err != nil {
		t.Errorf("what ran when the model was closed ended: %v", err)
	}
	s.Close()
	if _, err := m.NewSession().Append(t.Context(), ids[:1]); !errors.Is(err, errClosed) {
		t.Errorf("error %v", err)
	}
}

// TestCardRefuses: formats that cards do not know, a card without enough memory, a card that is lost.
func TestCardRefuses(t *testing.T) {
	if cudatest.GPU() {
		t.Skip("SKIPPED: this test sets up the stand-in")
	}
	onCard(t, 6)
	ckpt := cardCheckpoint(nil)
	cuda0 := devices.Spec{Kind: devices.CUDA}
	for text, o := range map[string]Options{
		"weights: found \"int3\", expected float32, bf16, float16, int8 or int4": {Device: cuda0, Weights: "int3"},
		"kv_cache: found int8, expected auto or bf16":                            {Device: cuda0, Cache: CacheInt8},
		"kv_cache: found int8, expected auto, float32 or bf16 on a CUDA device":  {Device: cuda0, Weights: Int4, Cache: CacheInt8},
		"there is no device 7": {Device: devices.Spec{Kind: devices.CUDA, Index: 7}, Weights: Float32},
	} {
		if _, err := New(ckpt, nil, o); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, expected %s", err, text)
		}
	}
	l := cudatest.Library(t, "")
	wide := cardCheckpoint(func(c *model.Config) { c.Embed, c.Inner, c.Layers = 512, 2048, 4 })
	m, _ := cardModel(t, wide, Float32)
	need := func(w Weights, s cuda.Store) int64 { return m.card.least(layout{w, s}) }
	full, half, eighth := need(Float32, cuda.F32), need(BFloat16, cuda.BF16), need(Int4, cuda.BF16)
	m.Close()
	const products = 32 << 20
	for _, c := range []struct {
		memory int64
		text   string
	}{{products + (full+half)/2, "the model fits with bf16 weights"}, {products + eighth + 1<<20, "the model fits with int4 weights"}, {products + eighth/2, "expected --device cpu"}} {
		if err := l.Set("memory", c.memory); err != nil {
			t.Fatal(err)
		}
		_, err := New(wide, nil, Options{Device: cuda0, Weights: Float32})
		if oom := (*cuda.OutOfMemoryError)(nil); !errors.As(err, &oom) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("error %v, expected %s", err, c.text)
		}
	}
	m, err := New(wide, nil, Options{Device: cuda0, Weights: Int4})
	if err == nil {
		m.Close()
		t.Error("half of the memory was enough")
	}
}
