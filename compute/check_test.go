package compute

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func f32(shape ...int) Buffer { return Buffer{Space: Arena, DType: F32, Shape: shape} }
func wide(shape ...int) Buffer {
	return Buffer{Space: Arena, DType: F64, Shape: shape}
}
func half(shape ...int) Buffer {
	return Buffer{Space: Arena, DType: BF16, Shape: shape}
}
func i32(shape ...int) Buffer { return Buffer{Space: Arena, DType: I32, Shape: shape} }

var attention = Attr{Heads: 4, KVHeads: 2, HeadDim: 3, Seq: 5, Scale: 1}

// good returns a call of every kernel that fits.
func good() []Call {
	dropped := attention
	dropped.Drop = 0.1
	return []Call{
		{Kernel: Embed, In: []Buffer{f32(10, 4), f32(6, 4), i32(3), i32(3)}, Out: []Buffer{f32(3, 4)}},
		{Kernel: EmbedGrad, In: []Buffer{f32(3, 4), i32(3)}, Out: []Buffer{f32(10, 4)}},
		{Kernel: LayerNorm, In: []Buffer{f32(3, 4), f32(4), f32(4)}, Out: []Buffer{f32(3, 4)}},
		{Kernel: LayerNormGrad, In: []Buffer{f32(3, 4), f32(3, 4), f32(4)}, Out: []Buffer{f32(3, 4)}},
		{Kernel: LayerNormGrad, In: []Buffer{f32(3, 4), f32(3, 4), f32(4), f32(3, 4)}, Out: []Buffer{f32(3, 4), f32(4), f32(4)}},
		{Kernel: LayerNormGainGrad, In: []Buffer{f32(3, 4), f32(3, 4)}, Out: []Buffer{f32(4)}},
		{Kernel: Linear, In: []Buffer{f32(3, 4), f32(5, 4)}, Out: []Buffer{f32(3, 5)}},
		{Kernel: Linear, In: []Buffer{f32(3, 4), f32(5, 4), f32(5), f32(3, 5)}, Out: []Buffer{f32(3, 5)}},
		{Kernel: LinearGradX, In: []Buffer{f32(3, 5), f32(5, 4), f32(3, 4)}, Out: []Buffer{f32(3, 4)}},
		{Kernel: LinearGradW, In: []Buffer{f32(3, 5), f32(3, 4)}, Out: []Buffer{f32(5, 4)}},
		{Kernel: BiasGrad, In: []Buffer{f32(3, 5)}, Out: []Buffer{f32(5)}},
		{Kernel: Attention, Attr: attention, In: []Buffer{f32(10, 24), i32(10)}, Out: []Buffer{f32(10, 12)}},
		{Kernel: Attention, Attr: dropped, In: []Buffer{f32(10, 24), i32(10), i32(2)}, Out: []Buffer{f32(10, 12), f32(10, 4)}},
		{Kernel: AttentionGrad, Attr: dropped, In: []Buffer{f32(10, 12), f32(10, 24), i32(10), i32(2)}, Out: []Buffer{f32(10, 24)}},
		{Kernel: AttentionGrad, Attr: dropped, In: []Buffer{f32(10, 12), f32(10, 24), i32(10), i32(2), f32(10, 12), f32(10, 4)}, Out: []Buffer{f32(10, 24)}},
		{Kernel: Activation, Attr: Attr{Act: ReLU}, In: []Buffer{f32(3, 4)}, Out: []Buffer{f32(3, 4)}},
		{Kernel: ActivationGrad, Attr: Attr{Act: GELUErf}, In: []Buffer{f32(3, 4), f32(3, 4)}, Out: []Buffer{f32(3, 4)}},
		{Kernel: Add, In: []Buffer{f32(3, 4), f32(3, 4)}, Out: []Buffer{f32(3, 4)}},
		{Kernel: Dropout, Attr: Attr{Drop: 0.5}, In: []Buffer{f32(3, 4), i32(2)}, Out: []Buffer{f32(3, 4)}},
		{Kernel: CrossEntropy, Attr: Attr{Vocab: 9}, In: []Buffer{f32(3, 4), f32(10, 4), i32(3), f32(1)}, Out: []Buffer{f32(1), f32(3, 4), f32(10, 4)}},
		{Kernel: TokenNLL, Attr: Attr{Vocab: 10}, In: []Buffer{f32(3, 4), f32(10, 4), i32(3)}, Out: []Buffer{f32(3)}},
		{Kernel: SumSquares, In: []Buffer{f32(3, 4)}, Out: []Buffer{wide(1)}},
		{Kernel: AdamW, In: []Buffer{f32(12), f32(8)}, Out: []Buffer{f32(12), f32(3, 4), f32(12)}},
		{Kernel: Zero, Out: []Buffer{f32(12)}},
	}
}

