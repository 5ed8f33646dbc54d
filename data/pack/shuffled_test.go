package pack

import (
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"autodev/data"
	"autodev/data/fim"
)

func shuffled(t rapid.TB, src data.Source, cfg Config, size int, seed uint64) *Shuffled {
	t.Helper()
	inner, err := NewStream(context.Background(), src, letters{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewShuffled(inner, size, seed)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestShuffledResume: the windows are those of the stream below, block by block in another order, and a restored state goes on with
// the same windows and counts.
func TestShuffledResume(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		src := library(rapid.IntRange(1, 25).Draw(rt, "documents"))
		cfg := Config{Sentinels: sentinels, Seed: rapid.Uint64().Draw(rt, "seed"), Workers: 2}
		cfg.FIM = fim.Options{Rate: .5, SPMRate: .5}
		cfg.Pack = Options{Sequence: rapid.IntRange(8, 120).Draw(rt, "sequence")}
		cfg.Epochs = rapid.Uint64Range(1, 2).Draw(rt, "epochs")
		size := rapid.IntRange(2, 40).Draw(rt, "size")

		plain, err := NewStream(context.Background(), src, letters{}, cfg)
		if err != nil {
			rt.Fatal(err)
		}
		want := all(t, plain)

		a := shuffled(rt, src, cfg, size, 5)
		defer a.Close()
		var got []Window
		var states [][]byte
		var stats []Stats
		for {
			st, err := a.State()
			if err != nil {
				rt.Fatal(err)
			}
			states, stats = append(states, st), append(stats, a.Stats())
			w, err := a.Next(context.Background())
			if err == io.EOF {
				break
			}
			if err != nil {
				rt.Fatal(err)
			}
			got = append(got, w)
		}
		if len(got) != len(want) {
			rt.Fatalf("%d windows, want %d", len(got), len(want))
		}
		for i := 0; i < len(want); i += size {
			end := min(i+size, len(want))
			if w, g := bigrams(want[i:end]), bigrams(got[i:end]); !reflect.DeepEqual(w, g) {
				rt.Fatalf("block from window %d holds other windows", i)
			}
		}
		if a.Stats() != plain.Stats() {
			rt.Fatalf("stats %+v, want %+v", a.Stats(), plain.Stats())
		}

		at := rapid.IntRange(0, len(states)-1).Draw(rt, "resume")
		b := shuffled(rt, src, cfg, size, 5)
		defer b.Close()
		for range rapid.IntRange(0, 3).Draw(rt, "before") {
			if _, err := b.Next(context.Background()); err != nil && err != io.EOF {
				rt.Fatal(err)
			}
		}
		if err := b.Restore(states[at]); err != nil {
			rt.Fatal(err)
		}
		if again, err := b.State(); err != nil || string(again) != string(states[at]) {
			rt.Fatalf("state after restoring: %s, %v, want %s", again, err, states[at])
		}
		if b.Stats() != stats[at] {
			rt.Fatalf("stats after restoring %+v, want %+v", b.Stats(), stats[at])
		}
		// Interrupted work is taken up where it was.
		cancelled, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := b.Next(cancelled); err != nil && err != io.EOF && !errors.Is(err, context.Canceled) {
			rt.Fatal(err)
		} else if err == nil {
			at++
		}
		rest := all(t, b)
		if !slices.EqualFunc(rest, got[at:], func(a, b Window) bool { return reflect.DeepEqual(a, b) }) {
			rt.Fatalf("%d windows after resuming at %d differ from the %d", len(rest), at, len(got[at:]))
		}
	})
}

// TestShuffledSpreads: the windows of one long document lie apart.
func TestShuffledSpreads(t *testing.T) {
	src := data.Slice{{Content: strings.Repeat("x", 640)}, {Content: strings.Repeat("y", 640)}}
	cfg := Config{Sentinels: sentinels, Pack: Options{Sequence: 16}, Epochs: 1, Shuffle: Shuffle{Off: true}}
	changes := func(windows []Window) (n int) {
		for i := 1; i < len(windows); i++ {
			if windows[i].IDs[0] != windows[i-1].IDs[0] {
				n++
			}
		}
		return n
	}
	plain, err := NewStream(context.Background(), src, letters{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if n := changes(all(t, plain)); n != 1 {
		t.Errorf("unshuffled: %d changes of document, want 1", n)
	}
	if n := changes(all(t, shuffled(t, src, cfg, 1024, 1))); n < 25 || n > 55 {
		t.Errorf("shuffled: %d changes of document between 80 windows, want about 40", n)
	}
	a, b := all(t, shuffled(t, src, cfg, 1024, 1)), all(t, shuffled(t, src, cfg, 1024, 2))
	if reflect.DeepEqual(a, b) {
		t.Error("another seed gives the same order")
	}
}

func TestShuffledRefuses(t *testing.T) {
	cfg := Config{Sentinels: sentinels, Pack: Options{Sequence: 16}, Epochs: 1}
	if _, err := NewShuffled(nil, 1, 0); err == nil || !strings.Contains(err.Error(), "1 windows") {
		t.Errorf("a block of 1: %v", err)
	}
	s := shuffled(t, library(9), cfg, 4, 1)
	if _, err := s.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	state, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"index":1`, `"index":5`, "window 5 of a shuffle block of 4"},
		{`"index":1`, `"index":-1`, "window -1"},
		{`"size":4`, `"size":5`, "expected 4"},
		{`"seed":1`, `"seed":2`, "seed 2"},
		{`"version":1`, `"version":9`, "version 9"},
		{`"index":1`, `"index":1,"more":1`, "more"},
	} {
		bad := strings.Replace(string(state), c.old, c.new, 1)
		if err := s.Restore([]byte(bad)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.new, err, c.want)
		}
	}
}

// FuzzShuffledRestore: any state is refused, or the windows go on without a panic.
func FuzzShuffledRestore(f *testing.F) {
	cfg := Config{Sentinels: sentinels, Pack: Options{Sequence: 16}, FIM: fim.Default(), Epochs: 1}
	addStates(f, shuffled(f, library(5), cfg, 3, 1), 7)
	f.Fuzz(func(t *testing.T, state []byte) { restoreAny(t, shuffled(t, library(5), cfg, 3, 1), state) })
}
