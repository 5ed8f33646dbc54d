// Package vec holds the row functions of the CPU kernels: element-wise arithmetic, activation functions, soft-max pieces,
// sums and the optimiser's update over contiguous float32 slices.
//
// What must not live here: threads, matrices, anything that knows a kernel's operands.
//
// # Laws
//
//   - An element-wise function gives each element bits that depend on the element's inputs alone, never on its place in the
//     slice or on the slice's length.
//
//   - A sum runs in 16 lanes: element i belongs to lane i mod 16, each lane adds in index order in float32, and lanes are
//     combined as a binary tree ((0+8)+(4+12))…; so zeros before (in multiples of 16) or after the elements change nothing.
//     Functions that return float64 do so in blocks of 1,024 elements and add the blocks in float64.
//
//   - Slices of one call have one length, that of the first argument. Outputs may be the memory of an input of the same
//     element type, but not overlap it otherwise.
//
//   - The assembly for AVX-512 and AVX2 performs the operations of generic.go, the portable form of every function, in the
//     same order and without fused multiply-adds: a function's bits are the same on every machine. (Of a NaN only that it is
//     one; of a maximum of zeros the sign is not defined.)
package vec

//go:generate sh -c "cd _generate && go run . -pkg vec -out ../vec_amd64.s -stubs ../vec_stubs_amd64.go"
