package train

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"autodev/configs"
)

// The numbers are those of transformers' get_cosine_with_min_lr_schedule_with_warmup, get_linear_schedule_with_warmup,
// get_constant_schedule_with_warmup and get_cosine_schedule_with_warmup (testdata/make_schedules.py).
func TestSchedulesEqualTransformers(t *testing.T) {
	for _, c := range []struct {
		kind          string
		warmup, total int
		floor         float64
		want          []float64
	}{
		{"cosine", 3, 10, 0, []float64{0.0, 0.3333333333333333, 0.6666666666666666, 1.0, 0.9504844339512095, 0.8117449009293668, 0.6112604669781572, 0.38873953302184283, 0.18825509907063326, 0.04951556604879048}},
		{"cosine", 2, 9, 0.1, []float64{0.0, 0.5, 1.0, 0.9554359905560885, 0.8305704108364301, 0.6501344202803414, 0.44986557971965857, 0.26942958916356996, 0.14456400944391146}},
		{"linear", 3, 10, 0, []float64{0.0, 0.3333333333333333, 0.6666666666666666, 1.0, 0.8571428571428571, 0.7142857142857143, 0.5714285714285714, 0.42857142857142855, 0.2857142857142857, 0.14285714285714285}},
		{"constant", 4, 8, 0, []float64{0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0}},
	} {
		s := newSchedule(configs.Train{LR: 1, Schedule: c.kind, WarmupSteps: c.warmup, MinLRRatio: c.floor}, c.total)
		for i, want := range c.want {
			if got := s.at(i + 1); math.Abs(got-want) > 1e-12 {
				t.Errorf("%s, warm-up %d of %d, floor %v: step %d has %v, expected %v", c.kind, c.warmup, c.total, c.floor, i+1, got, want)
			}
		}
	}
	// A share of the steps is rounded up, as in transformers.
	if s := newSchedule(configs.Train{LR: 1, Schedule: "constant", WarmupRatio: .03}, 50); s.warmup != 2 {
		t.Errorf("3 %% of 50 steps: %d, expected 2", s.warmup)
	}
}

// clip_grad_norm_'s coefficient.
func TestClipping(t *testing.T) {
	for _, c := range []struct{ limit, norm, want float64 }{{1, .5, 1}, {1, 4, 1 / (4 + 1e-6)}, {0, 100, 1}, {.1, .1, .1 / (.1 + 1e-6)}} {
		if got := clipping(c.limit, c.norm); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("limit %v, norm %v: %v, expected %v", c.limit, c.norm, got, c.want)
		}
	}
}

func TestDropoutKeysDiffer(t *testing.T) {
	seen := map[[2]int32]bool{}
	for seed := range uint64(3) {
		for step := range 20 {
			for micro := range 4 {
				seen[dropoutKey(seed, step, micro)] = true
			}
		}
	}
	if len(seen) != 3*20*4 {
		t.Errorf("%d keys of %d differ", len(seen), 3*20*4)
	}
}

// The checksum of CRC-32C's check string, masked as TensorFlow's crc32c.h says.
func TestMaskedCRC(t *testing.T) {
	const crc = 0xe3069283
	rotated := uint32(crc)>>15 | uint32(0x9283<<17&0xffffffff)
	if got, want := maskedCRC([]byte("123456789")), rotated+0xa282ead8; got != want {
		t.Errorf("%08x, expected %08x", got, want)
	}
}

