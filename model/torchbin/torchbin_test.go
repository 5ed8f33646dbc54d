package torchbin

import (
	"archive/zip"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autodev/model/dtype"
)

func TestStateDicts(t *testing.T) {
	for _, name := range []string{"new.bin", "legacy.bin"} {
		t.Run(name, func(t *testing.T) {
			f, err := Open(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for _, c := range []struct {
				name  string
				dtype dtype.DType
				shape []int
				want  []float32
			}{
				{"plain", dtype.F32, []int{2, 3}, []float32{0, .25, .5, .75, 1, 1.25}},
				{"shared.a", dtype.F32, []int{2, 3}, []float32{2, 3, 4, 5, 6, 7}},
				{"shared.b", dtype.F32, []int{2, 3}, []float32{2, 4, 6, 3, 5, 7}},
				{"every.third", dtype.F32, []int{8}, []float32{1, 4, 7, 10, 13, 16, 19, 22}},
				{"permuted", dtype.F32, []int{4, 2, 3}, []float32{0, 4, 8, 12, 16, 20, 1, 5, 9, 13, 17, 21, 2, 6, 10, 14, 18, 22, 3, 7, 11, 15, 19, 23}},
				{"parameter", dtype.F32, []int{2}, []float32{1.5, -2}},
				{"half", dtype.F16, []int{3}, []float32{1, -.5, 65504}},
				{"bf16", dtype.BF16, []int{3}, []float32{1, -.5, 3}},
				{"double", dtype.F64, []int{1}, []float32{.25}},
				{"scalar", dtype.F32, []int{}, []float32{2.5}},
				{"empty", dtype.F32, []int{0, 3}, []float32{}},
			} {
				i := slices.IndexFunc(f.Tensors(), func(x Info) bool { return x.Name == c.name })
				if i < 0 {
					t.Fatalf("no tensor %s", c.name)
				}
				info := f.Tensors()[i]
				if info.DType != c.dtype || !slices.Equal(info.Shape, c.shape) {
					t.Errorf("%s: %s %v, expected %s %v", c.name, info.DType, info.Shape, c.dtype, c.shape)
				}
				got := make([]float32, info.Len())
				if err := f.ReadFloat32(c.name, got); err != nil || !slices.Equal(got, c.want) {
					t.Errorf("%s: %v, %v, expected %v", c.name, got, err, c.want)
				}
			}
			if n := len(f.Tensors()); n != 13 {
				t.Errorf("%d tensors, expected 13", n)
			}
			err = f.ReadFloat32("long", make([]float32, 2))
			if want := f.Name() + ": tensor long: 2 elements of I64, expected 2 of a floating-point type"; err == nil || err.Error() != want {
				t.Errorf("error %v, expected %s", err, want)
			}
		})
	}
	f, err := Open("testdata/module.bin")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if len(f.Tensors()) != 2 {
		t.Errorf("%d tensors, expected 2", len(f.Tensors()))
	}
}

func TestFilesThatHoldOtherThings(t *testing.T) {
	const only = " is not allowed: a file of tensors needs only OrderedDict and torch's tensors and storages, and nothing else is executed"
	for name, want := range map[string]string{
		"evil.bin":         `pickle offset 13: global "posix.system"` + only,
		"evil-legacy.bin":  `pickle offset 150: global "posix.system"` + only,
		"number.bin":       `entry "epoch" is an int, expected a tensor`,
		"list.bin":         "holds a list, expected a dict of tensors",
		"expanded.bin":     `tensor on storage 0: shape [1000] has 1000 elements, more than its storage's 1`,
		"whole-module.bin": `global "torch.nn.modules.linear.Linear"` + only,
	} {
		_, err := Open(filepath.Join("testdata", name))
		if err == nil || !strings.HasPrefix(err.Error(), "testdata/"+name+": ") || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("error\n  %v\nexpected it to end\n  %s", err, want)
		}
	}
	if _, err := Open("testdata/none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, expected one of a missing file", err)
	}
}

