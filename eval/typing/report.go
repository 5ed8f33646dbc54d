package typing

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Figures are what a run comes to. Times are in milliseconds.
type Figures struct {
	Server     string `json:"server"`
	Keystrokes int    `json:"keystrokes"`
	// Of suggestions that were waited for, but for the first of each file.
	Waits      int     `json:"waits"`
	P50        float64 `json:"p50_ms"` // from the keystroke
	P95        float64 `json:"p95_ms"`
	Mean       float64 `json:"mean_ms"`
	ServiceP50 float64 `json:"service_p50_ms"` // from the request
	ServiceP95 float64 `json:"service_p95_ms"`
	Opening    float64 `json:"opening_ms"` // mean time of the first
	// Of keystrokes that were followed by another after the request was sent.
	Requests int     `json:"requests"`
	InTime   float64 `json:"in_time"` // share answered before the next

	PromptPerKey    *float64 `json:"prompt_tokens_per_keystroke"` // evaluated; nil: not known
	GeneratedPerKey *float64 `json:"generated_tokens_per_keystroke"`
	Wasted          *int64   `json:"wasted_tokens"`    // generated for answers that nobody saw
	CacheHits       float64  `json:"cache_hits"`       // share of prompt tokens, in answers
	Reused          *int64   `json:"reused"`           // suggestions not computed
	Saved           int      `json:"characters_saved"` // of suggestions waited for that were typed next
	Typed           int      `json:"characters"`
}

// FiguresOf sums up a run over traces.
func FiguresOf(run *Run, traces []Trace) Figures {
	f := Figures{Server: run.Server}
	var latency, service, opening []float64
	var cached, prompt, generated, inTime int
	for _, t := range traces {
		for _, s := range t.Steps {
			f.Typed += len(s.Insert)
		}
	}
	for _, s := range run.Samples {
		if s.Answered {
			cached, prompt, generated = cached+s.Cached, prompt+s.Prompt, generated+s.Generated
		}
		switch {
		case s.Step < 0:
			opening = append(opening, milliseconds(s.Latency))
			continue
		case s.Wait:
			latency, service = append(latency, milliseconds(s.Latency)), append(service, milliseconds(s.Service))
		case s.Sent:
			f.Requests++
			if s.Answered {
				inTime++
			}
		}
		f.Keystrokes++
		f.Saved += s.Useful
	}
	f.Waits = len(latency)
	f.P50, f.P95, f.Mean = quantile(latency, 0.5), quantile(latency, 0.95), mean(latency)
	f.ServiceP50, f.ServiceP95, f.Opening = quantile(service, 0.5), quantile(service, 0.95), mean(opening)
	f.InTime = float64(inTime) / float64(max(1, f.Requests))
	f.CacheHits = float64(cached) / float64(max(1, cached+prompt))
	if run.Count != nil {
		each := func(n int64) *float64 {
			v := float64(n) / float64(max(1, f.Keystrokes))
			return &v
		}
		wasted := max(0, run.Count.Generated-int64(generated))
		f.PromptPerKey, f.GeneratedPerKey, f.Wasted, f.Reused = each(run.Count.Prompt), each(run.Count.Generated), &wasted, &run.Count.Reused
	}
	return f
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// quantile returns the q-quantile of values, interpolated; 0 of none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	at := q * float64(len(v)-1)
	i := int(at)
	if i+1 == len(v) {
		return v[i]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(max(1, len(values)))
}

// Report is a comparison.
type Report struct {
	Model    string        `json:"model"`
	Date     time.Time     `json:"date"`
	Seed     uint64        `json:"seed"`
	Speed    float64       `json:"speed"`
	Debounce time.Duration `json:"debounce"`
	Tokens   int           `json:"max_tokens"`
	Scripted bool          `json:"scripted"`
	Figures  []Figures     `json:"figures"` // the first is ours
	Checked  *Checked      `json:"checked"`
	Traces   []Trace       `json:"traces"`
	Runs     []*Run        `json:"runs"`
}

// Formats lists what Write knows.
func Formats() []string { return []string{"table", "json"} }

// Write renders the report.
func (r *Report) Write(w io.Writer, format string) error {
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		return e.Encode(r)
	case "table":
		return r.table(w)
	}
	return fmt.Errorf("format %q: expected one of %s", format, strings.Join(Formats(), ", "))
}

