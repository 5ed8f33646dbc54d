package quant

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePages asks the kernel to back fresh memory with huge pages: packed weights are read from end to end for every token,
// and with pages of 4 KiB looking up addresses costs more than a third of that time. Without them everything works as well.
func hugePages(x []byte) {
	const huge = 2 << 20
	if len(x) == 0 {
		return
	}
	start := uintptr(unsafe.Pointer(&x[0]))
	skip := int(-start % huge)
	if n := (len(x) - skip) / huge * huge; n > 0 {
		// An error only means that the advice is not taken.
		_ = unix.Madvise(unsafe.Slice((*byte)(unsafe.Pointer(&x[skip])), n), unix.MADV_HUGEPAGE)
	}
}
