// Package ref is the readable reference of every kernel of the vocabulary (compute.Kernel): plain loops over float32 or
// float64, one file per family, sums in float64. It is the yardstick that the fast kernels of every device are measured
// against, runs the float64 plans of gradient checks, and is meant to be read beside the formulas.
//
// What must not live here: anything done for speed (blocking, threads, approximations, unsafe).
//
// The functions expect slices of the lengths that their shapes give (Kernels.Do checks them) and report ids, targets and
// document starts out of range as *compute.RangeError. Integer operands are checked before anything is written.
package ref

// Float is the element type of a kernel.
type Float interface{ ~float32 | ~float64 }
