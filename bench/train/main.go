//go:build unix

// Command train measures AutoDev's training step on random data: forward, backward, gradient norm, AdamW. It prints a line of
// JSON with the fields that peer.py prints for PyTorch; compare.py runs both in turn.
//
//	go run ./bench/train -case a -precision bf16 -steps 5
//
// The dimensions are those of the variable cases; -checkpointing and -cpuprofile are for a closer look.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/model"
	"autodev/train/graph"
)

// shape is a case to measure: a decoder with tied embeddings and sequences to train it on.
type shape struct {
	layers, embed, heads, kvHeads, inner, vocab, seq, batch int
}

var cases = map[string]shape{
	"a": {6, 256, 4, 1, 1024, 8192, 512, 8},
	"b": {12, 768, 12, 1, 3072, 49280, 512, 4},
	"c": {12, 768, 12, 12, 3072, 49280, 512, 4}, // b with a key head per query head, as GPT-2
}

// result is the line that is printed.
type result struct {
	Software      string    `json:"software"`
	Case          string    `json:"case"`
	Precision     string    `json:"precision"`
	Threads       int       `json:"threads"`
	Parameters    int64     `json:"parameters"`
	Steps         []float64 `json:"step_seconds"`
	CPU           []float64 `json:"cpu_seconds"`       // processor time of the steps, all threads
	TokensPerSec  float64   `json:"tokens_per_second"` // of the median step
	GFLOPPerSec   float64   `json:"gflop_per_second"`  // 6·matmul parameters·tokens + 12·layers·embed·seq·tokens a step
	Losses        []float64 `json:"losses"`
	PeakRSSMB     float64   `json:"peak_rss_mb"`
	ArenaMB       float64   `json:"arena_mb,omitempty"`
	PlannedMB     float64   `json:"planned_mb,omitempty"`
	Checkpointing bool      `json:"checkpointing,omitempty"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "train:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	name := flag.String("case", "a", "dimensions: a, b or c")
	precision := flag.String("precision", "float32", "float32 or bf16")
	steps := flag.Int("steps", 5, "steps measured, after one that is not")
	threads := flag.Int("threads", runtime.GOMAXPROCS(0), "threads")
	checkpointing := flag.Bool("checkpointing", false, "gradient checkpointing")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the measured steps to this file")
	flag.Parse()
	s, ok := cases[*name]
	if !ok || *steps < 1 {
		return fmt.Errorf("case %q, %d steps: expected a, b or c and at least 1", *name, *steps)
	}
	device := cpu.New(cpu.Options{Threads: *threads})
	defer device.Close()
	plans, err := plan(s, *precision, *checkpointing, device)
	if err != nil {
		return err
	}
	defer func() { err = join(err, plans.Free()) }()

	r := result{Software: "autodev " + device.Name(), Case: *name, Precision: *precision, Threads: *threads, Checkpointing: *checkpointing}
	for _, p := range plans.Params() {
		r.Parameters += int64(p.Weight.Len())
	}
	ctx := context.Background()
	b := s.data()
	for n := 1; n <= *steps+1; n++ {
		if n == 2 && *profile != "" {
			f, err := os.Create(*profile)
			if err != nil {
				return err
			}
			defer func() { err = join(err, f.Close()) }()
			if err := pprof.StartCPUProfile(f); err != nil {
				return err
			}
			defer pprof.StopCPUProfile()
		}
		start, busy := time.Now(), usage()
		loss, err := step(ctx, plans, b, n, s.batch*s.seq)
		if err != nil {
			return err
		}
		r.Losses = append(r.Losses, loss)
		if n > 1 {
			r.Steps = append(r.Steps, time.Since(start).Seconds())
			r.CPU = append(r.CPU, processor(usage())-processor(busy))
		}
	}
	sorted := slices.Sorted(slices.Values(r.Steps))
	median := sorted[len(sorted)/2]
	tokens := float64(s.batch * s.seq)
	r.TokensPerSec = tokens / median
	r.GFLOPPerSec = s.flop() / median / 1e9
	u := plans.Usage()
	r.ArenaMB, r.PlannedMB = float64(u.Arena)/1e6, float64(u.Total())/1e6
	r.PeakRSSMB = peakRSS()
	return json.NewEncoder(os.Stdout).Encode(r)
}

// step is a training step as package train takes it.
func step(ctx context.Context, t *graph.Training, b graph.Batch, n, tokens int) (float64, error) {
	if err := t.ZeroGrads(); err != nil {
		return 0, err
	}
	loss, err := t.MicroStep(ctx, b, float32(1/float64(tokens)), [2]int32{})
	if err != nil {
		return 0, err
	}
	norm, err := t.GradNorm(ctx)
	if err != nil {
		return 0, err
	}
	h := graph.Hyper{LearningRate: 1e-4, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, WeightDecay: 0.1}
	return loss, t.Update(ctx, n, min(1, 1/(norm+1e-6)), h)
}

// plan plans the training of a model of shape s and puts initial weights, normal with deviation 0.02, into its memory.
func plan(s shape, precision string, checkpointing bool, device *cpu.Device) (*graph.Training, error) {
	c := model.Config{
		Architecture: model.GPTBigCode, VocabSize: s.vocab, Vocab: s.vocab, Positions: 2048, Embed: s.embed, Layers: s.layers, Heads: s.heads,
		KVHeads: s.kvHeads, Inner: s.inner, Activation: compute.GELUTanh, Epsilon: 1e-5, Tied: true, ScaleAttention: true, InitStd: 0.02, BOS: -1,
	}
	t, err := graph.Build(graph.Config{Model: c, Batch: s.batch, Seq: s.seq, Once: true, Checkpointing: checkpointing, Precision: graph.Precision(precision)}, device)
	if err != nil {
		return nil, err
	}
	if err := t.Alloc(); err != nil {
		return nil, err
	}
	initial := model.Random(c, 1)
	for _, p := range t.Params() {
		w, err := initial.Read(p.Name)
		if err == nil {
			err = t.SetParam(p.Name, w.Data)
		}
		if err != nil {
			return nil, join(err, t.Free())
		}
	}
	debug.FreeOSMemory() // as package train does
	return t, nil
}

// data is the batch that peer.py makes too: Knuth's linear congruential generator.
func (s shape) data() graph.Batch {
	var b graph.Batch
	x := uint64(1)
	for range s.batch {
		row := make([]int32, s.seq+1)
		for i := range row {
			x = x*6364136223846793005 + 1442695040888963407
			row[i] = int32((x >> 33) % uint64(s.vocab))
		}
		b.IDs = append(b.IDs, row[:s.seq]...)
		b.Targets = append(b.Targets, row[1:]...)
	}
	return b
}

// flop is the work of a step: forward and backward products, attention counted in full.
func (s shape) flop() float64 {
	head := s.embed / s.heads
	block := s.embed*(s.embed+2*s.kvHeads*head) + s.embed*s.embed + 2*s.embed*s.inner
	n := float64(s.layers*block + s.vocab*s.embed)
	return float64(s.batch*s.seq) * (6*n + 12*float64(s.layers*s.embed*s.seq))
}

// usage is what the process has used; asking for it does not fail.
func usage() (u unix.Rusage) {
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return u
}

// processor returns seconds of processor time.
func processor(u unix.Rusage) float64 {
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// peakRSS returns the most memory the process has had resident, in MB.
func peakRSS() float64 {
	unit := 1024.0 // ru_maxrss counts kilobytes, on macOS bytes
	if runtime.GOOS == "darwin" {
		unit = 1
	}
	return float64(usage().Maxrss) * unit / 1e6
}

func join(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
