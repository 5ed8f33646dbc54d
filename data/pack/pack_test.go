package pack

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"autodev/data"
	"autodev/data/fim"
)

// letters encodes each byte as one token.
type letters struct{}

func (letters) Encode(s string) []int32 {
	ids := make([]int32, len(s))
	for i := range len(s) {
		ids[i] = int32(s[i])
	}
	return ids
}

var sentinels = fim.Sentinels{Prefix: 300, Middle: 301, Suffix: 302, Pad: 303, EOT: 304}

// checkWindow checks what must hold for every window that does not cross documents.
func checkWindow(t rapid.TB, w Window, n int) {
	t.Helper()
	if len(w.IDs) != n || len(w.Targets) != n || len(w.Positions) != n || len(w.DocStart) != n {
		t.Fatalf("window of lengths %d %d %d %d, want %d", len(w.IDs), len(w.Targets), len(w.Positions), len(w.DocStart), n)
	}
	for i := range n {
		s := int(w.DocStart[i])
		if s > i || int(w.DocStart[s]) != s || int(w.Positions[i]) != i-s || i > 0 && s != i && int(w.DocStart[i-1]) != s {
			t.Fatalf("position %d: document start %d, position %d", i, s, w.Positions[i])
		}
		if i+1 < n && w.Targets[i] != NotScored && int(w.DocStart[i+1]) == s && w.Targets[i] != w.IDs[i+1] {
			t.Fatalf("position %d: target %d, next token of the document %d", i, w.Targets[i], w.IDs[i+1])
		}
	}
}

// bigrams counts the pairs (input, target) of windows.
func bigrams(windows []Window) map[[2]int32]int {
	m := map[[2]int32]int{}
	for _, w := range windows {
		for i, t := range w.Targets {
			if t != NotScored {
				m[[2]int32{w.IDs[i], t}]++
			}
		}
	}
	return m
}

// TestPackerProperty: every token of every example but its first is a target exactly once, after the token that comes before
// it; FIM examples are whole.
func TestPackerProperty(t *testing.T) { rapid.Check(t, packerProperty) }

func packerProperty(rt *rapid.T) {
	n := rapid.IntRange(8, 200).Draw(rt, "sequence")
	p := packer{opts: Options{Sequence: n, LossOn: rapid.SampledFrom([]LossOn{All, Middle}).Draw(rt, "loss")}, pad: 303}
	next := int32(1000) // every token is unique, so that bigrams identify positions
	want := map[[2]int32]int{}
	var whole []fim.Example
	var windows []Window
	var stats Stats
	drain := func() {
		for {
			w, ok := p.next(&stats)
			if !ok {
				return
			}
			checkWindow(rt, w, n)
			windows = append(windows, w)
		}
	}
	count := rapid.IntRange(0, 60).Draw(rt, "examples")
	for range count {
		ex := fim.Example{Whole: rapid.Bool().Draw(rt, "whole")}
		size := rapid.IntRange(1, 3*n).Draw(rt, "size")
		if ex.Whole {
			size = min(size, n+1)
			ex.Kind, ex.Middle = fim.PSM, rapid.IntRange(1, max(1, size-1)).Draw(rt, "middle")
			whole = append(whole, ex)
		}
		for range size {
			ex.IDs = append(ex.IDs, next)
			next++
		}
		if ex.Whole {
			whole[len(whole)-1] = ex
		}
		for k := 1; k < size; k++ {
			if p.learns(&ex, k) {
				want[[2]int32{ex.IDs[k-1], ex.IDs[k]}]++
			}
		}
		for off := 0; p.left(&ex, off); drain() {
			if now := p.place(&ex, off); now <= off {
				rt.Fatal("no progress")
			} else {
				off = now
			}
		}
	}
	p.flush()
	drain()
	if got := bigrams(windows); !reflect.DeepEqual(got, want) {
		rt.Fatalf("%d targets, want %d", len(got), len(want))
	}
	in := map[int32]int{}
	pad := int64(0)
	for i, w := range windows {
		for _, id := range w.IDs {
			if id == 303 {
				pad++
			} else {
				in[id] = i
			}
		}
	}
	for _, ex := range whole {
		for _, id := range ex.IDs[:len(ex.IDs)-1] {
			if in[id] != in[ex.IDs[0]] {
				rt.Fatalf("FIM example of %d tokens in two windows", len(ex.IDs))
			}
		}
	}
	if stats.Padding != pad || stats.Windows != int64(len(windows)) || stats.Scored != int64(len(want)) {
		rt.Fatalf("%+v: want padding %d, windows %d, scored %d", stats, pad, len(windows), len(want))
	}
}

