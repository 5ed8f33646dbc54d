package cpu

import "autodev/compute/cpu/gemm"

// HasBF16 reports whether this machine multiplies bfloat16 itself. If not, calls with Attr.BF16 round their operands and
// multiply in float32: results of the same quality, but slower than without.
func HasBF16() bool { return gemm.LevelBF16() != gemm.Level() }
