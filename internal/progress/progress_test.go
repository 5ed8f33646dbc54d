package progress

import (
	"strings"
	"testing"
	"time"
)

func TestPlainLines(t *testing.T) {
	var out strings.Builder
	clock := time.Unix(0, 0)
	b := New(&out, "score", "tokens")
	b.now = func() time.Time { return clock }
	for _, s := range []struct{ done, seconds int }{{0, 0}, {10, 5}, {0, 16}, {40, 20}, {50, 25}, {100, 50}} {
		clock = time.Unix(int64(s.seconds), 0)
		b.Set(s.done, 100)
	}
	b.Close()
	if want := "score: 40 of 100 tokens (40 %), 2 tokens/s, about 30s left\n"; out.String() != want {
		t.Errorf("wrote %q, expected %q", out.String(), want)
	}
}

func TestNilShowsNothing(t *testing.T) {
	b := New(nil, "x", "y")
	b.Set(1, 2)
	b.Close()
}
