//go:build !linux

package runtime

// processMemory returns zeros: unknown on this system.
func processMemory() (peak, resident int64) { return 0, 0 }

// processorName returns "": unknown on this system.
func processorName() string { return "" }

// hugeBytes returns n bytes.
func hugeBytes(n int) []byte { return make([]byte, n) }
