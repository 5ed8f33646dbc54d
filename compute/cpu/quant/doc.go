// Package quant holds linear weights in 8 and 4 bits and multiplies float32 activations, quantised to 8 bits row by row, with
// them: y = x·Wᵀ.
//
// What must not live here: anything that knows which layer a weight belongs to, files, or how codes are calibrated on data.
//
// # Formats
//
// A weight of [out, in] is codes and scales: w[o,k] ≈ code[o,k]·scale[o, k/group].
//
//	Int8: codes −127…127 (−128 is understood), a scale per 256 of in: 8.06 bits a weight
//	Int4: codes −8…7, a scale per 64 of in: 4.25 bits a weight
//
// Scales are of either sign and are stored as float16 of scale·256, so that they keep 11 bits from 2.4e-7 to 255.
// Activations have codes −127…127 and a scale, max|x|/127, per row and 256 of in.
//
// # Stored form
//
// One form for every instruction set. Outputs stand in panels of 16, padded with zero weights, and in is padded with zero
// weights to a multiple of 64. Four neighbours along in are a quad. Codes are stored unsigned, code+128 or code+8:
//
//	Int8: [out/16][in/4][16][4] bytes
//	Int4: [out/16][in/8][16][4] bytes, the low nibbles being the even quad, the high nibbles the odd one
//	scales, either: [out/16][in/group][16] float16, little-endian
//
// # Law
//
// With sum_g the exact Σ code(w)·code(x) over group g of in, an integer below 2²³,
//
//	acc := 0
//	for each group g of in, ascending:
//		acc += (float32(sum_g)·(256·scale(w, g)))·(scale(x, g)/256)
//	y = Then(acc + bias) + base
//
// where each operation rounds to float32 (there is no fused multiply-add; 256 is exact). So the bits of an output depend on its
// row of activations and its weights alone: not on the instruction set, the number of rows in the call or the number of threads.
// (Of a NaN only that it is one.) A group of activations with a NaN or an infinity has the scale NaN, one with max|x| below
// 2⁻¹⁰⁰ has the scale 0.
package quant

//go:generate sh -c "cd _generate && go run . -pkg quant -out ../kernel_amd64.s -stubs ../kernel_stubs_amd64.go"
