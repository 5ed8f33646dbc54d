package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autodev/model/dtype"

	"pgregory.net/rapid"
)

// file joins a header and data into the bytes of a file.
func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func TestReferenceFile(t *testing.T) {
	f, err := Open("testdata/mixed.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := f.Metadata()["format"]; got != "pt" {
		t.Errorf("metadata format %q", got)
	}
	for name, want := range map[string][]float32{
		"f64": {0.1, -2}, "f32": {0, 1. / 7, 2. / 7, 3. / 7, 4. / 7, 5. / 7}, "f16": {1, -.5, 65504}, "bf16": {1, -.5, 3}, "empty": {}, "scalar": {2.5}, `a"<é`: {1.5},
	} {
		got, err := f.Float32s(name)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, expected %v", name, got, err, want)
		}
	}
	for name, want := range map[string][]byte{
		"i64": {255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 1, 0, 0}, "i16": {255, 255, 7, 0}, "u8": {255, 7}, "bool": {1, 0, 1},
	} {
		got, err := f.Bytes(name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: % x, %v, expected % x", name, got, err, want)
		}
	}
	if i, _ := f.Lookup("f32"); !slices.Equal(i.Shape, []int{2, 3}) || i.DType != dtype.F32 || i.Len() != 6 {
		t.Errorf("f32: %+v", i)
	}
	if _, err := f.Float32s("i32"); err == nil || err.Error() != "testdata/mixed.safetensors: tensor i32: 2 elements of I32, expected 2 of a floating-point type" {
		t.Errorf("error %v", err)
	}
	if _, err := f.Bytes("none"); err == nil || err.Error() != "testdata/mixed.safetensors: tensor none: missing" {
		t.Errorf("error %v", err)
	}
}

// rewrite reads every tensor of f and writes them again, last first.
func rewrite(t interface{ Fatal(...any) }, f *File) []byte {
	var ts []Tensor
	for _, i := range f.Tensors() {
		b, err := f.Bytes(i.Name)
		if err != nil {
			t.Fatal(err)
		}
		ts = append([]Tensor{Bytes(i.Name, i.DType, i.Shape, b)}, ts...)
	}
	var out bytes.Buffer
	if err := Write(&out, ts, f.Metadata()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestWriteEqualsTheReferenceImplementation(t *testing.T) {
	want, err := os.ReadFile("testdata/mixed.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewFile(bytes.NewReader(want), int64(len(want)), "mixed")
	if err != nil {
		t.Fatal(err)
	}
	if got := rewrite(t, f); !bytes.Equal(got, want) {
		t.Errorf("written:\n%q\nexpected:\n%q", got, want)
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := map[string][]float32{}
		var ts []Tensor
		d := rapid.SampledFrom([]dtype.DType{dtype.F32, dtype.F16, dtype.BF16}).Draw(t, "dtype")
		for _, name := range rapid.SliceOfNDistinct(rapid.StringN(0, 8, 20), 0, 6, rapid.ID[string]).Draw(t, "names") {
			rows, cols := rapid.IntRange(0, 4).Draw(t, "rows"), rapid.IntRange(0, 4).Draw(t, "cols")
			v := make([]float32, rows*cols)
			for i := range v {
				v[i] = float32(rapid.IntRange(-100, 100).Draw(t, "v"))
			}
			name = strings.ToValidUTF8(name, "?")
			if _, ok := data[name]; ok || name == metadataKey {
				continue
			}
			data[name] = v
			ts = append(ts, Float32(name, []int{rows, cols}, v, d))
		}
		var out bytes.Buffer
		if err := Write(&out, ts, nil); err != nil {
			t.Fatal(err)
		}
		f, err := NewFile(bytes.NewReader(out.Bytes()), int64(out.Len()), "x")
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Tensors()) != len(ts) {
			t.Fatalf("%d tensors, expected %d", len(f.Tensors()), len(ts))
		}
		for name, want := range data {
			got, err := f.Float32s(name)
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("%q: %v, %v, expected %v", name, got, err, want)
			}
		}
	})
}

