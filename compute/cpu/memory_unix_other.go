//go:build unix && !linux

package cpu

// advise does nothing where huge pages cannot be asked for.
func advise([]byte) {}
