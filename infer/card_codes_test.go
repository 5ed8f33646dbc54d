package infer

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"autodev/compute/cpu/par"
	"autodev/compute/cpu/quant"
	"autodev/compute/cuda"
	"autodev/compute/cuda/cudatest"
	"autodev/compute/devices"
	"autodev/model"
	"autodev/model/packed"
)

var onCUDA = devices.Spec{Kind: devices.CUDA}

// dequantised returns a checkpoint whose weights are what w makes of those of ckpt, in float32: what a card computes with, which rounds no activations
// to codes.
func dequantised(ckpt *model.Checkpoint, w Weights) *model.Checkpoint {
	pool := par.New(1)
	defer pool.Close()
	specs := map[string]model.ParamSpec{}
	for _, s := range ckpt.Config.Params() {
		specs[s.Name] = s
	}
	for t := range ckpt.Weights.All() {
		if f := w.formatOf(ckpt.Config, specs[t.Name]); f == Int8 || f == Int4 {
			quant.Quantize(pool, f.quant(), t.Data, t.Shape[0], t.Shape[1]).Dequantize(t.Data)
		}
	}
	return ckpt
}

// codedModel returns a model on the card with weights of codes, and one on the processor in float32 whose weights are what they stand for.
func codedModel(t testing.TB, change func(*model.Config), w Weights, c Cache) (card, reference *Model) {
	t.Helper()
	card, err := New(cardCheckpoint(change), nil, Options{Device: onCUDA, Weights: w, Cache: c})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(card.Close)
	if reference, err = New(dequantised(cardCheckpoint(change), w), nil, Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reference.Close)
	return card, reference
}

func beside(w Weights, c Cache) string { return fmt.Sprint(w, " beside ", c) }

// TestCardCodesLogits: with weights of codes a card gives the logits of what the codes stand for, but for the rounding of its activations, in passes of few
// tokens and in longer ones: in bfloat16 it is about as far from them as a card that has what the codes stand for in bfloat16.
func TestCardCodesLogits(t *testing.T) {
	for name, change := range cardShapes {
		for _, w := range []Weights{Int8, Int4} {
			t.Run(name+" "+string(w), func(t *testing.T) {
				onCard(t, 1)
				card, reference := codedModel(t, change, w, CacheFloat32)
				ids := randomIDs(rand.New(rand.NewPCG(1, 2)), card.vocab, 50)
				want := allLogits(t, reference, ids, len(ids))
				check := func(m *Model, tolerance float64) {
					t.Helper()
					for _, sizes := range [][]int{{len(ids)}, {3, 8, 1, 38}} {
						if d := furthest(allLogits(t, m, ids, sizes...), want); !(d < tolerance) {
							t.Errorf("%s, cut by %d: %v from what the codes stand for, expected at most %v", beside(w, m.Info().Cache), sizes, d, tolerance)
						}
					}
				}
				check(card, 2e-4)
				halves, _ := cardModel(t, dequantised(cardCheckpoint(change), w), BFloat16)
				d := furthest(allLogits(t, halves, ids, len(ids)), want)
				rounded, _ := codedModel(t, change, w, CacheAuto)
				check(rounded, 1.5*d)
			})
		}
	}
}

