package gguf

import (
	"encoding/binary"
	"fmt"
	"math"

	"autodev/model/dtype"
)

// blockLen is the number of elements in a block of Q8_0 and Q4_0.
const blockLen = 32

// dtypes maps the types without blocks to those of package dtype.
var dtypes = map[Type]dtype.DType{F32: dtype.F32, F16: dtype.F16, BF16: dtype.BF16}

// encode writes src as elements of type t to dst, which must have their size; src must be whole blocks. Numbers that t cannot
// hold, infinities and NaN are errors that name the element.
func encode(dst []byte, src []float32, t Type) error {
	for i, x := range src {
		if math.Float32bits(x)&0x7f800000 == 0x7f800000 {
			return &elementError{i, fmt.Sprintf("%v, expected a finite number", x)}
		}
	}
	switch t {
	case Q8_0:
		for i := 0; i < len(src); i += blockLen {
			if !encodeQ8(dst[:34], src[i:i+blockLen]) {
				return scaleError(i, src, t)
			}
			dst = dst[34:]
		}
		return nil
	case Q4_0:
		for i := 0; i < len(src); i += blockLen {
			if !encodeQ4(dst[:18], src[i:i+blockLen]) {
				return scaleError(i, src, t)
			}
			dst = dst[18:]
		}
		return nil
	}
	if t == F16 {
		for i, x := range src {
			h := dtype.ToF16(x)
			if h&0x7fff == 0x7c00 {
				return &elementError{i, fmt.Sprintf("%g is beyond F16, expected at most 65504 (BF16 holds it)", x)}
			}
			binary.LittleEndian.PutUint16(dst[2*i:], h)
		}
		return nil
	}
	_, err := dtype.Encode(dst, src, dtypes[t])
	return err
}

// elementError is a number that a tensor cannot hold, at an index that its caller shifts to the tensor's own.
type elementError struct {
	index int
	what  string
}

func (e *elementError) Error() string { return fmt.Sprintf("element %d: %s", e.index, e.what) }

func scaleError(i int, src []float32, t Type) error {
	return &elementError{i, fmt.Sprintf("block of %d numbers up to %g, whose scale is beyond %v's F16 (BF16 holds them)", blockLen, maxAbs(src[i:i+blockLen]), t)}
}

// maxAbs returns the first element of the largest magnitude; 0 for a block of zeros of either sign.
func maxAbs(x []float32) float32 {
	var top, signed float32
	for _, v := range x {
		if a := abs(v); a > top {
			top, signed = a, v
		}
	}
	return signed
}

// encodeQ8 writes a block as ggml's quantize_row_q8_0_ref does: scale max|x|/127, quotients rounded half away from zero. It
// reports whether F16 holds the scale.
func encodeQ8(dst []byte, x []float32) bool {
	d := abs(maxAbs(x)) / 127
	id := inverse(d)
	h := dtype.ToF16(d)
	binary.LittleEndian.PutUint16(dst, h)
	q := dst[2:34]
	for i, v := range x[:blockLen] {
		// float64 adds the half exactly.
		r := float64(v * id)
		q[i] = byte(int8(r + math.Copysign(0.5, r)))
	}
	return h < 0x7c00
}

// encodeQ4 writes a block as ggml's quantize_row_q4_0_ref does: the element of largest magnitude becomes −8, so the scale has
// the opposite of its sign. Byte i holds elements i (low half) and i+16. It reports whether F16 holds the scale.
func encodeQ4(dst []byte, x []float32) bool {
	d := maxAbs(x) / -8
	id := inverse(d)
	h := dtype.ToF16(d)
	binary.LittleEndian.PutUint16(dst, h)
	// The conversions keep compilers from fusing product and sum, which would round once instead of twice.
	level := func(v float32) byte { return byte(min(15, int8(float32(v*id)+8.5))) }
	for i := range blockLen / 2 {
		dst[2+i] = level(x[i]) | level(x[i+blockLen/2])<<4
	}
	return h&0x7fff < 0x7c00
}

// inverse returns 1/d, and 0 where that does not exist: for 0, and for a scale so small (below 2^-128) that the file's F16 has
// 0 for it anyway.
func inverse(d float32) float32 {
	if id := 1 / d; !math.IsInf(float64(id), 0) {
		return id
	}
	return 0
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

// decode turns elements of type t, whole blocks, into float32.
func decode(dst []float32, src []byte, t Type) error {
	switch t {
	case Q8_0:
		for ; len(dst) > 0; dst, src = dst[blockLen:], src[34:] {
			d := dtype.FromF16(binary.LittleEndian.Uint16(src))
			for i, q := range src[2:34] {
				dst[i] = d * float32(int8(q))
			}
		}
		return nil
	case Q4_0:
		for ; len(dst) > 0; dst, src = dst[blockLen:], src[18:] {
			d := dtype.FromF16(binary.LittleEndian.Uint16(src))
			for i, q := range src[2:18] {
				dst[i] = d * float32(int8(q&15)-8)
				dst[i+blockLen/2] = d * float32(int8(q>>4)-8)
			}
		}
		return nil
	}
	return dtype.Decode(dst, src, dtypes[t])
}
