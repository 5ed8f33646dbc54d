package runtime

import (
	"bytes"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// processMemory returns the largest and the present resident set of this process, file pages included, in bytes; 0 for
// unknown.
func processMemory() (peak, resident int64) {
	// Not getrusage: its peak goes back to before exec.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	field := func(name string) int64 {
		_, rest, _ := bytes.Cut(status, []byte("\n"+name+":"))
		kilobytes, _, _ := bytes.Cut(rest, []byte(" kB"))
		n, err := strconv.ParseInt(string(bytes.TrimSpace(kilobytes)), 10, 64)
		if err != nil {
			return 0
		}
		return 1024 * n
	}
	return field("VmHWM"), field("VmRSS")
}

// processorName returns the model of the processor, "" for unknown.
func processorName() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	_, rest, _ := bytes.Cut(info, []byte("model name"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	_, name, _ := bytes.Cut(line, []byte(":"))
	return string(bytes.TrimSpace(name))
}

// hugeBytes returns n bytes of memory of its own, never given back, in huge pages where the system has them.
func hugeBytes(n int) []byte {
	const huge = 2 << 20
	b, err := unix.Mmap(-1, 0, n+huge, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return make([]byte, n)
	}
	skip := int(-uintptr(unsafe.Pointer(&b[0])) % huge)
	b = b[skip:][:n:n]
	// An error only means that the advice is not taken.
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	return b
}