// TestCardCodesComplete: greedy completions are those of what the codes stand for, token for token, with guessed tokens and several at a time.
func TestCardCodesComplete(t *testing.T) {
	for _, w := range []Weights{Int8, Int4} {
		t.Run(string(w), func(t *testing.T) {
			onCard(t, 3)
			card, reference := codedModel(t, func(c *model.Config) { c.Layers = 2 }, w, CacheFloat32)
			r := rand.New(rand.NewPCG(5, 6))
			a := randomIDs(r, card.vocab, 60)
			e := NewEngine(card, EngineOptions{Concurrency: 3})
			defer e.Close()
			var wg sync.WaitGroup
			for i, prompt := range [][]int32{a, slices.Concat(a[:30], a[:30], a[:12]), a[:5], slices.Concat(a[:20], a[40:])} {
				req := Request{Prompt: Prompt{IDs: prompt}, MaxTokens: 10, Speculate: []Speculate{SpeculateOff, SpeculateAlways}[i%2]}
				want, err := reference.Generate(t.Context(), req, nil)
				if err != nil {
					t.Fatal(err)
				}
				wg.Go(func() {
					if got := completed(failing{t}, e, req); !slices.Equal(got.IDs, want.IDs) {
						t.Errorf("request %d: %v, expected %v", i, got.IDs, want.IDs)
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestCardCodesNLL: scores are those of what the codes stand for.
func TestCardCodesNLL(t *testing.T) {
	onCard(t, 2)
	ids := randomIDs(rand.New(rand.NewPCG(3, 4)), 97, 300)
	for _, w := range []Weights{Int8, Int4} {
		for c, tolerance := range map[Cache]float64{CacheFloat32: 1e-4, CacheBFloat16: 0.3} {
			card, reference := codedModel(t, cardShapes["wide"], w, c)
			want, err := reference.NLL(t.Context(), ids, 0)
			if err != nil {
				t.Fatal(err)
			}
			got, err := card.NLL(t.Context(), ids, 0)
			if err != nil || len(got) != len(want) {
				t.Fatalf("%s: %d scores, expected %d: %v", beside(w, c), len(got), len(want), err)
			}
			mean := 0.0
			for i, v := range got {
				mean += (v - want[i]) / float64(len(got))
				if !(math.Abs(v-want[i]) < tolerance) {
					t.Errorf("%s: score %d: %v, expected %v", beside(w, c), i, v, want[i])
				}
			}
			if !(math.Abs(mean) < tolerance/15) {
				t.Errorf("%s: the mean score is %v from what the codes stand for", beside(w, c), mean)
			}
		}
	}
}

// TestCardCodesHead: for scoring the head's weights are widened once, where there is memory for it, and else for every few tokens anew, which gives the same.
func TestCardCodesHead(t *testing.T) {
	if cudatest.GPU() {
		t.Skip("SKIPPED: this test sets up the stand-in")
	}
	onCard(t, 3)
	l := cudatest.Library(t, "")
	ids := randomIDs(rand.New(rand.NewPCG(3, 4)), 97, 60)
	var want []float64
	for _, tight := range []bool{false, true} {
		m, err := New(cardCheckpoint(nil), nil, Options{Device: onCUDA, Weights: Int8})
		if err != nil {
			t.Fatal(err)
		}
		if tight {
			m.card.wide.refused = true
		}
		for range 2 {
			got, err := m.NLL(t.Context(), ids, 0)
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = got
			}
			if !slices.Equal(got, want) {
				t.Errorf("short of memory %v: other scores", tight)
			}
		}
		if kept := m.card.wide.at != 0; kept == tight {
			t.Errorf("short of memory %v: weights stay widened %v", tight, kept)
		}
		m.Close()
	}
	// More than nine tenths of what is free are not taken.
	m, err := New(cardCheckpoint(func(c *model.Config) { c.VocabSize, c.Embed = 5000, 64 }), nil, Options{Device: onCUDA, Weights: Int8})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var free, total int64
	if err := m.card.d.Do(func(q *cuda.Queue) (err error) { free, total, err = q.MemInfo(); return err }); err != nil {
		t.Fatal(err)
	}
	if err := l.Set("memory", total-free+5000*64*2); err != nil {
		t.Fatal(err)
	}
	if _, err := m.NLL(t.Context(), ids, 0); err != nil || !m.card.wide.refused {
		t.Errorf("the last of the memory was taken: %v", err)
	}
}

// TestCardCodesPacked: a packed folder's model has the bits of one that is rounded while it is loaded.
func TestCardCodesPacked(t *testing.T) {
	onCard(t, 4)
	ids := randomIDs(rand.New(rand.NewPCG(1, 2)), 97, 30)
	for _, w := range []Weights{Int8, Int4} {
		ckpt := cardCheckpoint(cardShapes["multi-head"])
		dir := filepath.Join(t.TempDir(), "packed")
		if _, err := Pack(t.Context(), dir, ckpt.Config, ckpt.Weights, PackOptions{Weights: w, Method: PackSearch}); err != nil {
			t.Fatal(err)
		}
		f, err := packed.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		got, err := LoadPacked(t.Context(), f, nil, Options{Device: onCUDA})
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		want, err := New(ckpt, nil, Options{Device: onCUDA, Weights: w})
		if err != nil {
			t.Fatal(err)
		}
		defer want.Close()
		if a, b := allLogits(t, got, ids, 20, 5), allLogits(t, want, ids, 20, 5); !slices.EqualFunc(a, b, sameBits) {
			t.Errorf("%s: logits have other bits", w)
		}
		if a, b := got.Info(), want.Info(); a != b || a.Weights != w || a.Cache != CacheBFloat16 {
			t.Errorf("%+v, expected %+v", a, b)
		}
	}
}

// TestCardCodesMemory: matrices take the bytes that they take on the processor, and the model runs in the memory that was foreseen and in no less.
func TestCardCodesMemory(t *testing.T) {
	if cudatest.GPU() {
		t.Skip("SKIPPED: this test sets up the stand-in")
	}
	onCard(t, 5)
	l := cudatest.Library(t, "")
	wide := func(c *model.Config) {
		c.Embed, c.Inner, c.Layers, c.VocabSize, c.Vocab, c.Positions = 256, 1024, 4, 1000, 1000, 64
	}
	least := map[Weights]int64{}
	for _, w := range []Weights{BFloat16, Int8, Int4} {
		card, cpu := cardModel(t, cardCheckpoint(wide), w)
		if a, b := card.Info().Bytes, cpu.Info().Bytes; w != BFloat16 && a != b { // the processor pads bf16
			t.Errorf("%s: %d bytes on the card, %d on the processor", w, a, b)
		}
		least[w] = card.card.least(card.card.layout)
		matrices := int64(0)
		for m, at := range card.card.at.matrices {
			if f := w.formatOf(card.config, card.card.specs[m.name]); f == Int8 != (at.Bits == 8) || f == Int4 != (at.Bits == 4) {
				t.Errorf("%s: %s has %d bits", w, m.name, at.Bits)
			}
			if at.Bits == 0 {
				matrices += 2 * int64(m.in*m.out)
				continue
			}
			codes, scales := quant.Size(f8or4(at.Bits), m.out, m.in)
			matrices += int64(codes + scales)
		}
		if matrices != card.Info().Bytes {
			t.Errorf("%s: %d bytes of matrices, expected %d", w, card.Info().Bytes, matrices)
		}
		// What is there beside the matrices and their widening does not depend on their format.
		least[w] -= matrices + card.card.at.wideBytes
		card.Close()
		const products, slack = 32 << 20, 64 << 10
		need := products + card.card.least(card.card.layout)
		for memory, fits := range map[int64]bool{need + slack: true, need - slack: false} {
			if err := l.Set("memory", memory); err != nil {
				t.Fatal(err)
			}
			m, err := New(cardCheckpoint(wide), nil, Options{Device: onCUDA, Weights: w})
			if oom := (*cuda.OutOfMemoryError)(nil); fits != (err == nil) || err != nil && !errors.As(err, &oom) {
				t.Errorf("%s in %d bytes of %d: %v", w, memory, need, err)
			}
			if err == nil {
				if m.card.pages != pagesFor(m.Context()) {
					t.Errorf("%s: %d pages", w, m.card.pages)
				}
				m.Close()
			}
		}
		if err := l.Set("memory", 1<<30); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range []Weights{Int8, Int4} {
		if d := least[w] - least[BFloat16]; d < -64<<10 || d > 64<<10 {
			t.Errorf("%s takes %d bytes more beside its matrices", w, d)
		}
	}
}

func f8or4(bits int) quant.Format {
	if bits == 4 {
		return quant.Int4
	}
	return quant.Int8
}

// TestCardCodesShort: a card that does not multiply in bfloat16 has activations in float16, or in float32.
func TestCardCodesShort(t *testing.T) {
	if cudatest.GPU() {
		t.Skip("SKIPPED: this test sets up the stand-in")
	}
	onCard(t, 6)
	if err := cudatest.Library(t, "").Set("capability", 70); err != nil {
		t.Fatal(err)
	}
	for cache, tolerance := range map[Cache]float64{CacheAuto: 0.02, CacheFloat32: 2e-4} {
		for _, w := range []Weights{Int8, Int4} {
			card, reference := codedModel(t, func(c *model.Config) { c.Layers = 1 }, w, cache)
			if c := card.Info().Cache; c != cache && c != CacheFloat16 {
				t.Errorf("keys and values in %s", c)
			}
			ids := randomIDs(rand.New(rand.NewPCG(1, 2)), card.vocab, 30)
			if d := furthest(allLogits(t, card, ids, 20, 5), allLogits(t, reference, ids, len(ids))); !(d < tolerance) || d == 0 {
				t.Errorf("%s: %v from what the codes stand for", beside(w, cache), d)
			}
		}
	}
	for text, o := range map[string]Options{
		"weights: found bf16, expected float32, float16, int8 or int4: the card does not multiply in bfloat16": {Weights: BFloat16},
		"kv_cache: found bf16, expected auto, float32 or float16: the card does not multiply in bfloat16":      {Weights: Int8, Cache: CacheBFloat16},
	} {
		o.Device = onCUDA
		if _, err := o.Settle(); err == nil || err.Error() != text {
			t.Errorf("error %v, expected %s", err, text)
		}
	}
}

// TestCardCodesRefuses: shapes and formats that no kernel takes.
func TestCardCodesRefuses(t *testing.T) {
	onCard(t, 7)
	_, err := New(cardCheckpoint(func(c *model.Config) { c.Inner = 82 }), nil, Options{Device: onCUDA, Weights: Int8})
	if err == nil || !strings.Contains(err.Error(), "weights: found int8, but tensor transformer.h.0.mlp.c_proj.weight has 82 columns, expected a multiple of 4 on a CUDA device") {
		t.Errorf("error %v", err)
	}
	m, err := New(cardCheckpoint(nil), nil, Options{Device: onCUDA, Weights: Int4})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	// As in a folder that was packed by others.
	w := m.program.head()
	w.quant = quant.Quantize(m.pool, quant.Int4, make([]float32, w.out*w.in), w.out, w.in)
	if err := m.card.check(m.card.layout); err == nil || err.Error() != "weights: found int4 for tensor transformer.wte.weight, expected int8 for embeddings and heads on a CUDA device" {
		t.Errorf("error %v", err)
	}
}
