package cpu

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"autodev/compute"
)

func at(b compute.Buffer, offset int64) compute.Buffer {
	b.Offset = offset
	return b
}

func TestCompileRefusesBadCalls(t *testing.T) {
	d := New(Options{Threads: 1})
	defer d.Close()
	var bytes [compute.NumSpaces]int64
	bytes[compute.Arena] = 1 << 20
	mem, err := d.Alloc(bytes)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Free()
	row := floats(1, 16)
	sum := compute.Buffer{Space: compute.Arena, Offset: 1024, DType: compute.F64, Shape: []int{1}}
	linear := func(x, w, y, work compute.Buffer) compute.Call {
		return compute.Call{Kernel: compute.Linear, Attr: compute.Attr{Alpha: 1}, In: []compute.Buffer{x, w}, Out: []compute.Buffer{y}, Work: work}
	}
	weight, scratch := at(floats(16, 16), 4096), at(floats(1<<14), 1<<16)
	for _, c := range []struct {
		name, want string
		call       compute.Call
	}{
		{"unknown kernel", "unknown kernel Kernel(99)", compute.Call{Kernel: 99}},
		{"shapes", "second input has shape [1 15]", compute.Call{Kernel: compute.Add, In: []compute.Buffer{row, at(floats(1, 15), 64)}, Out: []compute.Buffer{at(row, 128)}}},
		{"outside", "input 1: buffer of 64 bytes at offset 1048576 of arena", compute.Call{Kernel: compute.Add, In: []compute.Buffer{row, at(row, 1<<20)}, Out: []compute.Buffer{at(row, 128)}}},
		{"output outside", "output 0: buffer of 64 bytes at offset 1048576", compute.Call{Kernel: compute.Add, In: []compute.Buffer{row, row}, Out: []compute.Buffer{at(row, 1<<20)}}},
		{"partial overlap", "output 0 overlaps input 1", compute.Call{Kernel: compute.Add, In: []compute.Buffer{at(floats(2, 16), 256), floats(2, 16)}, Out: []compute.Buffer{at(floats(2, 16), 64)}}},
		{"alias that is not allowed", "output 0 overlaps input 0", linear(row, weight, row, scratch)},
		{"no work", "work: buffer in space none", linear(row, weight, at(row, 128), compute.Buffer{})},
		{"little work", "work has 64 bytes, expected at least", linear(row, weight, at(row, 128), at(row, 1<<16))},
		{"work over an operand", "work overlaps an operand", linear(row, weight, at(row, 128), at(floats(1<<14), 4096))},
		{"outputs over each other", "outputs 1 and 0 overlap", compute.Call{Kernel: compute.AdamW, In: []compute.Buffer{row, at(floats(8), 64)}, Out: []compute.Buffer{at(row, 128), at(row, 128), at(row, 256)}}},
		{"no norm work", "work", compute.Call{Kernel: compute.SumSquares, In: []compute.Buffer{row}, Out: []compute.Buffer{sum}}},
	} {
		c.call.Name = "block 3"
		_, err := d.Compile(&compute.Plan{Calls: []compute.Call{{Kernel: compute.Add, In: []compute.Buffer{row, row}, Out: []compute.Buffer{row}}, c.call}}, mem)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "cpu: call 1: block 3: ") {
			t.Errorf("%s: error %v, expected …%s…", c.name, err, c.want)
		}
	}
	if n := d.WorkBytes(&compute.Call{Kernel: compute.Linear}); n != 0 {
		t.Errorf("a call that does not fit needs %d bytes of work", n)
	}
	if _, err := d.Compile(&compute.Plan{}, nil); err == nil {
		t.Error("foreign memory is accepted")
	}
}

// Every alias that the vocabulary allows gives the bits of separate memory.
func TestAllowedAliases(t *testing.T) {
	d := New(Options{Threads: 2})
	defer d.Close()
	k := d.Kernels()
	const n, e, o = 40, 50, 50
	x, b, w := normal(1, n*e), normal(2, n*e), normal(3, o*e)
	for name, f := range map[string]func(y, x, b []float32){
		"Add":            func(y, x, b []float32) { k.Add(y, b, x) },
		"Activation":     func(y, x, b []float32) { k.Activation(y, x, compute.GELUTanh) },
		"ActivationGrad": func(y, x, b []float32) { k.ActivationGrad(y, b, x, compute.GELUTanh) },
		"Dropout":        func(y, x, b []float32) { k.Dropout(y, x, [2]int32{1, 2}, 3, 0.5) },
		"Linear":         func(y, x, b []float32) { k.Linear(y, b, w, w[:o], x, n, e, o, 2, nil) },
		"LinearGradX":    func(y, x, b []float32) { k.LinearGradX(y, b, w, x, n, e, o, 2, nil) },
	} {
		want, inPlace := make([]float32, n*e), make([]float32, n*e)
		f(want, x, b)
		copy(inPlace, x)
		f(inPlace, inPlace, b)
		if !equalBits(want, inPlace) {
			t.Errorf("%s in place differs", name)
		}
	}
}

