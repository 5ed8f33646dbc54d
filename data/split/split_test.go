package split

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"autodev/data"
)

func docs(n int) data.Slice {
	var s data.Slice
	for i := range n {
		s = append(s, data.Document{Content: fmt.Sprint("text ", i), Repository: fmt.Sprint("repo", i/3), Path: fmt.Sprintf("dir%d/f%d.go", i%2, i)})
	}
	return s
}

func load(t *testing.T, src data.Source) data.Slice {
	t.Helper()
	d, err := data.Load(context.Background(), src, 0)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestByRepository(t *testing.T) {
	all := docs(9000)
	train, eval, err := ByRepository(all, 5, .1)
	if err != nil {
		t.Fatal(err)
	}
	a, b := load(t, train), load(t, eval)
	if len(a)+len(b) != len(all) {
		t.Errorf("%d + %d documents of %d", len(a), len(b), len(all))
	}
	side := map[string]bool{}
	for _, d := range b {
		side[d.Repository] = true
	}
	for _, d := range a {
		if side[d.Repository] {
			t.Fatalf("%s is on both sides", d.Repository)
		}
	}
	if n := len(side); n < 250 || n > 350 {
		t.Errorf("%d of 3000 repositories held out, want about 300", n)
	}
	_, other, err := ByRepository(all, 6, .1)
	if err != nil {
		t.Fatal(err)
	}
	if c := load(t, other); len(c) > 0 && len(b) > 0 && c[0].Repository == b[0].Repository && c[len(c)-1].Repository == b[len(b)-1].Repository {
		t.Error("the seed has no effect")
	}
	if train.Fingerprint() == eval.Fingerprint() || eval.Fingerprint() == other.Fingerprint() {
		t.Error("different splits share a fingerprint")
	}
	// A document's side must never change between versions. The values were computed with Python:
	// struct.unpack("<Q", hashlib.sha256(struct.pack("<Q", 0)+b"repository\0"+name).digest()[:8])[0] >> 11 < .3 * 2**53
	for name, want := range map[string]bool{"numpy/numpy": true, "psf/requests": true, "golang/go": false, "ruby/ruby": false, "rust-lang/rust": false, "x": false} {
		if got := HeldOut(data.Document{Repository: name}, 0, .3); got != want {
			t.Errorf("%s: held out %v, want %v", name, got, want)
		}
	}
	for _, f := range []float64{0, 1, -1} {
		if _, _, err := ByRepository(all, 0, f); err == nil {
			t.Errorf("fraction %v was accepted", f)
		}
	}
}

func TestByFiles(t *testing.T) {
	train, eval, err := ByFiles(docs(10), []string{"dir1/f3.go", "repo0/dir0/f2.go", "repo2/"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range load(t, eval) {
		got = append(got, d.Path)
	}
	if want := []string{"dir0/f2.go", "dir1/f3.go", "dir0/f6.go", "dir1/f7.go", "dir0/f8.go"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if n := len(load(t, train)); n != 5 {
		t.Errorf("%d documents left to train on", n)
	}
	if _, _, err := ByFiles(docs(1), nil); err == nil {
		t.Error("no files: no error")
	}
}

// TestOriginal: numpy's default_rng(0).permutation(10) is 4 6 2 7 3 5 9 0 8 1.
func TestOriginal(t *testing.T) {
	all := docs(10)
	train, eval, err := Original(context.Background(), all, .15, OriginalSeed, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range append(slices.Clone(eval), train...) {
		got = append(got, strings.TrimPrefix(d.Content, "text "))
	}
	if len(eval) != 2 || strings.Join(got, " ") != "4 6 2 7 3 5 9 0 8 1" {
		t.Errorf("%d test documents, order %v", len(eval), got)
	}
	if _, eval, err = Original(context.Background(), docs(1001), OriginalTestSize, OriginalSeed, 0); err != nil || len(eval) != 6 {
		t.Errorf("1001 documents: %d test documents, %v", len(eval), err)
	}
	if _, _, err := Original(context.Background(), docs(1), .5, 0, 0); err == nil {
		t.Error("one document: no error")
	}
	if _, _, err := Original(context.Background(), all, .5, 0, 20); err == nil || !strings.Contains(err.Error(), "at most 20") {
		t.Errorf("memory limit: %v", err)
	}
}
