package dtype

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"autodev/internal/float16"
)

// DType is an element type by its safetensors name.
type DType string

// The element types that safetensors and torch files of this project may hold.
const (
	F64  DType = "F64"
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I64  DType = "I64"
	I32  DType = "I32"
	I16  DType = "I16"
	I8   DType = "I8"
	U8   DType = "U8"
	Bool DType = "BOOL"
)

// Size returns the bytes of one element, 0 for a type that is not known.
func (d DType) Size() int {
	switch d {
	case F64, I64:
		return 8
	case F32, I32:
		return 4
	case F16, BF16, I16:
		return 2
	case I8, U8, Bool:
		return 1
	}
	return 0
}

// Float reports whether the elements are floating-point numbers.
func (d DType) Float() bool { return d == F64 || d == F32 || d == F16 || d == BF16 }

// Torch returns the name transformers writes into config.json ("float32"), "" for a type that no model is kept in.
func (d DType) Torch() string {
	switch d {
	case F64:
		return "float64"
	case F32:
		return "float32"
	case F16:
		return "float16"
	case BF16:
		return "bfloat16"
	}
	return ""
}

// ParseFloat reads the name of a floating-point type in which weights can be written: f32, f16, bf16, the safetensors
// names and the torch names.
func ParseFloat(s string) (DType, error) {
	switch s {
	case "f32", "F32", "float32":
		return F32, nil
	case "f16", "F16", "float16", "half":
		return F16, nil
	case "bf16", "BF16", "bfloat16":
		return BF16, nil
	}
	return "", fmt.Errorf("element type %q, expected f32, bf16 or f16", s)
}

// FromF16 widens an IEEE 754 binary16 number; exact.
func FromF16(h uint16) float32 { return float16.From(h) }

// ToF16 rounds to the nearest binary16 number, ties to even (float16.To).
func ToF16(f float32) uint16 { return float16.To(f) }

// FromBF16 widens a bfloat16 number; exact.
func FromBF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// ToBF16 rounds to the nearest bfloat16 number, ties to even. The payload of a NaN keeps its upper bits.
func ToBF16(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		if b&0x7f0000 == 0 {
			b |= 0x400000
		}
		return uint16(b >> 16)
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// Decode converts the little-endian elements in src to float32. It returns an error when d is no floating-point type;
// len(src) must be len(dst) elements. F64 is rounded to nearest even.
func Decode(dst []float32, src []byte, d DType) error {
	if !d.Float() {
		return fmt.Errorf("element type %s, expected one of F64 F32 F16 BF16", d)
	}
	if len(src) != len(dst)*d.Size() {
		return fmt.Errorf("%d bytes for %d elements of %s, expected %d", len(src), len(dst), d, len(dst)*d.Size())
	}
	switch d {
	case F32:
		if b := NativeBytes(dst); b != nil {
			copy(b, src)
			return nil
		}
		decode32(dst, src)
	case F16:
		// Four at a time: one load and one bounds check for eight bytes.
		for len(dst) >= 4 && len(src) >= 8 {
			x := binary.LittleEndian.Uint64(src)
			dst[0], dst[1], dst[2], dst[3] = FromF16(uint16(x)), FromF16(uint16(x>>16)), FromF16(uint16(x>>32)), FromF16(uint16(x>>48))
			dst, src = dst[4:], src[8:]
		}
		for i := range dst {
			dst[i] = FromF16(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case BF16:
		for len(dst) >= 4 && len(src) >= 8 {
			x := binary.LittleEndian.Uint64(src)
			dst[0], dst[1], dst[2], dst[3] = FromBF16(uint16(x)), FromBF16(uint16(x>>16)), FromBF16(uint16(x>>32)), FromBF16(uint16(x>>48))
			dst, src = dst[4:], src[8:]
		}
		for i := range dst {
			dst[i] = FromBF16(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case F64:
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
		}
	}
	return nil
}

// Encode writes src as little-endian elements of type d, which must be F32, F16 or BF16, and returns the bytes written
// to dst. A finite number that d cannot hold is an error naming the element, because an infinite weight would only show
// up much later as NaN.
func Encode(dst []byte, src []float32, d DType) (int, error) {
	n := len(src) * d.Size()
	if len(dst) < n {
		return 0, fmt.Errorf("%d bytes for %d elements of %s, expected %d", len(dst), len(src), d, n)
	}
	switch d {
	case F32:
		if b := NativeBytes(src); b != nil {
			return copy(dst, b), nil
		}
		encode32(dst, src)
	case F16:
		for i, f := range src {
			h := ToF16(f)
			if h&0x7fff == 0x7c00 && !math.IsInf(float64(f), 0) {
				return 0, fmt.Errorf("element %d: %g is beyond F16, expected at most 65504", i, f)
			}
			binary.LittleEndian.PutUint16(dst[2*i:], h)
		}
	case BF16:
		for i, f := range src {
			h := ToBF16(f)
			if h&0x7fff == 0x7f80 && !math.IsInf(float64(f), 0) {
				return 0, fmt.Errorf("element %d: %g is beyond BF16, expected at most 3.3895314e+38", i, f)
			}
			binary.LittleEndian.PutUint16(dst[2*i:], h)
		}
	default:
		return 0, fmt.Errorf("element type %s, expected F32, F16 or BF16", d)
	}
	return n, nil
}

// NativeBytes returns f as the bytes a little-endian F32 tensor has, without copying, or nil on a big-endian machine.
func NativeBytes(f []float32) []byte {
	one := uint16(1)
	if *(*byte)(unsafe.Pointer(&one)) != 1 {
		return nil
	}
	if len(f) == 0 {
		return []byte{}
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&f[0])), 4*len(f))
}

// decode32 and encode32 move F32 elements on big-endian machines.
func decode32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

func encode32(dst []byte, src []float32) {
	for i, f := range src {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(f))
	}
}