// TestPackByHand packs two short documents and a long one.
func TestPackByHand(t *testing.T) {
	src := data.Slice{{Content: "abc"}, {Content: "de"}, {Content: strings.Repeat("x", 9)}}
	s, err := NewStream(context.Background(), src, letters{}, Evaluation(8, sentinels))
	if err != nil {
		t.Fatal(err)
	}
	got := all(t, s)
	want := []Window{
		{IDs: []int32{'a', 'b', 'c', 'd', 'e', 303, 303, 303}, Targets: []int32{'b', 'c', 304, 'e', 304, -1, -1, -1},
			Positions: []int32{0, 1, 2, 0, 1, 0, 1, 2}, DocStart: []int32{0, 0, 0, 3, 3, 5, 5, 5}},
		{IDs: []int32{'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x'}, Targets: []int32{'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x'},
			Positions: []int32{0, 1, 2, 3, 4, 5, 6, 7}, DocStart: make([]int32, 8)},
	}
	// The last position of the long document, its last x before end-of-text, fits into the first window.
	want[0].IDs[5], want[0].Targets[5] = 'x', 304
	want[0].Positions, want[0].DocStart = []int32{0, 1, 2, 0, 1, 0, 0, 1}, []int32{0, 0, 0, 3, 3, 5, 6, 6}
	want[0], want[1] = want[1], want[0]
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
	if p := s.Stats().PaddingFraction(8); p != 2./16 {
		t.Errorf("padding %v", p)
	}
}

