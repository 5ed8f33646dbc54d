//go:build !amd64 || noasm

package runtime

// limitLoops returns none: without assembly no instruction can be counted.
func limitLoops() loops { return loops{} }

// readBytes loads all of b, whose length is a multiple of 256, and does nothing with it.
func readBytes(b []byte) { readWords(b) }
