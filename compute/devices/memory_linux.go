package devices

import (
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Memory returns the bytes of memory that this process may use in all: the machine's, or less where a control group says so. 0
// when the system does not say.
func Memory() int64 {
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) != nil {
		return 0
	}
	total := int64(uint64(s.Totalram) * uint64(s.Unit))
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return total
	}
	for line := range strings.Lines(string(groups)) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		for ; ok; name = path.Dir(name) {
			b, err := os.ReadFile(path.Join("/sys/fs/cgroup", name, "memory.max"))
			if err == nil {
				if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
					total = min(total, n)
				}
			}
			ok = len(name) > 1
		}
	}
	return total
}