// The block boundaries of the converting reader and writer are crossed.
func TestLargeTensors(t *testing.T) {
	v := make([]float32, 1<<20+3)
	for i := range v {
		v[i] = float32(i % 1021)
	}
	for _, d := range []dtype.DType{dtype.F16, dtype.F32} {
		var out bytes.Buffer
		if err := Write(&out, []Tensor{Float32("v", []int{len(v)}, v, d)}, nil); err != nil {
			t.Fatal(err)
		}
		f, err := NewFile(bytes.NewReader(out.Bytes()), int64(out.Len()), "x")
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Float32s("v")
		if err != nil || !slices.Equal(got, v) {
			t.Errorf("%s: the large tensor came back different (%v)", d, err)
		}
	}
}

func TestBadFiles(t *testing.T) {
	const ok = `"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}`
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "x: truncated: 0 bytes, expected at least 8 for the header length"},
		{"length only", file("", 0)[:8], "x: header: EOF"},
		{"huge header", []byte("PK\x03\x04aaaaaaaaa"), "x: header of 7016996763726990160 bytes, expected at most 100000000 (is this a safetensors file?)"},
		{"cut header", file(`{`+ok+`}`, 8)[:30], "x: truncated: 30 bytes, expected 62 for the header alone"},
		{"cut data", file(`{`+ok+`}`, 7), "x: truncated: 69 bytes, but tensor a ends at 70"},
		{"trailing data", file(`{`+ok+`}`, 9), "x: 1 bytes after the last tensor, expected none"},
		{"array", file(`[1]`, 0), "x: header: found [, expected a JSON object"},
		{"no JSON", file(`hello`, 0), "x: header: invalid character 'h' looking for beginning of value"},
		{"text after", file(`{}{}`, 0), "x: header: 2 bytes after the JSON object, expected only spaces"},
		{"duplicate", file(`{`+ok+`,`+ok+`}`, 8), "x: tensor a: appears twice in the header"},
		{"overlap", file(`{`+ok+`,"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), "x: tensor b: begins at data offset 4 and overlaps the tensor before it, expected 8"},
		{"gap", file(`{`+ok+`,"b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}`, 16), "x: tensor b: begins at data offset 12 and leaves a gap after the tensor before it, expected 8"},
		{"out of range", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[9223372036854775800,9223372036854775807]}}`, 8), "x: tensor a: data_offsets [9223372036854775800 9223372036854775807], expected 0 <= begin <= end"},
		{"negative offset", file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[-2,0]}}`, 8), "x: tensor a: data_offsets [-2 0], expected 0 <= begin <= end"},
		{"wrong span", file(`{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}`, 8), "x: tensor a: data_offsets [0 8] span 8 bytes, expected 12 for shape [3] of F32"},
		{"overflowing shape", file(`{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0), "x: tensor a: shape [4294967296 4294967296] is not a shape of less than 2^63 bytes"},
		{"negative shape", file(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}`, 0), "x: tensor a: shape [-1] is not a shape of less than 2^63 bytes"},
		{"unknown type", file(`{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}`, 1), `x: tensor a: element type "F8_E4M3", expected one of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL`},
		{"missing field", file(`{"a":{"dtype":"F32","shape":[2]}}`, 8), "x: tensor a: expected dtype, shape and two data_offsets"},
		{"bad field", file(`{"a":{"dtype":1,"shape":[2],"data_offsets":[0,8]}}`, 8), "x: tensor a: dtype: json: cannot unmarshal number into Go value of type string"},
		{"another case", file(`{"a":{"DTYPE":"F32","shape":[2],"data_offsets":[0,8]}}`, 8), "x: tensor a: expected dtype, shape and two data_offsets"},
		{"a field twice", file(`{"a":{"dtype":"F16","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8), "x: tensor a: dtype: given twice"},
		{"no object", file(`{"a":[1]}`, 0), "x: tensor a: found [, expected a JSON object"},
		{"bad metadata", file(`{"__metadata__":{"a":1}}`, 0), "x: header: __metadata__: json: cannot unmarshal number into Go value of type string"},
	} {
		_, err := NewFile(bytes.NewReader(c.data), int64(len(c.data)), "x")
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: error\n  %v\nexpected\n  %s", c.name, err, c.want)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, expected one of a missing file", err)
	}
}

// A file that shrinks after it was opened must give an error, not zeros.
func TestFileShrinksWhileOpen(t *testing.T) {
	b := file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8)
	f, err := NewFile(bytes.NewReader(b[:len(b)-4]), int64(len(b)), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Float32s("a"); err == nil || err.Error() != "x: tensor a: read 4 of 8 bytes at offset 62: EOF" {
		t.Errorf("error %v", err)
	}
}

func TestWriteErrors(t *testing.T) {
	full := errors.New("disk full")
	for _, c := range []struct {
		ts   []Tensor
		want string
	}{
		{[]Tensor{Bytes("a", dtype.U8, []int{2}, []byte{1})}, "tensor a: 1 bytes, expected 2 for shape [2] of U8"},
		{[]Tensor{Bytes("a", "Q4", []int{2}, []byte{1})}, `tensor a: element type "Q4" and shape [2], expected a known type and no negative or overflowing dimension`},
		{[]Tensor{Bytes("a", dtype.F32, []int{-2}, nil)}, `tensor a: element type "F32" and shape [-2], expected a known type and no negative or overflowing dimension`},
		{[]Tensor{Bytes("a", dtype.F32, []int{math.MaxInt, 2}, nil)}, `tensor a: element type "F32" and shape [9223372036854775807 2], expected a known type and no negative or overflowing dimension`},
		{[]Tensor{Bytes("a", dtype.U8, nil, []byte{1}), Bytes("a", dtype.I8, nil, []byte{1})}, "tensor a: given twice"},
		{[]Tensor{Bytes("__metadata__", dtype.U8, nil, []byte{1})}, "tensor __metadata__: the name is reserved"},
		{[]Tensor{Float32("a", []int{1}, []float32{1e6}, dtype.F16)}, "tensor a: elements from 0: element 0: 1e+06 is beyond F16, expected at most 65504"},
		{[]Tensor{{Name: "a", DType: dtype.U8, Data: func(io.Writer) error { return full }}}, "tensor a: disk full"},
	} {
		if err := Write(io.Discard, c.ts, nil); err == nil || err.Error() != c.want {
			t.Errorf("error\n  %v\nexpected\n  %s", err, c.want)
		}
	}
}

func FuzzNewFile(f *testing.F) {
	if b, err := os.ReadFile("testdata/mixed.safetensors"); err == nil {
		f.Add(b)
	}
	f.Add(file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8))
	f.Add(file(`{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}  `, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := NewFile(bytes.NewReader(b), int64(len(b)), "x")
		if err != nil {
			return
		}
		// What is accepted must cover the data exactly once and survive a rewrite.
		out := rewrite(t, s)
		again, err := NewFile(bytes.NewReader(out), int64(len(out)), "y")
		if err != nil {
			t.Fatalf("the rewritten file is refused: %v", err)
		}
		for _, i := range s.Tensors() {
			x, err := s.Bytes(i.Name)
			if err != nil {
				t.Fatal(err)
			}
			y, err := again.Bytes(i.Name)
			if err != nil || !bytes.Equal(x, y) {
				t.Fatalf("tensor %q changed in a rewrite (%v)", i.Name, err)
			}
		}
	})
}

func BenchmarkReadFloat32(b *testing.B) {
	v := make([]float32, 1<<22)
	for _, d := range []dtype.DType{dtype.F32, dtype.F16, dtype.BF16} {
		b.Run(string(d), func(b *testing.B) {
			var out bytes.Buffer
			if err := Write(&out, []Tensor{Float32("v", []int{len(v)}, v, d)}, nil); err != nil {
				b.Fatal(err)
			}
			f, err := NewFile(bytes.NewReader(out.Bytes()), int64(out.Len()), "x")
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(v) * 4))
			for b.Loop() {
				if err := f.ReadFloat32("v", v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
