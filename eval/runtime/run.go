package runtime

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	"autodev/internal/rng"
)

// Benchmark is a comparison of variants of one model.
type Benchmark struct {
	Model        string // its name in titles
	Variants     []Variant
	Source       func(weights string) string // the model, as Opener understands it, of a weight format
	PromptTokens int
	NewTokens    int
	Prompt       string // see Spec
	HugePages    string // see Spec
	Repeat       int    // measurements of each variant
	Seed         uint64 // of the order in each round
	Measure      func(context.Context, Spec) (Sample, error)
	Progress     func(done, total int) // may be nil
}

// Machine describes where the measurements were taken.
type Machine struct {
	Processor string `json:"processor"`
	Cores     int    `json:"cores"` // usable by this process
	System    string `json:"system"`
	Go        string `json:"go"`
}

// ThisMachine describes the machine of this process.
func ThisMachine() Machine {
	m := Machine{processorName(), runtime.NumCPU(), runtime.GOOS + "/" + runtime.GOARCH, runtime.Version()}
	if m.Processor == "" {
		m.Processor = runtime.GOARCH + " processor"
	}
	return m
}

// Spread sums up one quantity over the repetitions.
type Spread struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Values []float64 `json:"values"` // by round
}

func spread(values []float64) Spread {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return Spread{}
	}
	return Spread{(sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1], values}
}

// Half returns half the distance between the extremes.
func (s Spread) Half() float64 { return (s.Max - s.Min) / 2 }

// Row is what was measured of one variant.
type Row struct {
	Variant
	Load       Spread  `json:"load_s"`
	FirstUse   Spread  `json:"first_use_s"`
	FirstToken Spread  `json:"first_token_s"`
	Prefill    Spread  `json:"prefill_tokens_s"`
	Decode     Spread  `json:"decode_tokens_s"`
	Request    Spread  `json:"request_s"`
	Peak       Spread  `json:"peak_bytes"`
	Resident   Spread  `json:"resident_bytes"`
	KVPerToken int64   `json:"kv_bytes_per_token"`
	Read       Spread  `json:"calibration_read_gb_s"`
	FMA        Spread  `json:"calibration_fma_gflops_s"`
	Drafted    Spread  `json:"drafted_tokens"`
	Accepted   Spread  `json:"accepted_tokens"`
	IDs        []int32 `json:"ids"`
	// Agreeing is how many tokens from the first on are those of the first variant of the same formats, in the worst round:
	// all, unless something is broken.
	Agreeing int `json:"agreeing_tokens"`
	// AgreeingFirst is the same in comparison with the table's first row, which may have other formats.
	AgreeingFirst int `json:"agreeing_tokens_with_first_row"`
}

// Report is a finished benchmark.
type Report struct {
	Model        string    `json:"model"`
	Machine      Machine   `json:"machine"`
	Date         time.Time `json:"date"`
	PromptTokens int       `json:"prompt_tokens"`
	NewTokens    int       `json:"new_tokens"`
	Repeat       int       `json:"repeat"`
	Rows         []Row     `json:"rows"`
}

// Run measures all variants in Repeat rounds, in another order each round, after one process per weight format that is not
// counted and brings the files into the system's cache.
func (b Benchmark) Run(ctx context.Context) (*Report, error) {
	if len(b.Variants) == 0 || b.Repeat < 1 {
		return nil, fmt.Errorf("%d variants measured %d times, expected at least one of each", len(b.Variants), b.Repeat)
	}
	var formats []string
	for _, v := range b.Variants {
		if !slices.Contains(formats, v.Weights) {
			formats = append(formats, v.Weights)
		}
	}
	done, total := 0, len(formats)+b.Repeat*len(b.Variants)
	step := func() {
		done++
		if b.Progress != nil {
			b.Progress(done, total)
		}
	}
	for _, f := range formats {
		i := slices.IndexFunc(b.Variants, func(v Variant) bool { return v.Weights == f })
		s := b.spec(b.Variants[i])
		s.LoadOnly = true
		if _, err := b.Measure(ctx, s); err != nil {
			return nil, err
		}
		step()
	}
	samples := make([][]Sample, len(b.Variants))
	for round := range b.Repeat {
		for _, i := range rng.New(b.Seed, "bench runtime order", uint64(round)).Perm(len(b.Variants)) {
			if err := context.Cause(ctx); err != nil {
				return nil, err
			}
			s, err := b.Measure(ctx, b.spec(b.Variants[i]))
			if err != nil {
				return nil, err
			}
			samples[i] = append(samples[i], s)
			step()
		}
	}
	return b.report(samples), nil
}

func (b Benchmark) spec(v Variant) Spec {
	model := b.Model
	if b.Source != nil {
		model = b.Source(v.Weights)
	}
	return Spec{Variant: v, Model: model, PromptTokens: b.PromptTokens, NewTokens: b.NewTokens, Prompt: b.Prompt, HugePages: b.HugePages}
}

func (b Benchmark) report(samples [][]Sample) *Report {
	r := &Report{
		Model: b.Model, Machine: ThisMachine(), Date: time.Now().UTC().Truncate(time.Second),
		PromptTokens: b.PromptTokens, NewTokens: b.NewTokens, Repeat: b.Repeat,
	}
	reference := map[string][]int32{} // by format
	for i, v := range b.Variants {
		all := samples[i]
		of := func(get func(Sample) float64) Spread {
			values := make([]float64, len(all))
			for j, s := range all {
				values[j] = get(s)
			}
			return spread(values)
		}
		row := Row{
			Variant:    v,
			Load:       of(func(s Sample) float64 { return s.Load }),
			FirstUse:   of(func(s Sample) float64 { return s.FirstUse }),
			FirstToken: of(func(s Sample) float64 { return s.FirstToken }),
			Prefill:    of(func(s Sample) float64 { return s.Prefill }),
			Decode:     of(func(s Sample) float64 { return s.Decode }),
			Request:    of(func(s Sample) float64 { return s.Request }),
			Peak:       of(func(s Sample) float64 { return float64(s.PeakMemory) }),
			Resident:   of(func(s Sample) float64 { return float64(s.Resident) }),
			Read:       of(func(s Sample) float64 { return s.Calibration.Read }),
			FMA:        of(func(s Sample) float64 { return s.Calibration.FMA }),
			Drafted:    of(func(s Sample) float64 { return float64(s.Drafted) }),
			Accepted:   of(func(s Sample) float64 { return float64(s.Accepted) }),
			KVPerToken: all[0].KVPerToken,
			IDs:        all[0].IDs,
			Agreeing:   math.MaxInt, AgreeingFirst: math.MaxInt,
		}
		if _, ok := reference[v.format()]; !ok {
			reference[v.format()] = all[0].IDs
		}
		for _, s := range all {
			row.Agreeing = min(row.Agreeing, agreeing(s.IDs, reference[v.format()]))
			row.AgreeingFirst = min(row.AgreeingFirst, agreeing(s.IDs, samples[0][0].IDs))
		}
		r.Rows = append(r.Rows, row)
	}
	return r
}

// agreeing returns the length of the common beginning of a and b.
func agreeing(a, b []int32) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// Err reports variants whose output is not that of the first variant with the same formats: their times compare different
// work, and something is broken.
func (r *Report) Err() error {
	for _, row := range r.Rows {
		if row.Agreeing < r.NewTokens {
			return fmt.Errorf("%s: token %d of the completion differs from that of the first variant with %s weights, expected equal outputs",
				row.Variant, row.Agreeing+1, row.format())
		}
	}
	return nil
}
