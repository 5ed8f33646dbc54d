package devices

import "golang.org/x/sys/unix"

// Memory returns the bytes of memory of this machine, 0 when the system does not say.
func Memory() int64 {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int64(n)
}
