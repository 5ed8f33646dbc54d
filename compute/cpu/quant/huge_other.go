//go:build !linux

package quant

// hugePages does nothing where memory cannot be advised.
func hugePages([]byte) {}