func TestCrossing(t *testing.T) {
	src := data.Slice{{Content: "abc"}, {Content: "defghij"}}
	cfg := Evaluation(8, sentinels)
	cfg.Pack.CrossDocuments = true
	s, err := NewStream(context.Background(), src, letters{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := []Window{
		{IDs: []int32{'a', 'b', 'c', 304, 'd', 'e', 'f', 'g'}, Targets: []int32{'b', 'c', 304, 'd', 'e', 'f', 'g', -1}, Positions: []int32{0, 1, 2, 3, 4, 5, 6, 7}, DocStart: make([]int32, 8)},
		{IDs: []int32{'h', 'i', 'j', 304, 303, 303, 303, 303}, Targets: []int32{'i', 'j', 304, -1, -1, -1, -1, -1}, Positions: []int32{0, 1, 2, 3, 4, 5, 6, 7}, DocStart: make([]int32, 8)},
	}
	if got := all(t, s); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
}

func all(t testing.TB, s Windows) []Window {
	t.Helper()
	var out []Window
	for {
		w, err := s.Next(context.Background())
		if err == io.EOF {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, w)
	}
}

func some(t testing.TB, s Windows, n int) []Window {
	t.Helper()
	var out []Window
	for range n {
		w, err := s.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, w)
	}
	return out
}

func library(n int) data.Slice {
	var s data.Slice
	for i := range n {
		s = append(s, data.Document{Content: strings.Repeat(fmt.Sprintf("func f%d() { return %d }\n", i, i*i), 1+i*i%7)})
	}
	return s
}

// TestStreamResume: restored anywhere, a stream goes on with the same windows, whatever the number of workers.
func TestStreamResume(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		src := library(rapid.IntRange(1, 25).Draw(rt, "documents"))
		var cfg Config
		cfg.Sentinels, cfg.Seed = sentinels, rapid.Uint64().Draw(rt, "seed")
		cfg.FIM = fim.Options{Rate: rapid.SampledFrom([]float64{0, .5, 1}).Draw(rt, "rate"), SPMRate: .5}
		cfg.Pack = Options{Sequence: rapid.IntRange(8, 120).Draw(rt, "sequence"), CrossDocuments: rapid.Bool().Draw(rt, "crossing")}
		cfg.Shuffle = Shuffle{Documents: rapid.IntRange(1, 30).Draw(rt, "block"), Off: rapid.IntRange(0, 3).Draw(rt, "unshuffled") == 0}
		cfg.Epochs = rapid.Uint64Range(0, 3).Draw(rt, "epochs")
		cfg.Workers = 1
		ctx := context.Background()
		a, err := NewStream(ctx, src, letters{}, cfg)
		if err != nil {
			rt.Fatal(err)
		}
		defer a.Close()
		total := rapid.IntRange(1, 60).Draw(rt, "windows")
		var windows []Window
		var states [][]byte
		for range total {
			st, err := a.State()
			if err != nil {
				rt.Fatal(err)
			}
			states = append(states, st)
			w, err := a.Next(ctx)
			if err == io.EOF {
				break
			}
			if err != nil {
				rt.Fatal(err)
			}
			if !cfg.Pack.CrossDocuments {
				checkWindow(rt, w, cfg.Pack.Sequence)
			}
			windows = append(windows, w)
		}
		stats := a.Stats()
		at := rapid.IntRange(0, len(states)-1).Draw(rt, "resume")
		cfg.Workers = 3
		b, err := NewStream(ctx, src, letters{}, cfg)
		if err != nil {
			rt.Fatal(err)
		}
		defer b.Close()
		for range rapid.IntRange(0, 3).Draw(rt, "before") {
			if _, err := b.Next(ctx); err != nil && err != io.EOF {
				rt.Fatal(err)
			}
		}
		if err := b.Restore(states[at]); err != nil {
			rt.Fatal(err)
		}
		for i, want := range windows[at:] {
			got, err := b.Next(ctx)
			if err != nil {
				rt.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				rt.Fatalf("window %d after resuming at %d differs", i, at)
			}
		}
		if len(windows) < total {
			if _, err := b.Next(ctx); err != io.EOF {
				rt.Fatalf("after the last window: %v", err)
			}
		}
		if got := b.Stats(); got != stats {
			rt.Fatalf("stats %+v, want %+v", got, stats)
		}
	})
}