// An event file to the byte: the version, then one scalar.
func TestEvents(t *testing.T) {
	dir := t.TempDir()
	write := func(after int, steps ...int) {
		t.Helper()
		e, err := openEvents(dir, after)
		if err != nil {
			t.Fatal(err)
		}
		e.now = func() time.Time { return time.Unix(1, 0) }
		for _, s := range steps {
			if err := e.add(s, scalar{"a", 1.5}); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.close(); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(dir, eventsFile)
	write(0, 1)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	first := 12 + 11 + 15 + 4 // frame, wall time and step, "brain.Event:2"
	if !strings.Contains(string(b[:first]), "\x1a\x0dbrain.Event:2") {
		t.Errorf("file begins with %q", b[:first])
	}
	event := "09" + "000000000000f03f" + "1001" + "2a0a" + "0a08" + "0a0161" + "150000c03f"
	if got := hex.EncodeToString(b[first+12 : len(b)-4]); got != event {
		t.Errorf("event %s, expected %s", got, event)
	}
	if n := binary.LittleEndian.Uint64(b[first:]); n != uint64(len(event)/2) {
		t.Errorf("length %d, expected %d", n, len(event)/2)
	}

	// Resuming drops later events and what a kill left of one.
	write(1, 2, 3, 4)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{0, 1, 7, 20} {
		if err := os.WriteFile(name, whole[:len(whole)-cut], 0o644); err != nil {
			t.Fatal(err)
		}
		write(2, 3, 4)
		again, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, whole) {
			t.Errorf("%d bytes cut off: %d bytes, expected %d", cut, len(again), len(whole))
		}
	}
}

// TensorBoard itself reads what is written.
func TestTensorBoardReads(t *testing.T) {
	python := os.Getenv("AUTODEV_TENSORBOARD_PYTHON")
	if python == "" {
		t.Skip("AUTODEV_TENSORBOARD_PYTHON names no Python with tensorboard")
	}
	dir := t.TempDir()
	e, err := openEvents(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if err := e.add(i, scalar{"train/loss", float64(i) / 4}, scalar{"eval/perplexity", 2}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.close(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), python, "-c", `
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
a = EventAccumulator(sys.argv[1]); a.Reload()
print(sorted(a.Tags()["scalars"]), [(s.step, s.value) for s in a.Scalars("train/loss")][-1], len(a.Scalars("eval/perplexity")))`, dir).CombinedOutput()
	if want := "['eval/perplexity', 'train/loss'] (299, 74.75) 300\n"; err != nil || !strings.HasSuffix(string(out), want) {
		t.Errorf("%v\n%s\nexpected\n%s", err, out, want)
	}
}

func TestRecordIsCutAtTheCheckpoint(t *testing.T) {
	name := filepath.Join(t.TempDir(), RecordFile)
	lines := `{"step":0,"run":{}}
{"step":1,"train":{}}
{"step":1,"eval":{}}
{"step":2,"train":{}}
`
	for _, c := range []struct {
		text     string
		step     int
		keep     string
		measured int
	}{
		{lines, 2, lines, 1},
		{lines, 1, lines[:len(lines)-22], 1},
		{lines, 0, lines[:20], -1},
		{lines + `{"step":2,"ev`, 2, lines, 1},
		{lines + "garbage\n", 9, lines, 1},
		{"", 5, "", -1},
	} {
		if err := os.WriteFile(name, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		r, measured, err := openRecord(name, c.step)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if string(b) != c.keep || measured != c.measured {
			t.Errorf("%q up to step %d: kept %q, measured %d, expected %q, %d", c.text, c.step, b, measured, c.keep, c.measured)
		}
	}
}

// Documents to train on are often called train.jsonl too.
func TestRecordLeavesOtherFilesAlone(t *testing.T) {
	name := filepath.Join(t.TempDir(), RecordFile)
	for _, text := range []string{
		"{\"content\":\"x = 1\"}\n{\"content\":\"y = 2\"}\n", "{\"step\":0,\"content\":\"x\"}\n", "no JSON, and no line end", "\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := openRecord(name, 0); err == nil || !strings.Contains(err.Error(), name+": found a file that begins with") {
			t.Errorf("%q: error %v", text, err)
		}
		if b, err := os.ReadFile(name); err != nil || string(b) != text {
			t.Errorf("%q: left %q, %v", text, b, err)
		}
	}
	// What a kill leaves of a first line is ours.
	if err := os.WriteFile(name, []byte(recordBegin[:9]), 0o644); err != nil {
		t.Fatal(err)
	}
	r, _, err := openRecord(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !r.empty {
		t.Error("a first line that was cut off was kept")
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

func FuzzEventsUpTo(f *testing.F) {
	f.Add([]byte{1, 2, 3}, 4)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		n, err := eventsUpTo(bytes.NewReader(b), step)
		if err != nil || n < 0 || n > int64(len(b)) {
			t.Errorf("%d of %d bytes, %v", n, len(b), err)
		}
	})
}

func FuzzRecordUpTo(f *testing.F) {
	f.Add([]byte("{\"step\":1}\n{\"step\":2}\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		n, _, err := recordUpTo(bytes.NewReader(b), step)
		if err != nil || n < 0 || n > int64(len(b)) {
			t.Errorf("%d of %d bytes, %v", n, len(b), err)
		}
	})
}
