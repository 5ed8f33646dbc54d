package gguf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// open reads b as a file.
func open(b []byte) (*File, error) { return NewFile(bytes.NewReader(b), int64(len(b)), "x.gguf") }

// raw returns tensor t's bytes.
func (f *File) raw(tb testing.TB, t Info) []byte {
	tb.Helper()
	b := make([]byte, t.Size)
	if _, err := f.r.ReadAt(b, t.Offset); err != nil && err != io.EOF {
		tb.Fatal(err)
	}
	return b
}

// rewrite writes what is in f again.
func rewrite(tb testing.TB, f *File) []byte {
	tb.Helper()
	var tensors []Tensor
	for _, t := range f.Tensors {
		tensors = append(tensors, Tensor{Name: t.Name, Type: t.Type, Shape: t.Shape, Data: func(w io.Writer) error {
			_, err := w.Write(f.raw(tb, t))
			return err
		}})
	}
	var b bytes.Buffer
	if err := Write(&b, f.Metadata, tensors); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// TestPeerFile reads a file that llama.cpp's Python package wrote, and writes it again: the bytes are the same.
func TestPeerFile(t *testing.T) {
	f, err := Open(filepath.Join("testdata", "peer.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	want := Metadata{
		{"general.architecture", "starcoder"}, {"a.uint8", uint8(200)}, {"a.int8", int8(-100)}, {"a.uint16", uint16(60000)}, {"a.int16", int16(-30000)},
		{"a.uint32", uint32(4000000000)}, {"a.int32", int32(-2000000000)}, {"a.float32", float32(0.1)}, {"a.uint64", uint64(1 << 63)},
		{"a.int64", int64(-1 << 62)}, {"a.float64", 0.1}, {"a.bool", true}, {"a.string", "naïve ☃"}, {"a.ints", []int32{1, -2, 3}},
		{"a.floats", []float32{0.5, -0.25}}, {"a.bools", []bool{true, false}}, {"a.strings", []string{"", "Ġa", "b c"}}, {"a.bytes", []uint8{0, 255}},
	}
	if !reflect.DeepEqual(f.Metadata, want) {
		t.Errorf("metadata %v, expected %v", f.Metadata, want)
	}
	x := make([]float32, 16*96)
	if err := f.ReadFloat32("x.F32", x); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []Type{F32, F16, BF16, Q8_0, Q4_0} {
		info, ok := f.Lookup("x." + kind.String())
		if !ok || info.Type != kind || !reflect.DeepEqual(info.Shape, []int{16, 96}) {
			t.Fatalf("tensor x.%v: found %+v", kind, info)
		}
		var b bytes.Buffer
		if err := encodeTo(&b, x, kind); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), f.raw(t, info)) {
			t.Errorf("%v: our bytes are not those of ggml's quantiser", kind)
		}
	}
	cube := make([]float32, 24)
	if err := f.ReadFloat32("cube", cube); err != nil {
		t.Fatal(err)
	}
	if info, _ := f.Lookup("cube"); !reflect.DeepEqual(info.Shape, []int{2, 3, 4}) || cube[23] != 23 {
		t.Errorf("cube: shape %v, last element %v; expected [2 3 4] and 23", info.Shape, cube[23])
	}
	peer, err := os.ReadFile(filepath.Join("testdata", "peer.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rewrite(t, f), peer) {
		t.Error("written again, the file has other bytes")
	}
}

func TestRoundTrip(t *testing.T) {
	value := rapid.OneOf(
		rapid.Uint8().AsAny(), rapid.Int8().AsAny(), rapid.Uint16().AsAny(), rapid.Int16().AsAny(), rapid.Uint32().AsAny(), rapid.Int32().AsAny(),
		rapid.Uint64().AsAny(), rapid.Int64().AsAny(), rapid.Float32().AsAny(), rapid.Float64().AsAny(), rapid.Bool().AsAny(), rapid.String().AsAny(),
		rapid.SliceOf(rapid.Uint8()).AsAny(), rapid.SliceOf(rapid.Int8()).AsAny(), rapid.SliceOf(rapid.Uint16()).AsAny(), rapid.SliceOf(rapid.Int16()).AsAny(),
		rapid.SliceOf(rapid.Uint32()).AsAny(), rapid.SliceOf(rapid.Int32()).AsAny(), rapid.SliceOf(rapid.Uint64()).AsAny(), rapid.SliceOf(rapid.Int64()).AsAny(),
		rapid.SliceOf(rapid.Float32()).AsAny(), rapid.SliceOf(rapid.Float64()).AsAny(), rapid.SliceOf(rapid.Bool()).AsAny(), rapid.SliceOf(rapid.String()).AsAny(),
	)
	rapid.Check(t, func(t *rapid.T) {
		var m Metadata
		for i := range rapid.IntRange(0, 5).Draw(t, "pairs") {
			m = append(m, KV{fmt.Sprintf("key.%d", i), value.Draw(t, "value")})
		}
		var tensors []Tensor
		data := map[string][]float32{}
		for i := range rapid.IntRange(0, 4).Draw(t, "tensors") {
			shape := rapid.SliceOfN(rapid.IntRange(1, 3), 1, maxDims).Draw(t, "shape")
			kind := rapid.SampledFrom([]Type{F32, F16, BF16, Q8_0, Q4_0}).Draw(t, "type")
			shape[len(shape)-1] *= types[kind].block
			n := 1
			for _, d := range shape {
				n *= d
			}
			name := fmt.Sprintf("tensor.%d", i)
			data[name] = rapid.SliceOfN(rapid.Float32Range(-100, 100), n, n).Draw(t, "data")
			tensors = append(tensors, Float32(name, kind, shape, data[name]))
		}
		var b bytes.Buffer
		if err := Write(&b, m, tensors); err != nil {
			t.Fatal(err)
		}
		f, err := open(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Metadata) != len(m) || len(f.Tensors) != len(tensors) || f.Version != 3 {
			t.Fatalf("%d pairs and %d tensors, expected %d and %d", len(f.Metadata), len(f.Tensors), len(m), len(tensors))
		}
		for i, kv := range m {
			if fmt.Sprintf("%T %v", kv, kv) != fmt.Sprintf("%T %v", f.Metadata[i], f.Metadata[i]) {
				t.Fatalf("found %v, expected %v", f.Metadata[i], kv)
			}
		}
		for i, x := range tensors {
			got := f.Tensors[i]
			if got.Name != x.Name || got.Type != x.Type || !reflect.DeepEqual(got.Shape, x.Shape) || got.Offset%alignment != 0 {
				t.Fatalf("found %+v, expected %+v", got, x)
			}
			want, values := make([]float32, got.Len()), make([]float32, got.Len())
			raw := new(bytes.Buffer)
			if err := encodeTo(raw, data[x.Name], x.Type); err != nil {
				t.Fatal(err)
			}
			if err := decode(want, raw.Bytes(), x.Type); err != nil {
				t.Fatal(err)
			}
			if err := f.ReadFloat32(x.Name, values); err != nil || !reflect.DeepEqual(values, want) {
				t.Fatalf("%s: %v, %v; expected %v", x.Name, err, values, want)
			}
		}
	})
}

// maker builds files by hand.
type maker struct{ b []byte }

func (m *maker) u32(v uint32) *maker  { m.b = binary.LittleEndian.AppendUint32(m.b, v); return m }
func (m *maker) u64(v uint64) *maker  { m.b = binary.LittleEndian.AppendUint64(m.b, v); return m }
func (m *maker) text(s string) *maker { m.b = appendString(m.b, s); return m }
func (m *maker) raw(b string) *maker  { m.b = append(m.b, b...); return m }
func (m *maker) zeros(n int) *maker   { m.b = append(m.b, make([]byte, n)...); return m }
func (m *maker) pad(to int) *maker    { return m.zeros((to - len(m.b)%to) % to) }
func start(tensors, pairs uint64) *maker {
	return new(maker).raw("GGUF").u32(3).u64(tensors).u64(pairs)
}

// tensor adds an entry of one F32 row.
func (m *maker) tensor(name string, width, offset uint64) *maker {
	return m.text(name).u32(1).u64(width).u32(0).u64(offset)
}

func TestHostileFiles(t *testing.T) {
	for _, c := range []struct {
		name string
		m    *maker
		want string
	}{
		{"nothing", new(maker), "offset 0: 0 bytes left in the header, expected 4 more"},
		{"another format", new(maker).raw("PK\x03\x04"), `offset 0: found "PK\x03\x04", expected "GGUF": not a GGUF file`},
		{"version 1", new(maker).raw("GGUF").u32(1).zeros(16), "offset 4: version 1, expected 2 or 3"},
		{"version 4", new(maker).raw("GGUF").u32(4).zeros(16), "offset 4: version 4, expected 2 or 3"},
		{"big-endian", new(maker).raw("GGUF\x00\x00\x00\x03").zeros(16), "offset 4: a big-endian file"},
		{"many tensors", start(1<<60, 0).zeros(100), "offset 8: 1152921504606846976 tensors in 108 bytes, expected at most 4"},
		{"many pairs", start(0, 1<<63).zeros(100), "offset 16: 9223372036854775808 metadata pairs in 100 bytes"},
		{"long key", start(0, 1).u64(1 << 40).zeros(100), "bytes of text in 100 bytes, expected at most 100"},
		{"empty key", start(0, 1).text("").u32(typeUint8).raw("\x00"), `metadata key "": expected one that is not empty`},
		{"key twice", start(0, 2).text("k").u32(typeUint8).raw("\x00").text("k").u32(typeUint8).raw("\x00").zeros(8), `metadata key "k": expected one that is not empty or given twice`},
		{"value type", start(0, 1).text("k").u32(13).zeros(8), `metadata key "k": value type 13, expected 0 to 12`},
		{"item type", start(0, 1).text("k").u32(typeArray).u32(99).u64(0), `metadata key "k": item type 99`},
		{"nested", start(0, 1).text("k").u32(typeArray).u32(typeArray).u64(1).zeros(20), "an array of arrays"},
		{"long array", start(0, 1).text("k").u32(typeArray).u32(typeUint64).u64(1 << 61).zeros(64), "2305843009213693952 items in 64 bytes, expected at most 8"},
		{"many strings", start(0, 1).text("k").u32(typeArray).u32(typeString).u64(9).zeros(64), "9 items in 64 bytes, expected at most 8"},
		{"truth", start(0, 1).text("k").u32(typeBool).raw("\x02"), "truth value 2, expected 0 or 1"},
		{"cut short", start(0, 1).text("k").u32(typeFloat64).zeros(7), "7 bytes left in the header, expected 8 more"},
		{"alignment 0", start(0, 1).text(alignmentKey).u32(typeUint32).u32(0), "general.alignment: 0, expected a power of 2"},
		{"alignment 24", start(0, 1).text(alignmentKey).u32(typeUint32).u32(24), "general.alignment: 24, expected a power of 2"},
		{"alignment as text", start(0, 1).text(alignmentKey).u32(typeString).text("32"), "general.alignment: 32, expected a power of 2 as uint32"},
		{"no name", start(1, 0).tensor("", 4, 0).pad(32).zeros(32), "name of 0 bytes, expected 1 to 63"},
		{"long name", start(1, 0).tensor(strings.Repeat("n", 64), 4, 0).pad(32).zeros(32), "name of 64 bytes, expected 1 to 63"},
		{"twice", start(2, 0).tensor("a", 4, 0).tensor("a", 4, 32).pad(32).zeros(64), "tensor a: given twice"},
		{"no dimensions", start(1, 0).text("a").u32(0).u32(0).u64(0).pad(32).zeros(32), "0 dimensions, expected 1 to 4"},
		{"dimensions", start(1, 0).text("a").u32(5).zeros(64), "5 dimensions, expected 1 to 4"},
		{"no elements", start(1, 0).tensor("a", 0, 0).pad(32), "shape [0], expected positive dimensions"},
		{"elements", start(1, 0).tensor("a", 1<<40, 0).pad(32).zeros(32), "dimension 0: 1099511627776 elements"},
		{"overflow", start(1, 0).text("a").u32(4).u64(1 << 31).u64(1 << 31).u64(1 << 31).u64(1 << 31).u32(0).u64(0).pad(32), "expected positive dimensions of a tensor that exists"},
		{"element type", start(1, 0).text("a").u32(1).u64(32).u32(5).u64(0).pad(32).zeros(64), "type 5, expected one of ggml's element types"},
		{"half a block", start(1, 0).text("a").u32(1).u64(48).u32(uint32(Q8_0)).u64(0).pad(32).zeros(64), "rows of 48 elements of Q8_0, expected a multiple of 32"},
		{"offset", start(1, 0).tensor("a", 4, 8).pad(32).zeros(64), "tensor a: data offset 8, expected a multiple of 32"},
		{"far offset", start(1, 0).tensor("a", 4, 1<<63).pad(32).zeros(64), "data offset 9223372036854775808"},
		{"beyond", start(1, 0).tensor("a", 9, 0).pad(32).zeros(32), "tensor a: 36 bytes at offset 0 of the data, expected them within the file's"},
		{"beyond by offset", start(1, 0).tensor("a", 4, 32).pad(32).zeros(32), "tensor a: 16 bytes at offset 32 of the data"},
		{"overlap", start(2, 0).tensor("b", 4, 32).tensor("a", 9, 0).pad(32).zeros(96), "tensor b: begins at offset 128 inside tensor a"},
	} {
		_, err := open(c.m.b)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "x.gguf: ") {
			t.Errorf("%s: found %v, expected %q", c.name, err, c.want)
		}
	}
}

