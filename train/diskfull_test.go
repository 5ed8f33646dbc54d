//go:build linux

package train

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// When the disk is full while a checkpoint is being saved, the error says so, the older checkpoint stays whole, nothing half
// written is left, and with room again the run ends as if nothing had happened.
func TestDiskFull(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	sets := []string{"init.tokenizer=" + vocabulary(t), "checkpoint.keep=0", "train.steps=10"}
	want := filepath.Dir(mustRun(t, options(), fullRecipe, sets...).Final)
	size := 0
	for name, b := range tree(t, want) {
		if strings.HasPrefix(name, "checkpoint-5/") {
			size += (len(b) + 4095) / 4096 * 4096
		}
	}
	// Room for one checkpoint and a half.
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size="+strconv.Itoa(size*3/2)); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(disk, "out")
	r := recipe(t, fullRecipe, append(sets, "out="+out)...)
	_, err := Run(t.Context(), r, options())
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "write "+out+"/checkpoint-10: ") || !strings.Contains(err.Error(), "no space left on device") {
		t.Fatalf("error %v", err)
	}
	t.Log(err)
	if s, dir, err := newestState(out, t.Logf); err != nil || s == nil || s.Step != 5 {
		t.Errorf("after the error: %v %s %v", s, dir, err)
	}
	if left, _ := filepath.Glob(filepath.Join(out, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), r, options()); err != nil {
		t.Fatal(err)
	}
	sameTree(t, out, want)
}
