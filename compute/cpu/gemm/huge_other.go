//go:build !linux

package gemm

// hugePages does nothing where memory cannot be advised.
func hugePages([]float32) {}
