//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestDiskFull: commands that cannot finish a folder say so in one line and leave nothing of it behind.
func TestDiskFull(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w := newWorkshop(t)
	out := filepath.Join(disk, "out")
	for name, c := range map[string]struct {
		args    []string
		failing string // what could not be written
	}{
		"train":   {append([]string{"train", "--config", w.recipe, "--out", out}, w.initSets()...), filepath.Join(out, "checkpoint-3")},
		"convert": {[]string{"model", "convert", smallModel(t), "--out", out}, out},
		"GGUF":    {[]string{"model", "convert", "autodev-tiny", "--to", "gguf", "--out", out}, out},
	} {
		o := autodev(t, "", c.args...)
		message := lastLine(o.err)
		t.Log(message)
		if o.code != exitFailure || o.out != "" || !strings.HasPrefix(message, "autodev: ") || !strings.Contains(message, c.failing) || !strings.HasSuffix(message, "no space left on device") {
			t.Errorf("%s: exit code %d\n%s%s\nexpected no space for %s", name, o.code, o.out, o.err, c.failing)
		}
		for file, text := range tree(t, disk) {
			if strings.HasSuffix(file, ".safetensors") || strings.HasPrefix(text, "GGUF") {
				t.Errorf("%s: left %s of %d bytes behind", name, file, len(text))
			}
		}
		if err := os.RemoveAll(out); err != nil {
			t.Fatal(err)
		}
	}
}