// TestEpochs: every epoch learns every document, in another order.
func TestEpochs(t *testing.T) {
	src := library(40)
	cfg := Config{Sentinels: sentinels, Pack: Options{Sequence: 64}, Seed: 3, Shuffle: Shuffle{Documents: 7}}
	var counts [3]map[[2]int32]int
	for e := range counts {
		c := cfg
		c.Epochs = uint64(e) + 1
		s, err := NewStream(context.Background(), src, letters{}, c)
		if err != nil {
			t.Fatal(err)
		}
		counts[e] = bigrams(all(t, s))
		if got := s.Stats().Documents; got != int64(40*(e+1)) {
			t.Errorf("%d epochs: %d documents", e+1, got)
		}
	}
	for k, n := range counts[0] {
		if counts[1][k] != 2*n || counts[2][k] != 3*n {
			t.Fatalf("bigram %v: %d, %d, %d times in 1, 2, 3 epochs", k, n, counts[1][k], counts[2][k])
		}
	}
	order := func(epoch uint64) []string {
		s, err := NewStream(context.Background(), src, letters{}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		err = s.read(context.Background(), place{Epoch: epoch}, func(j *job) bool {
			texts = append(texts, j.doc.Content)
			return j.at.Epoch == epoch && len(texts) < 40
		})
		if err != nil {
			t.Fatal(err)
		}
		return texts
	}
	a, b := order(0), order(1)
	if slices.Equal(a, b) {
		t.Error("two epochs have the same order")
	}
	slices.Sort(a)
	slices.Sort(b)
	if !slices.Equal(a, b) {
		t.Error("two epochs have different documents")
	}
}

// failing fails at one document.
type failing struct {
	data.Slice
	unit int
}

func (f failing) OpenUnit(ctx context.Context, unit int, row int64) (data.Reader, error) {
	if unit == f.unit {
		return nil, fmt.Errorf("shard-%d.parquet: row group 0: damaged", unit)
	}
	return f.Slice.OpenUnit(ctx, unit, row)
}

func TestStreamErrors(t *testing.T) {
	cfg := Evaluation(16, sentinels)
	s, err := NewStream(context.Background(), failing{library(10), 5}, letters{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; err == nil; n++ {
		_, err = s.Next(context.Background())
	}
	if !strings.Contains(err.Error(), "shard-5.parquet: row group 0: damaged") || n < 10 {
		t.Errorf("after %d windows: %v", n, err)
	}
	if _, again := s.Next(context.Background()); again != err {
		t.Errorf("the error does not stay: %v", again)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}

	if s, err = NewStream(context.Background(), data.Slice{}, letters{}, Config{Sentinels: sentinels, Pack: Options{Sequence: 16}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(context.Background()); err == nil || !strings.Contains(err.Error(), "holds no document") {
		t.Errorf("empty source: %v", err)
	}
	for _, c := range []struct {
		o    Options
		want string
	}{{Options{Sequence: 7}, "sequence of 7 tokens"}, {Options{Sequence: 16, LossOn: "end"}, `loss_on "end"`}} {
		if _, err := NewStream(context.Background(), library(1), letters{}, Config{Sentinels: sentinels, Pack: c.o}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.o, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	if s, err = NewStream(ctx, library(5), letters{}, Config{Sentinels: sentinels, Pack: Options{Sequence: 16}}); err != nil {
		t.Fatal(err)
	}
	some(t, s, 3)
	cancel()
	for err = nil; err == nil; {
		_, err = s.Next(context.Background())
	}
	if !strings.Contains(err.Error(), "context canceled") {
		t.Errorf("cancelled: %v", err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	cfg := Config{Sentinels: sentinels, Pack: Options{Sequence: 16}}
	a, err := NewStream(context.Background(), library(5), letters{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	some(t, a, 3)
	state, err := a.State()
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewStream(context.Background(), library(6), letters{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Restore(state); err == nil || !strings.Contains(err.Error(), "other data") {
		t.Errorf("other data: %v", err)
	}
	for _, bad := range []string{"", "{}", "null", string(state) + "x", strings.Replace(string(state), `"offset":`, `"offset":-`, 1), strings.Replace(string(state), `"version":1`, `"version":2`, 1)} {
		if err := a.Restore([]byte(bad)); err == nil {
			t.Errorf("accepted %.60q", bad)
		}
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

// addStates seeds f with the states before the first n windows of w, and closes w.
func addStates(f *testing.F, w Windows, n int) {
	f.Helper()
	for range n {
		state, err := w.State()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(state)
		if _, err := w.Next(context.Background()); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
}

// restoreAny gives w any state, reads on if it is accepted, and closes w.
func restoreAny(t *testing.T, w Windows, state []byte) {
	t.Helper()
	if err := w.Restore(state); err == nil {
		for range 5 {
			if _, err := w.Next(context.Background()); err != nil {
				break
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// FuzzRestore: any state is refused, or the stream goes on without a panic.
func FuzzRestore(f *testing.F) {
	cfg := Config{Sentinels: sentinels, Pack: Options{Sequence: 16}, FIM: fim.Default(), Epochs: 2}
	make := func(t testing.TB) *Stream {
		s, err := NewStream(context.Background(), library(5), letters{}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	addStates(f, make(f), 10)
	f.Fuzz(func(t *testing.T, state []byte) {
		restoreAny(t, make(t), state)
		o, err := NewOriginal(context.Background(), library(5), letters{}, OriginalConfig{Sentinels: sentinels, Sequence: 8, CharsPerToken: .01})
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Restore(state); err == nil {
			t.Error("the state of another protocol was accepted")
		}
	})
}
