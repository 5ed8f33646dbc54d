package packed

import "golang.org/x/sys/unix"

// hugePages asks for huge pages. It is advice: nothing depends on it.
func hugePages(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