func TestCheckAcceptsEveryKernel(t *testing.T) {
	seen := map[Kernel]bool{}
	for _, c := range good() {
		seen[c.Kernel] = true
		if err := c.Check(); err != nil {
			t.Error(err)
		}
		for _, buffers := range [][]Buffer{c.In, c.Out} {
			for i := range buffers {
				if buffers[i].DType == F32 {
					buffers[i].DType = F64
				}
			}
		}
		if err := c.Check(); err != nil {
			t.Errorf("in float64: %v", err)
		}
	}
	for _, k := range Kernels() {
		if !seen[k] {
			t.Errorf("%v is not tested", k)
		}
		if strings.HasPrefix(k.String(), "Kernel(") || k.String() == "" {
			t.Errorf("kernel %d has no name", k)
		}
	}
}

// In a mixed plan parameters and activations are BF16 and everything else is as it was; whatever else is mixed is refused.
func TestCheckMixed(t *testing.T) {
	for _, c := range good() {
		sig := signatureOf(c.Kernel)
		all := map[*Buffer]operand{}
		for i := range c.In {
			all[&c.In[i]] = sig.in[i]
		}
		for i := range c.Out {
			all[&c.Out[i]] = sig.out[i]
		}
		floats := 0
		for b, o := range all {
			if b.Space != None && b.DType == F32 && !o.exact {
				b.DType = BF16
				floats++
			}
		}
		if err := c.Check(); err != nil {
			t.Error(err)
		}
		for b, o := range all {
			was := b.DType
			for _, d := range []DType{F32, F64, BF16} {
				if b.Space == None || o.dtype != F32 || d == was || floats < 2 && !o.exact || c.Kernel == SumSquares || c.Kernel == Zero {
					continue
				}
				if c.Kernel == BiasGrad && d == F32 || c.Kernel == LinearGradW && d == F32 {
					continue // what is exact may be beside either
				}
				if b.DType = d; c.Check() == nil {
					t.Errorf("%v: %s as %v is accepted", c.Kernel, o.name, d)
				}
				b.DType = was
			}
		}
	}
	step := Call{Kernel: AdamW, In: []Buffer{f32(12), f32(8)}, Out: []Buffer{f32(3, 4), f32(12), f32(12), half(3, 4)}}
	if err := step.Check(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		copied Buffer
		want   string
	}{
		{half(3, 5), "copy has 15 elements of bf16, expected the gradient's 12 of bf16 or f16"},
		{f32(3, 4), "copy has 12 elements of f32, expected the gradient's 12 of bf16"},
		{i32(3, 4), "output copy is i32"},
	} {
		step.Out[3] = c.copied
		if err := step.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, expected %q", err, c.want)
		}
	}
}

// Every required operand is missed, and every operand's type and every single dimension is checked.
func TestCheckRefusesEveryChange(t *testing.T) {
	// free lists the dimensions that only size the call: "kernel/side/operand/dimension".
	free := map[string]bool{
		"Embed/in/0/0": true, "Embed/in/1/0": true, "EmbedGrad/out/0/0": true, // rows of tables
		"TokenNLL/in/1/0":   true, // more padding
		"BiasGrad/in/0/0":   true,
		"SumSquares/in/0/0": true, "SumSquares/in/0/1": true,
		"Zero/out/0/0": true,
	}
	for number := range good() {
		fresh := func() (*Call, map[string][]Buffer) {
			c := good()[number]
			c.Name = "site"
			return &c, map[string][]Buffer{"in": c.In, "out": c.Out}
		}
		c, sides := fresh()
		sig := signatureOf(c.Kernel)
		for side, buffers := range sides {
			ops := map[string][]operand{"in": sig.in, "out": sig.out}[side]
			for i := range buffers {
				refused := func(what string, change func(*Buffer)) {
					t.Helper()
					c, sides := fresh()
					change(&sides[side][i])
					if err := c.Check(); err == nil || !strings.HasPrefix(err.Error(), "site: "+c.Kernel.String()+": ") {
						t.Errorf("%v %s %s: %s: %v", c.Kernel, side, ops[i].name, what, err)
					}
				}
				needed := !ops[i].optional || c.Kernel == AttentionGrad || ops[i].name == "key"
				if needed {
					refused("missing", func(b *Buffer) { *b = Buffer{} })
				}
				refused("type", func(b *Buffer) {
					if b.DType == I32 {
						b.DType = F32
					} else {
						b.DType = I32
					}
				})
				if c.Kernel != SumSquares || side == "out" {
					refused("one more dimension", func(b *Buffer) { b.Shape = append(b.Shape, 2) })
				}
				for d := range buffers[i].Shape {
					refused("no elements", func(b *Buffer) { b.Shape[d] = 0 })
					refused("negative", func(b *Buffer) { b.Shape[d] = -b.Shape[d] })
					refused("huge", func(b *Buffer) { b.Shape[d] = 1 << 60 })
					if !free[fmt.Sprintf("%v/%s/%d/%d", c.Kernel, side, i, d)] {
						refused("one more", func(b *Buffer) { b.Shape[d]++ })
					}
				}
			}
		}
	}
}