func TestCompileAllowsTheVocabularysAliases(t *testing.T) {
	d := New(Options{Threads: 1})
	defer d.Close()
	var bytes [compute.NumSpaces]int64
	bytes[compute.Arena] = 1 << 20
	mem, err := d.Alloc(bytes)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Free()
	x, y, w, key, work := floats(4, 16), at(floats(4, 16), 1024), at(floats(16, 16), 4096), at(ints(2), 8192), at(floats(1<<16), 1<<18)
	act := compute.Attr{Act: compute.ReLU}
	for _, c := range []compute.Call{
		{Kernel: compute.Add, In: []compute.Buffer{x, y}, Out: []compute.Buffer{x}},
		{Kernel: compute.Add, In: []compute.Buffer{y, x}, Out: []compute.Buffer{x}},
		{Kernel: compute.Activation, Attr: act, In: []compute.Buffer{x}, Out: []compute.Buffer{x}},
		{Kernel: compute.ActivationGrad, Attr: act, In: []compute.Buffer{x, y}, Out: []compute.Buffer{x}},
		{Kernel: compute.ActivationGrad, Attr: act, In: []compute.Buffer{y, x}, Out: []compute.Buffer{x}},
		{Kernel: compute.Dropout, In: []compute.Buffer{x, key}, Out: []compute.Buffer{x}},
		{Kernel: compute.Linear, In: []compute.Buffer{y, w, {}, x}, Out: []compute.Buffer{x}, Work: work},
		{Kernel: compute.LinearGradX, In: []compute.Buffer{y, w, x}, Out: []compute.Buffer{x}, Work: work},
	} {
		if _, err := d.Compile(&compute.Plan{Calls: []compute.Call{c}}, mem); err != nil {
			t.Error(err)
		}
	}
}

// countdown is a context that ends after a number of questions.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestRunStopsBetweenCalls(t *testing.T) {
	d := New(Options{Threads: 1})
	defer d.Close()
	var bytes [compute.NumSpaces]int64
	bytes[compute.Arena] = 256
	mem, err := d.Alloc(bytes)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Free()
	one, x := floats(1), at(floats(1), 64)
	if err := mem.Write(one, []float32{1}); err != nil {
		t.Fatal(err)
	}
	add := compute.Call{Kernel: compute.Add, In: []compute.Buffer{one, x}, Out: []compute.Buffer{x}}
	prog, err := d.Compile(&compute.Plan{Calls: []compute.Call{add, add, add, add}}, mem)
	if err != nil {
		t.Fatal(err)
	}
	if err := prog.Run(&countdown{context.Background(), 3}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, expected that of the context", err)
	}
	got := []float32{0}
	if err := mem.Read(x, got); err != nil || got[0] != 3 {
		t.Errorf("%v calls ran before the context ended, expected 3 (%v)", got[0], err)
	}
}

func TestFloat64PlansRun(t *testing.T) {
	d := New(Options{Threads: 2})
	defer d.Close()
	var bytes [compute.NumSpaces]int64
	bytes[compute.Arena] = 256
	mem, err := d.Alloc(bytes)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Free()
	wide := func(offset int64) compute.Buffer {
		return compute.Buffer{Space: compute.Arena, Offset: offset, DType: compute.F64, Shape: []int{2}}
	}
	if err := mem.Write(wide(0), []float64{1, 1e-12}); err != nil {
		t.Fatal(err)
	}
	prog, err := d.Compile(&compute.Plan{Calls: []compute.Call{{Kernel: compute.Add, In: []compute.Buffer{wide(0), wide(0)}, Out: []compute.Buffer{wide(64)}}}}, mem)
	if err != nil {
		t.Fatal(err)
	}
	if err := prog.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	got := make([]float64, 2)
	if err := mem.Read(wide(64), got); err != nil || got[1] != 2e-12 {
		t.Errorf("%v (%v)", got, err)
	}
}

func TestDeviceSaysWhatItIs(t *testing.T) {
	for threads, want := range map[int]string{1: ", 1 thread)", 3: ", 3 threads)"} {
		d := New(Options{Threads: threads})
		if name := d.Name(); !strings.HasPrefix(name, "cpu (") || !strings.HasSuffix(name, want) {
			t.Errorf("name %q", name)
		}
		if d.Kernels().Threads() != threads || d.Pool().Threads() != threads {
			t.Errorf("%d threads, expected %d", d.Kernels().Threads(), threads)
		}
		d.Close()
	}
}

// A plan of a hundred calls allocates little beyond what forking work costs.
func BenchmarkRun(b *testing.B) {
	d := New(Options{Threads: 2})
	defer d.Close()
	var bytes [compute.NumSpaces]int64
	bytes[compute.Arena] = 4096
	mem, err := d.Alloc(bytes)
	if err != nil {
		b.Fatal(err)
	}
	defer mem.Free()
	x := floats(4, 64)
	plan := &compute.Plan{}
	for i := range 100 {
		plan.Calls = append(plan.Calls, compute.Call{Kernel: compute.Add, In: []compute.Buffer{x, x}, Out: []compute.Buffer{at(x, 1024)}, Name: fmt.Sprint(i)})
	}
	prog, err := d.Compile(plan, mem)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := prog.Run(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