// TestHostileCountsNeedNoMemory: what a header claims is not allocated before it is there.
func TestHostileCountsNeedNoMemory(t *testing.T) {
	b := start(0, 1).text("k").u32(typeArray).u32(typeUint8).u64(1 << 27).b
	r := io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	// The size is a lie, as that of a sparse or growing file can be.
	_, err := NewFile(r, 1<<28, "x.gguf")
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Error("no error, expected one about the missing bytes")
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d bytes were allocated for a file of %d", n, len(b))
	}
}

func TestReadErrors(t *testing.T) {
	b := start(2, 0).tensor("a", 4, 0).text("q").u32(1).u64(256).u32(14).u64(32).pad(32).zeros(32 + 210).b
	f, err := open(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		n    int
		want string
	}{
		{"b", 4, "x.gguf: tensor b: missing"},
		{"a", 5, "x.gguf: tensor a: 4 elements, expected 5"},
		{"q", 256, "x.gguf: tensor q: element type Q6_K, expected F32, F16, BF16, Q8_0 or Q4_0"},
	} {
		if err := f.ReadFloat32(c.name, make([]float32, c.n)); err == nil || err.Error() != c.want {
			t.Errorf("found %v, expected %q", err, c.want)
		}
	}
}

func TestWriteErrors(t *testing.T) {
	one := Float32("a", F32, []int{1}, []float32{1})
	for _, c := range []struct {
		m       Metadata
		tensors []Tensor
		want    string
	}{
		{Metadata{{"", 1}}, nil, `metadata key ""`},
		{Metadata{{"k", "v"}, {"k", "v"}}, nil, `metadata key "k"`},
		{Metadata{{"general.alignment", uint32(8)}}, nil, `metadata key "general.alignment"`},
		{Metadata{{"k", 1}}, nil, "metadata key k: value of Go type int"},
		{nil, []Tensor{one, one}, `tensor "a": expected a name of 1 to 63 bytes that is given once`},
		{nil, []Tensor{Float32("a", Q8_0, []int{2, 16}, make([]float32, 32))}, "tensor a: rows of 16 elements of Q8_0, expected a multiple of 32"},
		{nil, []Tensor{Float32("a", F32, []int{2}, make([]float32, 3))}, "tensor a: 12 bytes, expected 8 for shape [2] of F32"},
		{nil, []Tensor{Float32("a", 14, []int{256}, make([]float32, 256))}, "tensor a: element type Q6_K, expected F32"},
	} {
		if err := Write(io.Discard, c.m, c.tensors); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("found %v, expected %q", err, c.want)
		}
	}
}