func TestCheckMessages(t *testing.T) {
	with := func(change func(*Attr)) Attr {
		a := attention
		change(&a)
		return a
	}
	attend := func(a Attr) Call {
		return Call{Kernel: Attention, Attr: a, In: []Buffer{f32(10, 24), i32(10)}, Out: []Buffer{f32(10, 12)}}
	}
	loss := func(vocab int) Call {
		return Call{Kernel: TokenNLL, Attr: Attr{Vocab: vocab}, In: []Buffer{f32(3, 4), f32(10, 4), i32(3)}, Out: []Buffer{f32(3)}}
	}
	drop := func(p float64) Call {
		return Call{Kernel: Dropout, Attr: Attr{Drop: p}, In: []Buffer{f32(3, 4), i32(2)}, Out: []Buffer{f32(3, 4)}}
	}
	nan := 0.0
	nan /= nan
	for _, c := range []struct {
		want string
		call Call
	}{
		{"block 7: unknown kernel Kernel(0)", Call{}},
		{"unknown kernel Kernel(99)", Call{Kernel: 99}},
		{"Add: 3 inputs, expected at most 2", Call{Kernel: Add, In: make([]Buffer, 3)}},
		{"Add: input b is missing", Call{Kernel: Add, In: []Buffer{f32(1)}, Out: []Buffer{f32(1)}}},
		{"Add: output y is missing", Call{Kernel: Add, In: []Buffer{f32(1), f32(1)}}},
		{"Add: input b is i32, expected f32", Call{Kernel: Add, In: []Buffer{f32(1), i32(1)}, Out: []Buffer{f32(1)}}},
		{"Add: b is f64 where a is f32", Call{Kernel: Add, In: []Buffer{f32(1), wide(1)}, Out: []Buffer{f32(1)}}},
		{"SumSquares: output sum is f32, expected f64", Call{Kernel: SumSquares, In: []Buffer{f32(1)}, Out: []Buffer{f32(1)}}},
		{"output has shape [2 3], expected [3 2]", Call{Kernel: Activation, Attr: Attr{Act: ReLU}, In: []Buffer{f32(3, 2)}, Out: []Buffer{f32(2, 3)}}},
		{"unknown activation Act(0)", Call{Kernel: Activation, In: []Buffer{f32(3)}, Out: []Buffer{f32(3)}}},
		{"heads 4, key heads 3", attend(with(func(a *Attr) { a.KVHeads = 3 }))},
		{"head dimension 0", attend(with(func(a *Attr) { a.HeadDim = 0 }))},
		{"10 tokens, expected a multiple of the sequence length 4", attend(with(func(a *Attr) { a.Seq = 4 }))},
		{"dropout 0.5 without a key", attend(with(func(a *Attr) { a.Drop = 0.5 }))},
		{"probability of dropping -0.5", attend(with(func(a *Attr) { a.Drop = -0.5 }))},
		{"probability of dropping 1,", drop(1)},
		{"probability of dropping NaN", drop(nan)},
		{"11 scored vocabulary rows, expected 1 to 10", loss(11)},
		{"0 scored vocabulary rows", loss(0)},
	} {
		c.call.Name = "block 7"
		if err := c.call.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, expected …%s…", err, c.want)
		}
	}
}

