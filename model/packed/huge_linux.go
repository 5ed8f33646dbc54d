package packed

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// anonymous returns n bytes of memory outside the garbage collector's heap, in huge pages where there are any.
func anonymous(n int) (data []byte, free func() error, err error) {
	data, err = unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil, err
	}
	// Advice: nothing depends on it.
	_ = unix.Madvise(data, unix.MADV_HUGEPAGE)
	return data, func() error { return unix.Munmap(data) }, nil
}

// forget takes mapped pages out of the process's memory; they stay in the system's cache.
func forget(b []byte) { _ = unix.Madvise(b, unix.MADV_DONTNEED) }

// hugePagesFor reports whether the system gives huge pages to those who ask, and has n bytes of memory to spare.
func hugePagesFor(n int64) bool {
	b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	return err == nil && !bytes.Contains(b, []byte("[never]")) && available() >= n
}

// available returns the bytes that can be had without swapping, what holds files included, in the machine and in the control
// groups the process is in; 0 when the system does not say.
func available() int64 {
	n := 1024 * field("/proc/meminfo", "MemAvailable:")
	group, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return n
	}
	for line := range strings.Lines(string(group)) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		for ; ok; name = path.Dir(name) {
			n = min(n, groupRoom(path.Join("/sys/fs/cgroup", name)))
			ok = len(name) > 1
		}
	}
	return n
}

// groupRoom returns what a control group's limit leaves.
func groupRoom(dir string) int64 {
	number := func(name string) (int64, bool) {
		b, err := os.ReadFile(path.Join(dir, name))
		if err != nil {
			return 0, false
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64) // "max": no limit
		return n, err == nil
	}
	limit, ok := number("memory.max")
	used, known := number("memory.current")
	if !ok || !known {
		return math.MaxInt64
	}
	return limit - used + field(path.Join(dir, "memory.stat"), "inactive_file") + field(path.Join(dir, "memory.stat"), "active_file")
}

// field returns the number after a name at the beginning of a line, 0 if there is none.
func field(file, name string) int64 {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if words := strings.Fields(s.Text()); len(words) > 1 && words[0] == name {
			n, _ := strconv.ParseInt(words[1], 10, 64)
			return n
		}
	}
	return 0
}