// Every prefix of a file is refused or, where only padding is lost, still complete; none panics.
func TestTruncatedFiles(t *testing.T) {
	for _, name := range []string{"new.bin", "legacy.bin"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for n := range b {
			if _, err := NewFile(bytes.NewReader(b[:n]), int64(n), "x"); err == nil {
				t.Errorf("%s: %d of %d bytes are accepted", name, n, len(b))
			}
		}
	}
}

// archive returns a zip of the given pickle and of storage 0 with eight bytes.
func archive(t testing.TB, pickle string, method uint16) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range []struct{ name, data string }{{"archive/data.pkl", pickle}, {"archive/byteorder", "little"}, {"archive/data/0", "\x00\x00\x80\x3f\x00\x00\x00\x40"}} {
		w, err := z.CreateHeader(&zip.FileHeader{Name: e.name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tensor is the pickle of {"a": tensor} with the given storage key, elements, offset, shape and stride (opcodes of ints and tuples).
func tensor(key, elements, offset, shape, stride string) string {
	return "\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00" + key +
		"X\x03\x00\x00\x00cpu" + elements + "tQ" + offset + shape + stride + "\x89}tRs."
}

func TestHandMadePickles(t *testing.T) {
	b := archive(t, tensor("0", "K\x02", "K\x00", "K\x02\x85", "K\x01\x85"), zip.Store)
	f, err := NewFile(bytes.NewReader(b), int64(len(b)), "x")
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, 2)
	if err := f.ReadFloat32("a", got); err != nil || got[0] != 1 || got[1] != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	huge := "\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40"
	for _, c := range []struct{ name, pickle, want string }{
		{"offset", tensor("0", "K\x02", "K\x01", "K\x02\x85", "K\x01\x85"), "shape [2], strides [1], offset 1: reaches beyond its storage of 2 elements"},
		{"stride", tensor("0", "K\x02", "K\x00", "K\x02\x85", "K\x02\x85"), "shape [2], strides [2], offset 0: reaches beyond its storage of 2 elements"},
		{"negative", tensor("0", "K\x02", "K\x00", "K\x02\x85", "J\xff\xff\xff\xff\x85"), "shape [2], strides [-1], offset 0: expected numbers from 0 to 2^48"},
		{"huge", tensor("0", "K\x02", "K\x00", huge+"\x85", "K\x01\x85"), "shape [4611686018427387904], strides [1], offset 0: expected numbers from 0 to 2^48"},
		{"ranks", tensor("0", "K\x02", "K\x00", "K\x02\x85", ")"), "shape [2] with strides [], expected the same number, at most 8"},
		{"no storage", tensor("7", "K\x02", "K\x00", "K\x02\x85", "K\x01\x85"), `storage "7": no archive entry "archive/data/7"`},
		{"storage size", tensor("0", "K\x03", "K\x00", "K\x02\x85", "K\x01\x85"), `storage "0": 8 bytes, expected 12 for 3 elements of F32`},
		{"argument", tensor("0", "K\x02", "N", "K\x02\x85", "K\x01\x85"), `called with a storage, None, a tuple, a tuple; expected a storage, an int and two tuples of ints`},
		{"opcode", "\x80\x02i", "pickle offset 2: opcode 0x69 is not allowed in a file of tensors"},
		{"new object", "\x80\x02ccollections\nOrderedDict\n)\x81.", "opcode 0x81 is not allowed in a file of tensors"},
		{"extension", "\x80\x02\x82\x01.", "opcode 0x82 is not allowed in a file of tensors"},
		{"eval", "\x80\x02c__builtin__\neval\n.", `global "__builtin__.eval" is not allowed: a file of tensors needs only OrderedDict and torch's tensors and storages, and nothing else is executed`},
		{"stack global", "\x80\x04\x8c\x02os\x8c\x06system\x93.", `global "os.system" is not allowed: a file of tensors needs only OrderedDict and torch's tensors and storages, and nothing else is executed`},
		{"protocol", "\x80\x06N.", "pickle protocol 6, expected at most 5"},
		{"empty stack", "\x80\x02.", "pickle offset 2: the stack is empty"},
		{"no stop", "\x80\x02N", "pickle offset 3: truncated, expected an opcode"},
		{"long string", "\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "string of 18446744073709551615 bytes: truncated"},
		{"long integer", "\x80\x02\x8a\x09123456789.", "integer of 9 bytes, expected at most 8"},
		{"memo", "\x80\x02h\x01.", "memo entry 1: missing"},
		{"mark", "\x80\x02t.", "no mark on the stack"},
		{"stop at mark", "\x80\x02(.", "found a mark, expected a value"},
		{"odd items", "\x80\x02}(Nu.", "1 keys and values, expected an even number"},
		{"call of a storage type", "\x80\x02ctorch\nFloatStorage\n)R.", `call of "torch.FloatStorage", expected a function that rebuilds a tensor`},
		{"persistent id", "\x80\x02NQ.", "persistent id is None, expected the tuple of a storage"},
		{"key", "\x80\x02}K\x01Ns.", "a key of the dict is an int, expected the name of a tensor"},
	} {
		b := archive(t, c.pickle, zip.Store)
		_, err := NewFile(bytes.NewReader(b), int64(len(b)), "x")
		if err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: error\n  %v\nexpected it to end\n  %s", c.name, err, c.want)
		}
	}
	b = archive(t, "\x80\x02}.", zip.Deflate)
	if _, err := NewFile(bytes.NewReader(b), int64(len(b)), "x"); err == nil || err.Error() != `x: archive entry "archive/byteorder": compressed, expected stored` {
		t.Errorf("error %v", err)
	}
	for data, want := range map[string]string{"": "x: truncated, or no file of torch.save: zip: not a valid zip file", "hello, world, hello, world": "x: truncated, or no file of torch.save: zip: not a valid zip file"} {
		if _, err := NewFile(strings.NewReader(data), int64(len(data)), "x"); err == nil || err.Error() != want {
			t.Errorf("error %v, expected %s", err, want)
		}
	}
}

// readAll reads every floating-point tensor; the sum of their sizes is bounded by the views' check.
func readAll(f *File) error {
	for _, i := range f.Tensors() {
		if i.DType.Float() {
			if err := f.ReadFloat32(i.Name, make([]float32, i.Len())); err != nil {
				return err
			}
		}
	}
	return nil
}

func FuzzNewFile(f *testing.F) {
	for _, name := range []string{"new.bin", "legacy.bin", "module.bin", "evil.bin"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := NewFile(bytes.NewReader(b), int64(len(b)), "x")
		if err != nil {
			return
		}
		if err := readAll(s); err != nil {
			t.Fatalf("accepted, but a tensor cannot be read: %v", err)
		}
	})
}

// FuzzPickle feeds the machine directly, which a fuzzer that must keep a zip archive valid reaches less often.
func FuzzPickle(f *testing.F) {
	f.Add([]byte(tensor("0", "K\x02", "K\x00", "K\x02\x85", "K\x01\x85")))
	f.Add([]byte("\x80\x02}(X\x01\x00\x00\x00aNu."))
	f.Add([]byte("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94K\x01u."))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &machine{b: b, call: call, persistent: func(id any) (any, error) { return persistentID(id) }}
		value, err := m.run()
		if err != nil {
			return
		}
		s := &File{views: map[string]*view{}}
		if err := s.fill(value); err != nil {
			return
		}
		for _, v := range s.views {
			if n := v.len(); n > 0 && (v.offset < 0 || v.offset+v.span() > v.s.len || n > v.s.len) {
				t.Fatalf("view %+v leaves its storage of %d", v, v.s.len)
			}
		}
	})
}
