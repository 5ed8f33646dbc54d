package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVariants(t *testing.T) {
	got := Variants([]string{"float32", "int8"}, []string{"float32"}, []Mode{Cached, Uncached}, []int{1, 4})
	want := []Variant{
		{"float32", "float32", Uncached, 1}, {"float32", "float32", Uncached, 4}, {"float32", "float32", Cached, 1}, {"float32", "float32", Cached, 4},
		{"int8", "float32", Uncached, 1}, {"int8", "float32", Uncached, 4}, {"int8", "float32", Cached, 1}, {"int8", "float32", Cached, 4},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values            []float64
		median, low, high float64
	}{{[]float64{3}, 3, 3, 3}, {[]float64{5, 1}, 3, 1, 5}, {[]float64{9, 1, 2}, 2, 1, 9}, {[]float64{4, 1, 3, 2}, 2.5, 1, 4}, {nil, 0, 0, 0}} {
		if s := spread(slices.Clone(c.values)); s.Median != c.median || s.Min != c.low || s.Max != c.high || !slices.Equal(s.Values, c.values) {
			t.Errorf("%v: %+v", c.values, s)
		}
	}
}

func TestTexts(t *testing.T) {
	for want, got := range map[string]string{
		"1.23 ±0.10 s":    secondsText(Spread{Median: 1.234, Min: 1.1, Max: 1.3}),
		"12.3 ±0.5 ms":    secondsText(Spread{Median: 0.01234, Min: 0.012, Max: 0.013}),
		"0.500 ±0.050 ms": secondsText(Spread{Median: 0.0005, Min: 0.00045, Max: 0.00055}),
		"1543 ±40":        rateText(Spread{Median: 1543, Min: 1500, Max: 1580}),
		"0 ±0":            rateText(Spread{}),
		"–":               bytesText(0), "512 B": bytesText(512), "49.2 kB": bytesText(49152), "81 MB": bytesText(81e6), "4.60 GB": bytesText(4.6e9),
	} {
		if got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
}

// Every round measures every variant once, in another order; one process a format goes before.
func TestRoundsAreMixed(t *testing.T) {
	var loads, order []string
	done := 0
	b := Benchmark{
		Variants: Variants([]string{"float32", "int8"}, []string{"float32"}, []Mode{Uncached, Cached}, []int{1, 2}), Repeat: 5, NewTokens: 2, PromptTokens: 3,
		Source: func(w string) string { return "folder of " + w },
		Measure: func(_ context.Context, s Spec) (Sample, error) {
			if s.Model != "folder of "+s.Weights || s.PromptTokens != 3 || s.NewTokens != 2 {
				t.Errorf("measured %+v", s)
			}
			if s.LoadOnly {
				loads = append(loads, s.Weights)
			} else {
				order = append(order, s.Variant.String())
			}
			return Sample{IDs: []int32{1, 2}, Request: float64(len(order))}, nil
		},
		Progress: func(d, total int) {
			if done++; d != done || total != 2+5*8 {
				t.Errorf("progress %d of %d after %d", d, total, done)
			}
		},
	}
	r, err := b.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(loads, []string{"float32", "int8"}) || done != 42 {
		t.Errorf("loads %v, %d steps", loads, done)
	}
	rounds := map[string]bool{}
	for round := range slices.Chunk(order, 8) {
		rounds[fmt.Sprint(round)] = true
		sorted := slices.Compact(slices.Sorted(slices.Values(round)))
		if len(sorted) != 8 {
			t.Errorf("a round of %v", round)
		}
	}
	if len(rounds) != 5 {
		t.Errorf("%d different orders in 5 rounds", len(rounds))
	}
	if len(r.Rows) != 8 || len(r.Rows[3].Request.Values) != 5 {
		t.Errorf("%+v", r.Rows)
	}
}

// Output that differs among variants of the same weights is an error, and is shown; among weights it is not.
func TestOutputsAreCompared(t *testing.T) {
	run := func(ids func(Variant, int) []int32) *Report {
		round := map[Variant]int{}
		b := Benchmark{
			Variants: Variants([]string{"float32", "int8"}, []string{"float32"}, []Mode{Uncached, Cached}, []int{1}), Repeat: 2, NewTokens: 3,
			Measure: func(_ context.Context, s Spec) (Sample, error) {
				if !s.LoadOnly {
					round[s.Variant]++
				}
				return Sample{IDs: ids(s.Variant, round[s.Variant])}, nil
			},
		}
		r, err := b.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	text := func(r *Report) string {
		var b bytes.Buffer
		if err := r.Write(&b, "table"); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	same := run(func(v Variant, _ int) []int32 {
		if v.Weights == "int8" {
			return []int32{7, 9, 9}
		}
		return []int32{7, 8, 9}
	})
	if err := same.Err(); err != nil {
		t.Error(err)
	}
	if s := text(same); !strings.Contains(s, "yes; 1 of 3 as float32") || strings.Contains(s, "DIFFERS") {
		t.Error(s)
	}
	// One wrong token, in one round of one variant.
	differs := run(func(v Variant, round int) []int32 {
		if v == (Variant{"int8", "float32", Cached, 1}) && round == 2 {
			return []int32{7, 8, 1}
		}
		return []int32{7, 8, 9}
	})
	if err := differs.Err(); err == nil || !strings.Contains(err.Error(), "int8, cached, 1 thread: token 3") {
		t.Error(err)
	}
	if s := text(differs); strings.Count(s, "DIFFERS at 3") != 1 || strings.Count(s, "yes, and as float32") != 1 {
		t.Error(s)
	}
}

func TestReportFormats(t *testing.T) {
	r := fakeReport(t, []string{"float32", "int8"}, Modes(), []int{1, 2})
	var b bytes.Buffer
	if err := r.Write(&b, "json"); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, &back); d != "" {
		t.Error(d)
	}
	b.Reset()
	if err := r.Write(&b, "markdown"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if len(lines) < 14 || strings.Count(lines[0], "|") != strings.Count(lines[1], "|") || strings.Count(lines[2], "|") != strings.Count(lines[0], "|") {
		t.Error(b.String())
	}
	if err := r.Write(&b, "yaml"); err == nil {
		t.Error("a format that is none")
	}
}

func TestRunStops(t *testing.T) {
	broken := errors.New("broken")
	b := Benchmark{Variants: []Variant{{"int8", "float32", Cached, 1}}, Repeat: 1, Measure: func(context.Context, Spec) (Sample, error) { return Sample{}, broken }}
	if _, err := b.Run(t.Context()); !errors.Is(err, broken) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b.Measure = func(context.Context, Spec) (Sample, error) { cancel(); return Sample{}, nil }
	if _, err := b.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := (Benchmark{Repeat: 1}).Run(t.Context()); err == nil {
		t.Error("no variants")
	}
}

func TestNiceTicks(t *testing.T) {
	for _, top := range []float64{0, 1e-3, 0.7, 1, 3.3, 9.99, 10, 78, 123, 5000} {
		ticks := niceTicks(top)
		last := ticks[len(ticks)-1].Value
		if len(ticks) < 2 || len(ticks) > 9 || ticks[0].Value != 0 || last < top || top > 0 && last > 2*top || math.IsNaN(last) {
			t.Errorf("%g: %v", top, ticks)
		}
	}
}
