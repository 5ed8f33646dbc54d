// Package attend multiplies small matrices in the layouts that attention keeps them in, and brings rows into those layouts.
//
// What must not live here: heads, tokens, caches, the merging of soft-max pieces (package cpu), threads.
//
// # Layouts
//
// Matrices are made of 32-bit words: float32, or pairs of bfloat16, the even of two neighbours along the inner dimension in the
// lower half. The left operand A is read one word at a time, from rows of any stride (or, Down, from columns). The right operand
// B stands in panels of Panel columns, each stored word row after word row without gaps, so that a panel is one stream. Nothing
// is masked: rows of panels and of C are whole, whoever owns them pads them.
//
// # Laws
//
//   - An element of C is one chain of additions in ascending inner index from zero (Add: from its old value). Of a pair the upper
//     product is added first. Its bits do not depend on the numbers of rows and columns or on where it stands.
//   - float32 products are fused multiply-adds in assembly, AVX-512 and AVX2 giving the same bits; the portable form rounds the
//     product too and agrees with them within rounding.
//   - Products of bfloat16 are exact in float32, so that assembly (VDPBF16PS where the machine has it, fused multiply-adds on
//     halves elsewhere) and portable form agree to the bit, but for results below the smallest normal number, which
//     VDPBF16PS flushes to zero.
//   - Exponentials of one instruction set have the same bits wherever they stand; those of different sets agree within rounding.
//   - Rounding to bfloat16 is to nearest, ties to even; numbers below the smallest normal one become zero.
//
// Assembly is made by the generator in _generate with avo and chosen at run time. The build tag noasm leaves the portable forms.
package attend

//go:generate sh -c "cd _generate && go run . -pkg attend -out ../kernel_amd64.s -stubs ../kernel_stubs_amd64.go"
