package infer

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/infer/infertest"
	"autodev/model"
	"autodev/model/packed"
)

// shapes are models whose sizes are no multiples of what kernels work in, with every way to end.
var shapes = map[string]func(*model.Config){
	"multi-query": nil,
	"multi-head":  func(c *model.Config) { c.KVHeads = c.Heads; c.Tied = false; c.Activation = compute.GELUErf },
	"wide": func(c *model.Config) {
		c.Embed = 576
		c.Inner = 1100
		c.Layers = 1
		c.Positions = 200
		c.Activation = compute.ReLU
	},
}

func shaped(change func(*model.Config)) *model.Checkpoint {
	c := infertest.Config(97)
	if change != nil {
		change(&c)
	}
	return infertest.Checkpoint(c)
}

// packTo packs ckpt and returns the folder.
func packTo(t testing.TB, ckpt *model.Checkpoint, o PackOptions) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "packed")
	if o.Method == "" {
		o.Method = PackSearch
	}
	if _, err := Pack(context.Background(), dir, ckpt.Config, ckpt.Weights, o); err != nil {
		t.Fatal(err)
	}
	return dir
}

func loadPacked(t testing.TB, dir string, o Options) *Model {
	t.Helper()
	f, err := packed.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := LoadPacked(t.Context(), f, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// TestPackedEqualsLoaded: a packed folder gives the bits of a model quantised while it is loaded, whatever the threads that
// packed and run it, however the sequence is cut.
func TestPackedEqualsLoaded(t *testing.T) {
	for name, change := range shapes {
		for _, w := range packable() {
			t.Run(name+" "+string(w), func(t *testing.T) {
				ckpt := shaped(change)
				m, err := New(ckpt, nil, Options{Threads: 1, Weights: w})
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				r := rand.New(rand.NewPCG(3, 4))
				ids := randomIDs(r, m.vocab, 150)
				want := allLogits(t, m, ids, len(ids))
				dir := packTo(t, ckpt, PackOptions{Weights: w, Threads: 3})
				for _, threads := range []int{1, 3} {
					p := loadPacked(t, dir, Options{Threads: threads, Weights: w, HugePages: map[int]HugePages{1: HugePagesOn, 3: HugePagesOff}[threads]})
					for _, sizes := range [][]int{{len(ids)}, {1}, {7, 40, 1, 13}} {
						for i, got := range allLogits(t, p, ids, sizes...) {
							if !sameBits(got, want[i]) {
								t.Fatalf("%d threads, chunks of %v: logits after token %d differ", threads, sizes, i)
							}
						}
					}
				}
			})
		}
	}
}

// TestPackIsDeterministic: same model, same bytes, for any number of threads, with calibration too.
func TestPackIsDeterministic(t *testing.T) {
	ckpt := shaped(nil)
	r := rand.New(rand.NewPCG(7, 8))
	documents := [][]int32{randomIDs(r, 97, 300), randomIDs(r, 97, 1), randomIDs(r, 97, 77)}
	for _, o := range []PackOptions{{Weights: Int8}, {Weights: Int4, Method: PackNearest}, {Weights: Int4, Method: PackGPTQ, Calibration: documents}} {
		var want string
		for _, threads := range []int{1, 3} {
			o.Threads = threads
			b, err := os.ReadFile(filepath.Join(packTo(t, ckpt, o), packed.File))
			if err != nil {
				t.Fatal(err)
			}
			if want == "" {
				want = string(b)
			} else if want != string(b) {
				t.Errorf("%s %s: %d threads wrote other bytes", o.Weights, o.Method, threads)
			}
		}
	}
}

// TestCalibratedIsNearer: on text like the calibration's, the calibrated model's hidden states are nearer to the float32 model's
// than those of one rounded to nearest.
func TestCalibratedIsNearer(t *testing.T) {
	ckpt := shaped(func(c *model.Config) { c.KVHeads = c.Heads; c.Tied = false })
	r := rand.New(rand.NewPCG(9, 10))
	var documents [][]int32
	for range 12 {
		documents = append(documents, randomIDs(r, 97, 200))
	}
	ids := randomIDs(r, 97, 200)
	exact := newModel(t, ckpt, nil, 2)
	want := allLogits(t, exact, ids, len(ids))
	distance := func(o PackOptions) (d float64) {
		got := allLogits(t, loadPacked(t, packTo(t, ckpt, o), Options{Threads: 2}), ids, len(ids))
		for i := range got {
			for j, v := range got[i] {
				e := float64(v - want[i][j])
				d += e * e
			}
		}
		return d
	}
	nearest := distance(PackOptions{Weights: Int4, Method: PackNearest})
	calibrated := distance(PackOptions{Weights: Int4, Method: PackGPTQ, Calibration: documents})
	if !(calibrated < 0.7*nearest) {
		t.Errorf("squared distance of the logits: %v calibrated, %v rounded to nearest", calibrated, nearest)
	}
}

// TestCloseKeepsWhatRuns: weights stay mapped while a session is in use, and a closed model refuses instead of faulting.
func TestCloseKeepsWhatRuns(t *testing.T) {
	ckpt := shaped(nil)
	m := loadPacked(t, packTo(t, ckpt, PackOptions{Weights: Int8}), Options{Threads: 2})
	s := m.NewSession()
	if _, err := s.Append(t.Context(), []int32{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	m.Close()
	if _, err := s.Append(t.Context(), []int32{4}); err != nil {
		t.Errorf("a session in use after Close: %v", err)
	}
	if m.folder == nil {
		t.Error("the weights were unmapped under a session in use")
	}
	s.Close()
	if m.folder != nil {
		t.Error("the weights are still mapped after the last session")
	}
	late := m.NewSession()
	defer late.Close()
	if _, err := late.Append(t.Context(), []int32{1}); !errors.Is(err, errClosed) {
		t.Errorf("a session after Close: %v", err)
	}
}

func TestPackRefuses(t *testing.T) {
	ckpt := shaped(nil)
	for _, c := range []struct {
		o    PackOptions
		want string
	}{
		{PackOptions{Weights: Float32, Method: PackSearch}, `weights: found "float32", expected bf16, int8 or int4`},
		{PackOptions{Weights: Int8, Method: "best"}, `method: found "best", expected one of [search rtn gptq]`},
		{PackOptions{Weights: BFloat16, Method: PackNearest}, `method: found "rtn", expected "search" for bf16: there is nothing to choose`},
		{PackOptions{Weights: Int4, Method: PackGPTQ}, `method: gptq needs calibration documents, found none`},
		{PackOptions{Weights: Int4, Method: PackGPTQ, Calibration: [][]int32{{1}, {97}}}, `calibration document 1: sequence: token 0: found id 97, expected 0 to 96`},
	} {
		_, err := Pack(t.Context(), filepath.Join(t.TempDir(), "x"), ckpt.Config, ckpt.Weights, c.o)
		if err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%+v: %v, expected %s", c.o, err, c.want)
		}
	}
	dir := packTo(t, ckpt, PackOptions{Weights: Int8})
	f, err := packed.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPacked(t.Context(), f, nil, Options{Weights: Int4}); err == nil || !strings.Contains(err.Error(), "found int4, but the folder") {
		t.Errorf("int4 from an int8 folder: %v", err)
	}
	if _, err := New(ckpt, nil, Options{Weights: "int3"}); err == nil || err.Error() != `weights: found "int3", expected float32, bf16, float16, int8 or int4` {
		t.Errorf("int3: %v", err)
	}
}

// TestLoadPackedChecksSizes: parts of a size that is not the kernels' are refused by name, and a format nobody knows.
func TestLoadPackedChecksSizes(t *testing.T) {
	ckpt := shaped(nil)
	for format, want := range map[string]string{
		"int8": "tensor transformer.h.0.attn.c_attn.weight: quantised weight: int8 of shape [72 48] has 64 bytes of codes and 64 of scales, expected ",
		"bf16": "tensor transformer.h.0.attn.c_attn.weight: ",
		"int3": `tensor transformer.h.0.attn.c_attn.weight: format "int3", expected bf16, int8 or int4`,
	} {
		dir := filepath.Join(t.TempDir(), "p")
		entries := packEntries(ckpt.Config, Int8)
		for i := range entries {
			if e := &entries[i]; e.Name == "transformer.h.0.attn.c_attn.weight" {
				e.Format, e.Parts = format, []packed.Part{{Name: partCodes, Size: 64}, {Name: partScales, Size: 64}}
			}
		}
		q := &packed.Quantization{Weights: "int8"}
		err := packed.Create(t.Context(), dir, ckpt.Config, q, entries, nil, func(w *packed.Writer) error {
			for _, e := range entries {
				if e.Format == packed.Float32 {
					if err := w.Float32(e.Name, ckpt.Weights.Data(e.Name)); err != nil {
						return err
					}
					continue
				}
				var parts [][]byte
				for _, p := range e.Parts {
					parts = append(parts, make([]byte, p.Size))
				}
				if err := w.Bytes(e.Name, parts...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		f, err := packed.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := LoadPacked(t.Context(), f, nil, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %s", format, err, want)
		}
	}
}

// TestPackedConfig: what a folder says about itself.
func TestPackedConfig(t *testing.T) {
	dir := packTo(t, shaped(nil), PackOptions{Weights: Int4, Method: PackGPTQ, Calibration: [][]int32{{1, 2, 3}, {4}}})
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Q packed.Quantization `json:"quantization_config"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if v.Q.Method != packed.Method || v.Q.Weights != "int4" || v.Q.Group != 64 || v.Q.Calibration == nil || v.Q.Calibration.Tokens != 4 || v.Q.Calibration.Documents != 2 {
		t.Errorf("%+v", v.Q)
	}
	if _, err := model.Open(dir); err == nil || !strings.Contains(err.Error(), "quantization_config") {
		t.Errorf("opened as a folder of plain weights: %v", err)
	}
}

// TestFuse: activations and sums become part of the products before them, and only where nothing else reads those.
func TestFuse(t *testing.T) {
	m := randomModel(t, nil, 1)
	perBlock := map[opcode]int{}
	for _, s := range m.program.steps {
		perBlock[s.op]++
	}
	layers := m.config.Layers
	want := map[opcode]int{opEmbed: 1, opLayerNorm: 2*layers + 1, opLinear: 4 * layers, opAttention: layers, opHead: 1}
	for op := opEmbed; op <= opHead; op++ {
		if perBlock[op] != want[op] {
			t.Errorf("operation %d: %d steps, expected %d", op, perBlock[op], want[op])
		}
	}
	// A product that is read twice, one whose other operand comes later, and one activated after its sum stay as they are.
	ckpt := shaped(nil)
	tr := &tracer{source: newPacker(context.Background(), nil, ckpt.Config, ckpt.Weights, Float32), block: -1}
	x := tr.Embed("transformer.wte.weight", "transformer.wpe.weight")
	a := tr.Linear(x, "transformer.h.0.attn.c_proj")
	b := tr.Activate(a, compute.GELUTanh) // a is read again
	c := tr.Add(a, b)
	d := tr.Linear(c, "transformer.h.1.attn.c_proj")
	e := tr.Activate(tr.Add(d, c), compute.ReLU) // the sum is fused, the activation cannot be
	f := tr.Linear(e, "transformer.h.2.attn.c_proj")
	g := tr.LayerNorm(e, "transformer.h.2.ln_1", 1e-5) // later than f
	tr.Head(tr.Add(f, g), "transformer.wte.weight")
	p, err := tr.program()
	if err != nil {
		t.Fatal(err)
	}
	var ops []opcode
	fused := 0
	for _, s := range p.steps {
		ops = append(ops, s.op)
		if s.op == opLinear && (s.fused || s.y >= 0) {
			fused++
		}
	}
	if len(ops) != 10 || fused != 1 {
		t.Errorf("%d steps %v with %d fused products, expected 10 and 1", len(ops), ops, fused)
	}
	// What products read alone may be left quantised, but for what else is read.
	tr = &tracer{source: newPacker(context.Background(), nil, ckpt.Config, ckpt.Weights, Int8), block: -1}
	x = tr.Embed("transformer.wte.weight", "transformer.wpe.weight")
	n := tr.LayerNorm(x, "transformer.h.2.ln_1", 1e-5)           // read by two products, the next steps
	y := tr.Linear(n, "transformer.h.0.attn.c_proj")             // added to
	z := tr.Linear(n, "transformer.h.1.attn.c_proj")             // read by one
	z = tr.Linear(z, "transformer.h.2.attn.c_proj")              // a sum
	n = tr.LayerNorm(tr.Add(y, z), "transformer.h.2.ln_2", 1e-5) // read again later
	y = tr.Linear(n, "transformer.h.0.attn.c_proj")
	z = tr.Linear(y, "transformer.h.1.attn.c_proj")
	tr.Head(tr.Add(tr.Linear(n, "transformer.h.1.attn.c_proj"), z), "transformer.wte.weight")
	if p, err = tr.program(); err != nil {
		t.Fatal(err)
	}
	var codes []bool
	for _, s := range p.steps {
		codes = append(codes, s.codes)
	}
	if want := []bool{false, true, false, true, false, false, true, false, false, false}; !slices.Equal(codes, want) {
		t.Errorf("left quantised: %v, expected %v", codes, want)
	}
}