func TestCheckHost(t *testing.T) {
	shape := func(d DType, dims ...int) Buffer { return Buffer{DType: d, Shape: dims} }
	c := Call{Name: "site", Kernel: Linear, Attr: Attr{Alpha: 1}, In: []Buffer{shape(F32, 1, 2), shape(F32, 3, 2), shape(F32, 3)}, Out: []Buffer{shape(F32, 1, 3)}}
	floats := func(n int) Host { return Host{F32: make([]float32, n)} }
	for _, x := range []struct {
		want    string
		in, out []Host
	}{
		{"", []Host{floats(2), floats(6), floats(3)}, []Host{floats(3)}},
		{"", []Host{floats(2), floats(6), {}}, []Host{floats(3)}},
		{"", []Host{floats(2), floats(6)}, []Host{floats(3)}},
		{"input w is missing", []Host{floats(2)}, []Host{floats(3)}},
		{"output y is missing", []Host{floats(2), floats(6)}, nil},
		{"input 1 has 5 f32 elements, expected 6 for shape [3 2]", []Host{floats(2), floats(5)}, []Host{floats(3)}},
		{"output 0 has 0 f32 elements", []Host{floats(2), floats(6)}, []Host{{F64: make([]float64, 3)}}},
		{"4 input slices for 3 buffers", []Host{floats(2), floats(6), floats(3), floats(3)}, []Host{floats(3)}},
	} {
		err := c.CheckHost(x.in, x.out)
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("error %v, expected …%s…", err, x.want)
		}
	}
	if c.In[0].Space != None {
		t.Error("the call was changed")
	}
}

func TestRanges(t *testing.T) {
	for want, err := range map[string]error{
		"ids[2] is 7, expected 0 to 6":        CheckIDs("ids", []int32{0, 6, 7, 8}, 7),
		"positions[0] is -1, expected 0 to 6": CheckIDs("positions", []int32{-1}, 7),
		"targets[1] is 7, expected -1 to 6":   CheckTargets([]int32{-100, 7}, 7),
		"docStart[3] is 2, expected 0 to 1":   CheckDocStart([]int32{0, 1, 0, 2}, 2),
		"docStart[0] is -1, expected 0 to 0":  CheckDocStart([]int32{-1, 1}, 2),
	} {
		var r *RangeError
		if !errors.As(err, &r) || err.Error() != want {
			t.Errorf("error %v, expected %s", err, want)
		}
	}
	for _, err := range []error{CheckIDs("ids", []int32{0, 6}, 7), CheckTargets([]int32{-100, 6}, 7), CheckDocStart([]int32{0, 0, 2, 0}, 4)} {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestDropThreshold(t *testing.T) {
	for p, want := range map[float64]uint32{0: 0, 0.5: 1 << 31, 0.25: 1 << 30, 1: 1<<32 - 1, 1e-12: 0} {
		if got := DropThreshold(p); got != want {
			t.Errorf("DropThreshold(%v) = %d, expected %d", p, got, want)
		}
	}
}

func TestDropWordsAreKeyedByEveryArgument(t *testing.T) {
	base := DropWords([2]int32{1, -2}, 3, 1<<33+4)
	for what, other := range map[string][4]uint32{
		"key": DropWords([2]int32{1, -3}, 3, 1<<33+4), "salt": DropWords([2]int32{1, -2}, 4, 1<<33+4),
		"block": DropWords([2]int32{1, -2}, 3, 1<<33+5), "high half of the block": DropWords([2]int32{1, -2}, 3, 4),
	} {
		if other == base {
			t.Errorf("%s changes nothing", what)
		}
	}
}

func TestBuffer(t *testing.T) {
	b := Buffer{Space: Arena, DType: F64, Shape: []int{3, 5}}
	if b.Len() != 15 || b.Bytes() != 120 {
		t.Errorf("%d elements, %d bytes", b.Len(), b.Bytes())
	}
	if absent := (Buffer{DType: F32, Shape: []int{3}}); absent.Len() != 0 || absent.Bytes() != 0 {
		t.Error("an absent buffer has elements")
	}
	for want, s := range map[string]fmt.Stringer{
		"arena": Arena, "none": None, "Space(9)": Space(9), "f32": F32, "DType(0)": DType(0), "gelu_tanh": GELUTanh, "Act(9)": Act(9),
	} {
		if s.String() != want {
			t.Errorf("%q, expected %q", s.String(), want)
		}
	}
}
