package cpu

import "golang.org/x/sys/unix"

// advise asks the kernel for huge pages under a space: kernels walk through all of it, and with small pages the misses of
// the address cache cost as much as those of the data. A kernel that refuses changes nothing but the speed.
func advise(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
