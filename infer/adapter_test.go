package infer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"autodev/infer/infertest"
	"autodev/lora"
	"autodev/model"
	"autodev/model/safetensors"
)

// adapterFolder writes an adapter with random factors for all linear modules and returns the folder.
func adapterFolder(t testing.TB, c model.Config, seed uint64, targets ...string) string {
	t.Helper()
	if len(targets) == 0 {
		targets = []string{lora.AllLinear}
	}
	a, err := lora.New(c, lora.Spec{Rank: 3 + int(seed%3), Alpha: 8, Targets: targets}, seed)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed, 7))
	for _, m := range a.Modules {
		for i := range a.Data(m.B()) {
			a.Data(m.B())[i] = float32(0.1 * r.NormFloat64())
		}
	}
	dir := filepath.Join(t.TempDir(), "adapter")
	if err := a.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func loadAdapter(t testing.TB, m *Model, name, dir string) *adapter {
	t.Helper()
	if err := m.LoadAdapter(t.Context(), name, dir); err != nil {
		t.Fatal(err)
	}
	a, err := m.adapter(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// adaptedLogits evaluates ids at once.
func adaptedLogits(t testing.TB, m *Model, with *adapter, ids []int32) (all []float32) {
	t.Helper()
	s := m.newSession(with)
	defer s.Close()
	err := s.AppendAll(t.Context(), ids, 0, func(_ int, logits []float32) error {
		all = append(all, logits...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// apart is the root of the mean square of a−b over that of b.
func apart(a, b []float32) float64 {
	var off, size float64
	for i := range b {
		off += math.Pow(float64(a[i])-float64(b[i]), 2)
		size += math.Pow(float64(b[i]), 2)
	}
	return math.Sqrt(off / size)
}

// TestAdapterEqualsPEFT: logits with an adapter are those that PEFT computes with it.
func TestAdapterEqualsPEFT(t *testing.T) {
	golden := filepath.Join("..", "lora", "testdata", "peft")
	for _, name := range []string{"all-linear", "patterns", "regex", "layers", "conv1d", "multi-head"} {
		raw, err := os.ReadFile(filepath.Join(golden, name, "expected.json"))
		if err != nil {
			t.Fatal(err)
		}
		var about struct {
			Base string
			IDs  [][]int32
		}
		if err := json.Unmarshal(raw, &about); err != nil {
			t.Fatal(err)
		}
		file, err := safetensors.Open(filepath.Join(golden, name, "expected.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		want, err := file.Float32s("logits")
		if err != nil {
			t.Fatal(err)
		}
		file.Close()
		ckpt, err := model.Load(t.Context(), filepath.Join(golden, about.Base))
		if err != nil {
			t.Fatal(err)
		}
		m := newModel(t, ckpt, nil, 2)
		with := loadAdapter(t, m, "golden", filepath.Join(golden, name, "adapter"))
		for _, ids := range about.IDs {
			n := len(ids) * m.vocab
			got := adaptedLogits(t, m, with, ids)
			if d := apart(got, want[:n]); !(d < 1e-5) {
				t.Errorf("%s: %.2g from PEFT's logits", name, d)
			}
			if d := apart(adaptedLogits(t, m, nil, ids), want[:n]); !(d > 1e-2) {
				t.Errorf("%s: without the adapter %.2g from PEFT's logits, expected more", name, d)
			}
			want = want[n:]
		}
	}
}

// TestAdapterEqualsMerged: an adapter does what merging it into the weights does: in float32 but for rounding, in other formats with no larger an error than
// that of the merged model's weights.
func TestAdapterEqualsMerged(t *testing.T) {
	ckpt := infertest.Checkpoint(wideConfig())
	dir := adapterFolder(t, ckpt.Config, 5)
	merged := infertest.Checkpoint(ckpt.Config)
	a, err := lora.Load(dir, merged.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Merge(merged.Weights); err != nil {
		t.Fatal(err)
	}
	ids := randomIDs(rand.New(rand.NewPCG(1, 2)), 97, 120)
	var want []float32
	for _, w := range WeightFormats() {
		var logits [2][]float32 // adapted, merged
		for i, ckpt := range []*model.Checkpoint{ckpt, merged} {
			m, err := New(ckpt, nil, Options{Threads: 2, Weights: w})
			if err != nil {
				t.Fatal(err)
			}
			var with *adapter
			if i == 0 {
				with = loadAdapter(t, m, "a", dir)
			}
			logits[i] = adaptedLogits(t, m, with, ids)
			m.Close()
		}
		if w == Float32 {
			if want = logits[1]; !(apart(logits[0], want) < 1e-5) {
				t.Errorf("%s: %.2g from the merged model", w, apart(logits[0], want))
			}
			continue
		}
		if adapted, merged := apart(logits[0], want), apart(logits[1], want); !(adapted < 1.3*merged) || merged == 0 {
			t.Errorf("%s: %.2g from the merged model in float32; the merged model is %.2g", w, adapted, merged)
		}
	}
}

// wideConfig is of a model whose rows have several groups of quantisation.
func wideConfig() model.Config {
	c := infertest.Config(97)
	c.Embed, c.Inner, c.Layers = 288, 576, 2
	return c
}

// TestAdapterBits: a token's logits with an adapter have the same bits however the sequence is cut, for any number of threads, and whatever adapters the
// other sequences of its passes have; those without one are the model's own.
func TestAdapterBits(t *testing.T) {
	ckpt := infertest.Checkpoint(wideConfig())
	first, second := adapterFolder(t, ckpt.Config, 1), adapterFolder(t, ckpt.Config, 2, "c_fc", "attn.c_proj")
	r := rand.New(rand.NewPCG(3, 4))
	ids := randomIDs(r, 97, 150)
	for _, w := range WeightFormats() {
		var want [3][]float32 // by adapter
		for threads := range 3 {
			m, err := New(ckpt, nil, Options{Threads: 1 + threads, Weights: w})
			if err != nil {
				t.Fatal(err)
			}
			with := []*adapter{nil, loadAdapter(t, m, "first", first), loadAdapter(t, m, "second", second)}
			if threads == 0 {
				plain, err := New(ckpt, nil, Options{Threads: 1, Weights: w})
				if err != nil {
					t.Fatal(err)
				}
				want[0] = adaptedLogits(t, plain, nil, ids)
				plain.Close()
				for i := 1; i < 3; i++ {
					if want[i] = adaptedLogits(t, m, with[i], ids); apart(want[i], want[0]) < 0.01 {
						t.Fatalf("adapter %d does nothing", i)
					}
				}
			}
			// Sequences of all kinds, some tokens of each at a time.
			var sessions []*Session
			for i := range 7 {
				s := m.newSession(with[i%3])
				if err := s.reserve(len(ids)); err != nil {
					t.Fatal(err)
				}
				sessions = append(sessions, s)
			}
			work, err := m.workspace()
			if err != nil {
				t.Fatal(err)
			}
			var b batch
			for slices.ContainsFunc(sessions, func(s *Session) bool { return s.Len() < len(ids) }) {
				var spans []*span
				var in []int
				for i, s := range sessions {
					if n := min(r.IntN(40)*r.IntN(2), len(ids)-s.Len()); n > 0 {
						spans = append(spans, &span{ctx: t.Context(), kv: s.kv, ids: ids[s.Len():][:n], at: s.Len(), adapter: s.with.inPass()})
						in = append(in, i)
					}
				}
				if len(spans) == 0 {
					continue
				}
				b.begin(m, work, spans)
				if err := wholly(&b); err != nil {
					t.Fatal(err)
				}
				for i, sp := range spans {
					s := sessions[in[i]]
					if !sameBits(sp.logits, want[in[i]%3][sp.at*m.rows:][:len(sp.logits)]) {
						t.Fatalf("%s, %d threads: sequence %d: other bits from token %d on", w, 1+threads, in[i], sp.at)
					}
					s.commit(sp.ids)
				}
			}
			for _, s := range sessions {
				s.Close()
			}
			m.release(work)
			for _, a := range m.Adapters() {
				if a.Users != 0 {
					t.Errorf("%s has %d users afterwards", a.Name, a.Users)
				}
			}
			m.Close()
		}
	}
}

// TestAdaptersTogether: requests for several adapters at once, of prompts that begin alike, get what each gets alone, while one of the adapters is replaced:
// then the old one's answer or the new one's.
func TestAdaptersTogether(t *testing.T) {
	m := textModel(t, func(c *model.Config) { c.Positions = 700 }, 2)
	e := NewEngine(m, EngineOptions{Concurrency: 5, Queue: 1000})
	defer e.Close()
	dirs := map[string]string{"a": adapterFolder(t, m.config, 1), "b": adapterFolder(t, m.config, 2)}
	other := adapterFolder(t, m.config, 3)
	for name, dir := range dirs {
		if err := e.LoadAdapter(t.Context(), name, dir); err != nil {
			t.Fatal(err)
		}
	}
	file := strings.Repeat("def add(a, b):\n    return a + b\n", 20)
	request := func(i int) Request {
		return Request{
			Prompt: Prompt{Prefix: file[:len(file)-7*(i/3%4)]}, MaxTokens: 10, Logprobs: true, Adapter: []string{"", "a", "b"}[i%3],
			Sampling: Sampling{Temperature: float64(i % 2), Seed: uint64(i % 5), Bias: noEnd(m)},
		}
	}
	want := map[string][]Result{}
	results := func(key string) {
		for i := range 30 {
			res, err := m.Generate(t.Context(), request(i), nil)
			if err != nil {
				t.Fatal(err)
			}
			want[key] = append(want[key], res)
		}
	}
	results("old")
	if sameCompletion(want["old"][0], want["old"][1]) || sameCompletion(want["old"][1], want["old"][2]) {
		t.Error("adapters do nothing")
	}
	b, _ := m.adapter("b")
	all := func(keys ...string) {
		t.Helper()
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				got := completed(failing{t}, e, request(i))
				if !slices.ContainsFunc(keys, func(key string) bool { return sameCompletion(got, want[key][i]) }) {
					t.Errorf("request %d with %d tokens cached: %q, expected %q", i, got.Cached, got.Text, want[keys[0]][i].Text)
				}
			})
			if i == 15 && len(keys) == 2 {
				if err := e.LoadAdapter(t.Context(), "b", other); err != nil {
					t.Error(err)
				}
			}
		}
		wg.Wait()
		recount(t, e.cache)
	}
	all("old")
	replaced := newModel(t, infertest.Checkpoint(m.config), m.tok, 2)
	for name, dir := range map[string]string{"a": dirs["a"], "b": other} {
		if err := replaced.LoadAdapter(t.Context(), name, dir); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 30 {
		res, err := replaced.Generate(t.Context(), request(i), nil)
		if err != nil {
			t.Fatal(err)
		}
		want["new"] = append(want["new"], res)
	}
	if sameCompletion(want["old"][2], want["new"][2]) {
		t.Error("both b are the same")
	}
	all("old", "new")
	all("new")
	if s := e.CacheStats(); len(e.cache.tree.roots) != 3 || s.Found == 0 {
		t.Errorf("%d kinds of keys and values, expected those of a, of b and of none: %+v", len(e.cache.tree.roots), s)
	}
	if b.users.Load() != 0 {
		t.Errorf("the adapter that was replaced has %d users", b.users.Load())
	}
}

// TestAdapterNames: what is loaded is listed with its users; a name that has ended is refused while who uses it goes on; errors say what is wrong.
func TestAdapterNames(t *testing.T) {
	m := randomModel(t, nil, 1)
	e := NewEngine(m, EngineOptions{})
	defer e.Close()
	dir := adapterFolder(t, m.config, 1, "attn.c_attn")
	var wrong *OptionError
	ask := func(name string) error {
		_, err := e.Complete(t.Context(), []Request{{Prompt: Prompt{IDs: []int32{1, 2}}, MaxTokens: 3, Adapter: name}}, nil)
		return err
	}
	if err := ask("x"); !errors.As(err, &wrong) || err.Error() != `adapter: found "x", but none is loaded` {
		t.Errorf("none is loaded: %v", err)
	}
	for _, name := range []string{"z", "x"} {
		if err := e.LoadAdapter(t.Context(), name, dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask("y"); !errors.As(err, &wrong) || err.Error() != `adapter: found "y", expected one of ["x" "z"]` {
		t.Errorf("another is loaded: %v", err)
	}
	if err := ask("x"); err != nil {
		t.Error(err)
	}
	x, _ := m.adapter("x")
	entry, err := e.cache.take([]int32{1, 2}, 9, x, turn{})
	if err != nil {
		t.Fatal(err)
	}
	if entry.session.Len() != 1 {
		t.Errorf("%d tokens known, expected one", entry.session.Len())
	}
	width := m.config.Embed
	out := width + 2*m.config.HeadDim()
	info := AdapterInfo{Name: "x", Path: dir, Modules: m.config.Layers, Rank: 4, Users: 1}
	got := e.Adapters()
	if len(got) != 2 || got[1].Name != "z" || got[1].Users != 0 {
		t.Fatalf("%+v", got)
	}
	// Factors are padded to the kernels' panels.
	if least := int64(4 * info.Modules * info.Rank * (width + out)); got[0].Bytes < least || got[0].Bytes > 9*least {
		t.Errorf("%d bytes, expected %d and a little", got[0].Bytes, least)
	}
	if got[0].Bytes = 0; got[0] != info {
		t.Errorf("%+v, expected %+v", got[0], info)
	}
	if err := e.UnloadAdapter("x"); err != nil {
		t.Fatal(err)
	}
	if err := ask("x"); !errors.As(err, &wrong) {
		t.Errorf("after its end: %v", err)
	}
	if _, err := entry.session.Append(t.Context(), []int32{2}); err != nil {
		t.Errorf("who has it: %v", err)
	}
	e.cache.put(entry, false)
	if n := x.users.Load(); n != 0 {
		t.Errorf("%d users", n)
	}
	recount(t, e.cache)
	if s := e.CacheStats(); s.Blocks != 0 {
		t.Errorf("%d blocks of an adapter that has ended", s.Blocks)
	}
	if err := e.UnloadAdapter("x"); !errors.As(err, &wrong) {
		t.Errorf("ended twice: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	foreign := m.config
	foreign.Embed *= 2
	for name, c := range map[string]struct {
		ctx  context.Context
		name string
		dir  string
		want string
	}{
		"no name":       {t.Context(), "", dir, "adapter: found an empty name, expected at least one character"},
		"no folder":     {t.Context(), "z", filepath.Join(dir, "none"), "no such file or directory"},
		"another model": {t.Context(), "z", adapterFolder(t, foreign, 1), "is this the adapter of another model?"},
		"cancelled":     {cancelled, "z", dir, "context canceled"},
	} {
		if err := e.LoadAdapter(c.ctx, c.name, c.dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %s", name, err, c.want)
		}
	}
	if err := ask("z"); err != nil {
		t.Errorf("after failures: %v", err)
	}
	m.Close()
	if err := m.LoadAdapter(t.Context(), "late", dir); !errors.Is(err, errClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestAdapterOnCard: cards take none while they run, and say so.
func TestAdapterOnCard(t *testing.T) {
	onCard(t, 6)
	m, _ := cardModel(t, cardCheckpoint(nil), Float32)
	var wrong *OptionError
	if err := m.LoadAdapter(t.Context(), "a", adapterFolder(t, m.config, 1)); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "CUDA") {
		t.Errorf("error %v", err)
	}
}

// BenchmarkAdapters is a token of decoding, of several sequences at a time, without and with adapters of rank 16 on all linear layers.
func BenchmarkAdapters(b *testing.B) {
	c := infertest.Config(4096)
	c.Embed, c.Inner, c.Layers, c.Heads = 2048, 8192, 4, 16
	a, err := lora.New(c, lora.Spec{Rank: 16, Alpha: 16, Targets: []string{lora.AllLinear}}, 1)
	if err != nil {
		b.Fatal(err)
	}
	dir := filepath.Join(b.TempDir(), "adapter")
	if err := a.Save(dir); err != nil {
		b.Fatal(err)
	}
	ckpt := infertest.Checkpoint(c)
	m, err := New(ckpt, nil, Options{Weights: Int8})
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	with := loadAdapter(b, m, "a", dir)
	for _, n := range []int{1, 4, 64} {
		for name, with := range map[string]*adapter{"none": nil, "rank16": with} {
			b.Run(fmt.Sprintf("%d rows/%s", n, name), func(b *testing.B) {
				s := m.newSession(with)
				defer s.Close()
				ids := make([]int32, n)
				for b.Loop() {
					s.Truncate(0)
					if _, err := s.Append(b.Context(), ids); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