// table writes a column for each server and, of two, how many times the first is better.
func (r *Report) table(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	const width = 46
	head := fmt.Sprintf("%-*s\t", width, "")
	for _, f := range r.Figures {
		head += f.Server + "\t"
	}
	if len(r.Figures) == 2 {
		head += "ratio\t"
	}
	fmt.Fprintln(tw, head)
	row := func(name string, value func(Figures) (float64, bool), format string, ratio bool) {
		line := fmt.Sprintf("%-*s\t", width, name)
		var values []float64
		for _, f := range r.Figures {
			v, ok := value(f)
			if !ok {
				line += "–\t"
				continue
			}
			values = append(values, v)
			line += fmt.Sprintf(format, v) + "\t"
		}
		if len(r.Figures) == 2 {
			if ratio && len(values) == 2 && values[0] > 0 {
				line += fmt.Sprintf("%.2f", values[1]/values[0])
			}
			line += "\t"
		}
		fmt.Fprintln(tw, line)
	}
	known := func(get func(Figures) float64) func(Figures) (float64, bool) {
		return func(f Figures) (float64, bool) { return get(f), true }
	}
	row("time to suggestion, p50", known(func(f Figures) float64 { return f.P50 }), "%.0f ms", true)
	row("time to suggestion, p95", known(func(f Figures) float64 { return f.P95 }), "%.0f ms", true)
	row("time to suggestion, mean", known(func(f Figures) float64 { return f.Mean }), "%.0f ms", true)
	row("from the request, p50", known(func(f Figures) float64 { return f.ServiceP50 }), "%.1f ms", true)
	row("from the request, p95", known(func(f Figures) float64 { return f.ServiceP95 }), "%.1f ms", true)
	row("first suggestion in a file, mean", known(func(f Figures) float64 { return f.Opening }), "%.0f ms", true)
	row("others answered before the next keystroke", known(func(f Figures) float64 { return 100 * f.InTime }), "%.0f %%", false)
	row("prompt tokens evaluated a keystroke", optional(func(f Figures) *float64 { return f.PromptPerKey }), "%.2f", true)
	row("tokens generated a keystroke", optional(func(f Figures) *float64 { return f.GeneratedPerKey }), "%.2f", true)
	row("tokens generated for nobody", optional(func(f Figures) *int64 { return f.Wasted }), "%.0f", false)
	row("prompt tokens from the cache, in answers", known(func(f Figures) float64 { return 100 * f.CacheHits }), "%.1f %%", false)
	row("suggestions not computed", optional(func(f Figures) *int64 { return f.Reused }), "%.0f", false)
	row("characters saved", known(func(f Figures) float64 { return 100 * float64(f.Saved) / float64(max(1, f.Typed)) }), "%.0f %%", false)
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, strings.Join(r.notes(), "\n"))
	return err
}

func optional[T int64 | float64](get func(Figures) *T) func(Figures) (float64, bool) {
	return func(f Figures) (float64, bool) {
		if v := get(f); v != nil {
			return float64(*v), true
		}
		return 0, false
	}
}

func (r *Report) notes() []string {
	keys, waits := 0, 0
	if len(r.Figures) > 0 {
		keys, waits = r.Figures[0].Keystrokes, r.Figures[0].Waits
	}
	notes := []string{fmt.Sprintf("%s: %d keystrokes in %d files, %d of them waited for; %v after a keystroke the request; typed %.3g times as fast as people; suggestions of at most %d tokens, %s.",
		r.Model, keys, len(r.Traces), waits, r.Debounce, r.Speed, r.Tokens, map[bool]string{true: "scripted", false: "the models' own"}[r.Scripted])}
	if c := r.Checked; c != nil {
		line := fmt.Sprintf("%d of %d answers are those of an engine without cache and speculation", c.ComputedEqual, c.Computed)
		if c.Reused > 0 {
			line += fmt.Sprintf("; of %d that an earlier suggestion gave, %d are", c.Reused, c.ReusedEqual)
		}
		notes = append(notes, line+".")
	}
	return notes
}
