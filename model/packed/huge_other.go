//go:build unix && !linux

package packed

func hugePages([]byte) {}
