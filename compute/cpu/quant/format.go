package quant

import "fmt"

// Format is how weights are stored.
type Format uint8

const (
	Int8 Format = iota + 1 // 8-bit codes, a scale per 256 of in
	Int4                   // 4-bit codes, a scale per 64 of in
)

// ActGroup is the number of elements of a row of activations that share a scale.
const ActGroup = 256

const (
	panelOut = 16 // outputs of a panel
	quad     = 4  // neighbours along in that stand together
	align    = 64 // in is padded to a multiple of it; stored regions are multiples of it
	// scaleUnit is what a stored scale is multiplied with: the float16 range is moved to where scales of weights are.
	scaleUnit = 1.0 / 256
)

// String returns "int8" or "int4".
func (f Format) String() string {
	switch f {
	case Int8:
		return "int8"
	case Int4:
		return "int4"
	}
	return fmt.Sprintf("Format(%d)", uint8(f))
}

// ParseFormat is the inverse of String.
func ParseFormat(s string) (Format, error) {
	for _, f := range []Format{Int8, Int4} {
		if f.String() == s {
			return f, nil
		}
	}
	return 0, fmt.Errorf("weight format %q, expected int8 or int4", s)
}

// Group returns the number of neighbours along in that share a scale: 256 or 64.
func (f Format) Group() int {
	if f == Int4 {
		return 64
	}
	return 256
}

// Range returns the smallest and the largest code that Quantize makes: −127 and 127, or −8 and 7.
func (f Format) Range() (lo, hi int) {
	if f == Int4 {
		return -8, 7
	}
	return -127, 127
}

// Groups returns the number of scales of an output: in/Group, rounded up.
func (f Format) Groups(in int) int { return ceilDiv(in, f.Group()) }

// RoundScale returns the nearest scale that can be stored; beyond the largest one (255.875) that.
func RoundScale(s float32) float32 { return fromHalf(toHalf(s*(1/scaleUnit))) * scaleUnit }

// panelBytes returns the sizes of the codes and scales of 16 outputs.
func (f Format) panelBytes(in int) (codes, scales int) {
	codes = panelOut * roundUp(in, align)
	if f == Int4 {
		codes /= 2
	}
	return codes, f.Groups(in) * panelOut * 2
}

func (f Format) valid() bool { return f == Int8 || f == Int4 }

func ceilDiv(a, b int) int { return (a + b - 1) / b }
func roundUp(a, b int) int { return ceilDiv(a, b) * b }
