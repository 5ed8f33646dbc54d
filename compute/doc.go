// Package compute is the device seam: the kernel vocabulary every architecture is expressed in, the buffers kernels work
// on, the Plan (a flat list of kernel calls over a few memory spaces whose sizes are known beforehand) and the Device that
// runs it.
//
// What must not live here: kernel bodies (compute/ref has the readable ones, compute/cpu the fast ones), models, graphs,
// files. The package imports nothing of the project but internal/rng and internal/float16.
//
// # Rules every kernel keeps
//
//   - Matrices are row-major; a linear weight is [out, in]; activations are [n, width] with n = batch × sequence tokens.
//   - Outputs marked accumulate (+=) add to what is there; all others overwrite without reading. Parameter gradients are
//     +=, activations are =. A fresh gradient space is zero.
//   - Same input, same bits: work is split over outputs only, never over a reduction, so that the number of threads
//     changes nothing. Rows are independent: the bits of one row of a Linear, LayerNorm, Activation or Attention do not
//     depend on how many other rows are in the call, so that a cached decode step equals an uncached one.
//   - Attr.BF16 changes what enters a matrix product and nothing else: operands are rounded to bfloat16 on the way in, in
//     memory everything stays float32, and sums are float32.
//   - Kernels know their operands' types (Buffer.DType). A plan's Storage gives each value its type by what it is: float32
//     throughout, float64 throughout, or bfloat16 or float16 for parameters and activations beside float32 for gradients of
//     parameters, masters, moments, losses and scalars. What is read in a short type is computed with in float32 and rounded
//     when written.
//   - Reductions over tokens or the vocabulary that end in one number (loss, norms) accumulate in float64, in index order.
package compute
