package gguf

import (
	"fmt"
	"math"
	"strings"
)

// Type is an element type by its number in the file (enum ggml_type).
type Type uint32

// The element types that this package converts.
const (
	F32  Type = 0
	F16  Type = 1
	Q4_0 Type = 2 // blocks of 32: an F16 scale d and 4-bit numbers q, d·(q−8)
	Q8_0 Type = 8 // blocks of 32: an F16 scale d and 8-bit numbers q, d·q
	BF16 Type = 30
)

// typeInfo is what the format fixes for an element type.
type typeInfo struct {
	name         string
	block, bytes int // elements and bytes of a block
}

// types holds every element type of ggml, so that the tensors of any file can be listed.
var types = map[Type]typeInfo{
	F32: {"F32", 1, 4}, F16: {"F16", 1, 2}, Q4_0: {"Q4_0", 32, 18}, 3: {"Q4_1", 32, 20}, 6: {"Q5_0", 32, 22}, 7: {"Q5_1", 32, 24},
	Q8_0: {"Q8_0", 32, 34}, 9: {"Q8_1", 32, 36}, 10: {"Q2_K", 256, 84}, 11: {"Q3_K", 256, 110}, 12: {"Q4_K", 256, 144},
	13: {"Q5_K", 256, 176}, 14: {"Q6_K", 256, 210}, 15: {"Q8_K", 256, 292}, 16: {"IQ2_XXS", 256, 66}, 17: {"IQ2_XS", 256, 74},
	18: {"IQ3_XXS", 256, 98}, 19: {"IQ1_S", 256, 50}, 20: {"IQ4_NL", 32, 18}, 21: {"IQ3_S", 256, 110}, 22: {"IQ2_S", 256, 82},
	23: {"IQ4_XS", 256, 136}, 24: {"I8", 1, 1}, 25: {"I16", 1, 2}, 26: {"I32", 1, 4}, 27: {"I64", 1, 8}, 28: {"F64", 1, 8},
	29: {"IQ1_M", 256, 56}, BF16: {"BF16", 1, 2}, 34: {"TQ1_0", 256, 54}, 35: {"TQ2_0", 256, 66}, 39: {"MXFP4", 32, 17},
	40: {"NVFP4", 64, 36}, 41: {"Q1_0", 128, 18}, 42: {"Q2_0", 64, 18},
}

// String returns ggml's name of the type ("Q8_0").
func (t Type) String() string {
	if x, ok := types[t]; ok {
		return x.name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// ParseType reads the name of a type in which a model can be written: f32, f16, bf16, q8_0 or q4_0, in either case.
func ParseType(s string) (Type, error) {
	for _, t := range []Type{F32, F16, BF16, Q8_0, Q4_0} {
		if strings.EqualFold(s, t.String()) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("element type %q, expected f16, bf16, q8_0, q4_0 or f32", s)
}

// converts reports whether the package turns elements of the type into float32 and back.
func (t Type) converts() bool { return t == F32 || t == F16 || t == BF16 || t == Q8_0 || t == Q4_0 }

// fits reports whether rows of the given width are whole blocks.
func (t Type) fits(width int) bool {
	x, ok := types[t]
	return ok && width%x.block == 0
}

// size returns the bytes of a tensor, or what is wrong with its type or shape (outermost dimension first).
func (t Type) size(shape []int) (int64, error) {
	x, ok := types[t]
	if !ok {
		return 0, fmt.Errorf("%v, expected one of ggml's element types", t)
	}
	if len(shape) < 1 || len(shape) > maxDims {
		return 0, fmt.Errorf("%d dimensions, expected 1 to %d", len(shape), maxDims)
	}
	n := int64(1)
	for _, d := range shape {
		// A block has at most 292 bytes: no size below overflows.
		if d < 1 || n > math.MaxInt64/512/int64(d) {
			return 0, fmt.Errorf("shape %v, expected positive dimensions of a tensor that exists", shape)
		}
		n *= int64(d)
	}
	if w := shape[len(shape)-1]; w%x.block != 0 {
		return 0, fmt.Errorf("rows of %d elements of %v, expected a multiple of %d", w, t, x.block)
	}
	return n / int64(x.block) * int64(x.bytes), nil
}
