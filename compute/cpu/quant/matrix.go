package quant

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Matrix is the quantised weight [out, in] of a linear layer. It is immutable.
type Matrix struct {
	format        Format
	out, in       int
	codes, scales []byte // the stored form, see the package comment
}

// Size returns the bytes of the stored form of [out, in]: two regions, both multiples of 64; 0, 0 if there is no such matrix
// (a size below 1, or more bytes than an int counts).
func Size(f Format, out, in int) (codes, scales int) {
	// Half of an int leaves room for all rounding up.
	if !f.valid() || out < 1 || in < 1 || out > math.MaxInt/4-4096 || in > math.MaxInt/4-4096 {
		return 0, 0
	}
	panels := ceilDiv(out, panelOut)
	if roundUp(in, align) > math.MaxInt/4/panelOut/panels {
		return 0, 0
	}
	codes, scales = f.panelBytes(in)
	return codes * panels, roundUp(scales*panels, align)
}

// From returns the matrix whose stored form is codes and scales. It keeps both slices, which may be mapped files and must not
// change. Kernels read fastest when codes starts at a multiple of 64 bytes in memory. It is an error if the lengths are not
// those of Size.
func From(f Format, out, in int, codes, scales []byte) (*Matrix, error) {
	if !f.valid() {
		return nil, fmt.Errorf("quantised weight: unknown format %d", uint8(f))
	}
	c, s := Size(f, out, in)
	if c == 0 {
		return nil, fmt.Errorf("quantised weight: %s of shape [%d %d] cannot be", f, out, in)
	}
	if len(codes) != c || len(scales) != s {
		return nil, fmt.Errorf("quantised weight: %s of shape [%d %d] has %d bytes of codes and %d of scales, expected %d and %d", f, out, in, len(codes), len(scales), c, s)
	}
	return &Matrix{format: f, out: out, in: in, codes: codes, scales: scales}, nil
}

// FromCodes returns the matrix of the given codes [out, in] and scales [out, f.Groups(in)]. Scales are rounded as by
// RoundScale. Codes of Int4 must lie in −8…7.
func FromCodes(f Format, codes []int8, scales []float32, out, in int) *Matrix {
	m := alloc(f, out, in)
	groups := f.Groups(in)
	if len(codes) != out*in || len(scales) != out*groups {
		panic(fmt.Sprintf("quant: %d codes and %d scales for %s [%d %d]", len(codes), len(scales), f, out, in))
	}
	for o := range out {
		m.setRow(o, codes[o*in:][:in], scales[o*groups:][:groups])
	}
	return m
}

// Codes returns the stored codes. They must not be changed.
func (m *Matrix) Codes() []byte { return m.codes }

// Scales returns the stored scales. They must not be changed.
func (m *Matrix) Scales() []byte { return m.scales }

// Out returns the number of outputs.
func (m *Matrix) Out() int { return m.out }

// In returns the number of inputs.
func (m *Matrix) In() int { return m.in }

// Format returns how the weights are stored.
func (m *Matrix) Format() Format { return m.format }

// Bytes returns the size of codes and scales.
func (m *Matrix) Bytes() int { return len(m.codes) + len(m.scales) }

// Dequantize writes the weights [out, in] to dst.
func (m *Matrix) Dequantize(dst []float32) {
	for o := range m.out {
		m.Row(dst[o*m.in:], o)
	}
}

// Row writes the in weights of output r to dst: float32(code)·scale.
func (m *Matrix) Row(dst []float32, r int) {
	if r < 0 || r >= m.out {
		panic(fmt.Sprintf("quant: row %d of %d", r, m.out))
	}
	dst = dst[:m.in]
	codeBytes, scaleBytes := m.format.panelBytes(m.in)
	codes, scales := m.codes[r/panelOut*codeBytes:][:codeBytes], m.scales[r/panelOut*scaleBytes:][:scaleBytes]
	lane, group := r%panelOut, m.format.Group()
	for k0 := 0; k0 < m.in; k0 += group {
		s := fromHalf(binary.LittleEndian.Uint16(scales[(k0/group*panelOut+lane)*2:])) * scaleUnit
		part := dst[k0:min(k0+group, m.in)]
		if m.format == Int4 {
			for i := range part {
				k := k0 + i
				c := codes[k/8*64+lane*4+k%4] >> (k & 4) & 15
				part[i] = float32(int32(c)-8) * s
			}
			continue
		}
		for i := range part {
			k := k0 + i
			part[i] = float32(int32(codes[k/4*64+lane*4+k%4])-128) * s
		}
	}
}

// alloc returns a matrix of zero weights.
func alloc(f Format, out, in int) *Matrix {
	c, s := Size(f, out, in)
	if c == 0 {
		panic(fmt.Sprintf("quant: %s of shape [%d %d] cannot be", f, out, in))
	}
	m := &Matrix{format: f, out: out, in: in, codes: make([]byte, c), scales: make([]byte, s)}
	hugePages(m.codes)
	fill := byte(128)
	if f == Int4 {
		fill = 0x88
	}
	m.codes[0] = fill
	for n := 1; n < c; n *= 2 {
		copy(m.codes[n:], m.codes[:n])
	}
	return m
}

// setRow stores the codes and scales of one output of a matrix of alloc. Bytes of other outputs stay alone.
func (m *Matrix) setRow(o int, codes []int8, scales []float32) {
	codeBytes, scaleBytes := m.format.panelBytes(m.in)
	to, toScales := m.codes[o/panelOut*codeBytes:][:codeBytes], m.scales[o/panelOut*scaleBytes:][:scaleBytes]
	lane := o % panelOut
	for g, s := range scales {
		binary.LittleEndian.PutUint16(toScales[(g*panelOut+lane)*2:], toHalf(s*(1/scaleUnit)))
	}
	if m.format == Int4 {
		for k, c := range codes {
			if c < -8 || c > 7 {
				panic(fmt.Sprintf("quant: code %d of int4", c))
			}
			b, shift := &to[k/8*64+lane*4+k%4], k&4
			*b = *b&^(15<<shift) | byte(c+8)<<shift
		}
		return
	}
	for k, c := range codes {
		to[k/4*64+lane*4+k%4] = byte(c) ^ 0x80
	}
}
