package cuda

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"autodev/compute/cuda/cudatest"
	"autodev/compute/ref"
)

// longAttention has several tiles of keys to a tile of queries, and more tiles of queries than the stand-in has multiprocessors; documents are
// the sequences.
func longAttention(seq, heads, dim int, s Store) attentionProblem {
	p := newAttentionProblem(1, seq, heads, 1, dim, 0, s)
	clear(p.docStart)
	return p
}

// forward returns y of the device.
func (p attentionProblem) forward(t testing.TB, d *Device) (y []float32, err error) {
	t.Helper()
	err = d.Do(func(q *Queue) error {
		out := alloc[uint16](t, q, len(p.dy))
		l, err := attention(q, out, 0, upload(t, q, encode(p.qkv, p.store)), upload(t, q, p.docStart), 0, p.n, p.Attr, p.store)
		if err != nil {
			return err
		}
		if err := errors.Join(l.Enqueue(q), q.Sync()); err != nil {
			return err
		}
		y = decode(download[uint16](t, q, out, len(p.dy)), p.store)
		return nil
	})
	return y, err
}

// wantForward returns y of the yardstick.
func (p attentionProblem) wantForward(t testing.TB) []float32 {
	t.Helper()
	want := make([]float32, len(p.dy))
	if err := ref.Attention(want, p.qkv, p.docStart, attentionKey, p.Attr); err != nil {
		t.Fatal(err)
	}
	return want
}

// Blocks that do many tiles of queries, with many tiles of keys each.
func TestAttentionLong(t *testing.T) {
	problems := []attentionProblem{longAttention(420, 2, 64, BF16), longAttention(330, 2, 128, F16), newAttentionProblem(2, 150, 4, 2, 96, 0, BF16)}
	var want [][]float32
	for _, p := range problems {
		want = append(want, p.wantForward(t))
	}
	eachSeed(t, func(t *testing.T, d *Device) {
		for i, p := range problems {
			y, err := p.forward(t, d)
			if err != nil {
				t.Fatal(p, err)
			}
			tolerance, _ := p.tolerance()
			cudatest.Close(t, p.String(), y, want[i], tolerance, 0x1p-7)
		}
	})
}

// Barriers and waits that are taken out of the kernels for compute capability 9.0 must show, and wrong steps.
func TestAttentionHopperBugsAreCaught(t *testing.T) {
	p := longAttention(450, 4, 64, BF16)
	want := p.wantForward(t)
	for _, bug := range []struct {
		name  string
		least int
	}{
		// Copies that come too soon show where the stand-in copies at once.
		{"hopper_queries", 1}, {"hopper_empty", 3}, {"hopper_copies", 3}, {"hopper_proxy", 3}, {"hopper_scores", 3}, {"hopper_wait", 3}, {"hopper_step", 5},
	} {
		planted(t, "attention64_hopper.cu:"+bug.name, bug.least, func(b workbench) bool {
			y, err := p.forward(t, b.d)
			if err != nil {
				return true
			}
			tolerance, _ := p.tolerance()
			_, differs := cudatest.Differs(y, want, 2*tolerance, 0x1p-6)
			return differs
		})
	}
}

// Kernels for compute capability 9.0 that do not load, or do not agree with those for 8.0, leave the work to these, and the log says so, once.
func TestAttentionIsCompared(t *testing.T) {
	for _, c := range []struct{ plant, log string }{
		{"", ""}, {"absent", "absent"}, {"attention64_hopper.cu:hopper_step", "outputs are"}, {"attention64_hopper_grad.cu:hopper_grad_step", "gradients are"},
	} {
		t.Run(c.plant, func(t *testing.T) {
			plant := c.plant
			if plant == "absent" {
				plant = ""
			}
			l := cudatest.Library(t, plant)
			d, err := New(Options{CUDA: l.CUDA, CublasLt: l.CublasLt, Workspace: 4 << 20})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			var log bytes.Buffer
			old := slog.Default()
			slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
			defer slog.SetDefault(old)
			if c.plant == "absent" {
				if err := d.Do(func(q *Queue) error {
					q.d.entries["attention_hopper64_bf16"].module.Name = "absent"
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			p := newAttentionProblem(1, 65, 2, 1, 64, 0, BF16)
			p.check(t, d)
			p.check(t, d)
			lines := strings.Count(log.String(), "\n")
			if c.log == "" && (lines != 0 || d.options.NoWarpgroups) || c.log != "" && (lines != 1 || !d.options.NoWarpgroups || !strings.Contains(log.String(), c.log)) {
				t.Errorf("the log is: %s", &log)
			}
		})
	}
}