// FuzzFile: no input makes the reader panic, and what it accepts it accepts again after Write, with the same content.
func FuzzFile(f *testing.F) {
	peer, err := os.ReadFile(filepath.Join("testdata", "peer.gguf"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(peer)
	f.Add(peer[:900])
	f.Add(start(2, 1).text("k").u32(typeArray).u32(typeString).u64(2).text("").text("x").tensor("a", 4, 32).tensor("b", 1, 0).pad(32).zeros(48).b)
	f.Add(start(0, 1).text(alignmentKey).u32(typeUint32).u32(8).b)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := open(b)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "x.gguf: ") {
				t.Errorf("%v does not name the file", err)
			}
			return
		}
		for _, i := range x.Tensors {
			if !i.Type.converts() {
				continue
			}
			if err := x.ReadFloat32(i.Name, make([]float32, i.Len())); err != nil {
				t.Errorf("accepted, but %v", err)
			}
		}
		for i, kv := range x.Metadata {
			if kv.Key == alignmentKey {
				x.Metadata = append(x.Metadata[:i:i], x.Metadata[i+1:]...)
				break
			}
		}
		again, err := open(rewrite(t, x))
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(again.Metadata) != fmt.Sprint(x.Metadata) || len(again.Tensors) != len(x.Tensors) {
			t.Errorf("found %v, expected %v", again.Metadata, x.Metadata)
		}
		for i, u := range x.Tensors {
			if v := again.Tensors[i]; u.Name != v.Name || !bytes.Equal(x.raw(t, u), again.raw(t, v)) {
				t.Errorf("tensor %s: became %s with other bytes", u.Name, v.Name)
			}
		}
	})
}
