package infer

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"autodev/model"
	"autodev/model/packed"
)

// moverOf returns a mover of a model that has none, not yet begun; it skips where there are no huge pages.
func moverOf(t *testing.T, dir string) (*Model, *mover, context.Context) {
	t.Helper()
	f, err := packed.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := LoadPacked(t.Context(), f, nil, Options{Threads: 2, HugePages: HugePagesOff})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	own, err := f.Own()
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	v := &mover{m: m, source: &mapped{f, map[string]*matrix{}}, own: own, cancel: cancel, done: make(chan struct{})}
	m.mover = v
	return m, v, ctx
}

// TestMovedWhileUsed: many completions at a time have the bits of the mapped weights before, while and after these move, and all
// matrices do move, with the same bytes.
func TestMovedWhileUsed(t *testing.T) {
	for _, w := range packable() {
		t.Run(string(w), func(t *testing.T) {
			dir := packTo(t, shaped(func(c *model.Config) { c.Tied = false }), PackOptions{Weights: w})
			ids := randomIDs(rand.New(rand.NewPCG(1, 2)), 97, 60)
			still := loadPacked(t, dir, Options{Threads: 1, HugePages: HugePagesOff})
			want := allLogits(t, still, ids, 7)
			m, v, ctx := moverOf(t, dir)
			var users sync.WaitGroup
			stop := make(chan struct{})
			for range 4 {
				users.Go(func() {
					for rounds := 0; ; rounds++ {
						s := m.NewSession()
						i := 0
						for _, id := range ids {
							logits, err := s.Append(t.Context(), []int32{id})
							if err != nil || !sameBits(logits, want[i]) {
								t.Errorf("logits after token %d differ, %v", i, err)
							}
							i++
						}
						s.Close()
						select {
						case <-stop:
							return
						default:
						}
					}
				})
			}
			// A part of the matrices at a time, with products in between.
			go func() {
				defer close(v.done)
				if err := v.run(ctx, func() bool { runtime.Gosched(); return v.inUse() }); err != nil {
					t.Error(err)
				}
			}()
			<-v.done
			close(stop)
			users.Wait()
			n := 0
			for i := range m.program.steps {
				weight := m.program.steps[i].weight
				if weight == nil {
					continue
				}
				n++
				moved := weight.moved.Load()
				switch {
				case moved == nil:
					t.Errorf("%s has not moved", weight.name)
				case moved.quant != nil:
					if !bytes.Equal(moved.quant.Codes(), weight.quant.Codes()) || !bytes.Equal(moved.quant.Scales(), weight.quant.Scales()) ||
						&moved.quant.Codes()[0] == &weight.quant.Codes()[0] {
						t.Errorf("%s: not a copy", weight.name)
					}
				case !bytes.Equal(littleEndian(moved.packed.BF16()), littleEndian(weight.packed.BF16())) || &moved.packed.BF16()[0] == &weight.packed.BF16()[0]:
					t.Errorf("%s: not a copy", weight.name)
				}
			}
			if n < 4 {
				t.Errorf("%d matrices", n)
			}
			for i, got := range allLogits(t, m, ids, 13) {
				if !sameBits(got, want[i]) {
					t.Fatalf("logits after token %d differ when all has moved", i)
				}
			}
		})
	}
}

// TestCloseWhileMoving: Close ends the copy and waits for it; a session in use keeps both memories, and the last one gives them
// back.
func TestCloseWhileMoving(t *testing.T) {
	dir := packTo(t, shaped(nil), PackOptions{Weights: Int8})
	m, v, ctx := moverOf(t, dir)
	s := m.NewSession()
	if _, err := s.Append(t.Context(), []int32{1, 2}); err != nil {
		t.Fatal(err)
	}
	began, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(v.done)
		var once sync.Once
		ended <- v.run(ctx, func() bool {
			once.Do(func() { close(began) })
			<-ctx.Done()
			return false
		})
	}()
	<-began
	m.Close()
	if err := <-ended; err != context.Canceled {
		t.Errorf("the copy ended with %v", err)
	}
	if m.folder == nil {
		t.Fatal("the weights were unmapped under a session in use")
	}
	if _, err := s.Append(t.Context(), []int32{3}); err != nil {
		t.Error(err)
	}
	s.Close()
	if m.folder != nil {
		t.Error("the weights are still mapped after the last session")
	}
}

func TestHugePages(t *testing.T) {
	dir := packTo(t, shaped(nil), PackOptions{Weights: Int4})
	for mode, moved := range map[HugePages]bool{HugePagesOff: false, HugePagesOn: true} {
		m := loadPacked(t, dir, Options{HugePages: mode})
		if moved && m.mover == nil {
			t.Log("no huge pages here")
			continue
		}
		if got := m.program.steps[0].weight.moved.Load() != nil; got != moved {
			t.Errorf("%s: moved is %v as soon as the model is ready", mode, got)
		}
	}
	f, err := packed.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPacked(t.Context(), f, nil, Options{HugePages: "never"}); err == nil || err.Error() != `huge_pages: found "never", expected auto, on or off` {
		t.Error(err)
	}
}

// TestLoadPackedInterrupted: weights that are copied before the model is ready stop being copied when the context ends, wherever
// that is.
func TestLoadPackedInterrupted(t *testing.T) {
	dir := packTo(t, shaped(nil), PackOptions{Weights: Int8})
	for _, looks := range []int{0, 1, 5} {
		f, err := packed.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		c := &countdown{Context: context.Background(), left: looks}
		m, err := LoadPacked(c, f, nil, Options{HugePages: HugePagesOn})
		if err == nil && m.mover == nil {
			m.Close()
			t.Skip("no huge pages here")
		}
		if !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "load "+f.Dir) {
			t.Errorf("ended at look %d: %v", looks, err)
		}
	}
}

// TestCacheAuto: keys and values are float32 beside float32 weights, bf16 beside others, and what was asked for always.
func TestCacheAuto(t *testing.T) {
	ckpt := shaped(nil)
	for _, c := range []struct {
		weights     Weights
		cache, want Cache
	}{
		{"", "", CacheFloat32}, {Float32, CacheAuto, CacheFloat32}, {BFloat16, "", CacheBFloat16}, {Int8, CacheAuto, CacheBFloat16},
		{Int4, CacheFloat32, CacheFloat32}, {Float32, CacheInt8, CacheInt8},
	} {
		m, err := New(ckpt, nil, Options{Weights: c.weights, Cache: c.cache})
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Info().Cache; got != c.want || m.NewSession().kv.(*processor).kv[0].Format().String() != string(c.want) {
			t.Errorf("%q weights, %q: %s", c.weights, c.cache, got)
		}
		m.Close()
	}
	if _, err := New(ckpt, nil, Options{Cache: "int2"}); err == nil || err.Error() != `kv_cache: found "int2", expected auto, float32, bf16, float16 or int8` {
		t.Error(err)
	}
}
