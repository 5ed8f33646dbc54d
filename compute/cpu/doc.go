// Package cpu runs the kernel vocabulary on the CPU: Kernels are the kernels as functions of slices, Device runs plans of
// them (compute.Device) and single calls (compute.HostKernels), with the same bits either way.
//
// What must not live here: the arithmetic of rows (cpu/vec), matrix products (cpu/gemm), threads (cpu/par), models.
//
// # How the rules of package compute are kept
//
// Work is cut into pieces by the shapes of the outputs, and every piece writes memory of its own; what a piece computes does
// not depend on how many threads there are or which of them runs it. Where contributions of several pieces must be summed
// (key and value gradients of grouped heads, norms), they are stored apart and summed in order afterwards. Reductions inside
// a piece are anchored to absolute indexes (of keys, columns, rows), so that a token's bits do not depend on what else the
// call holds: see the laws of cpu/gemm and cpu/vec.
//
// Plans whose floats are float64 are run by compute/ref: they exist for gradient checks.
package cpu
