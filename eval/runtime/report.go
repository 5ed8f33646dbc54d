package runtime

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Formats lists what Write knows.
func Formats() []string { return []string{"table", "markdown", "json"} }

// Write renders the report in one of Formats.
func (r *Report) Write(w io.Writer, format string) error {
	switch format {
	case "table":
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		// Right-aligned columns need a cell behind the last.
		line := func(cells []string) {
			// Names stand left in their columns.
			for i, width := range r.nameWidths() {
				cells[i] = fmt.Sprintf("%-*s", width, cells[i])
			}
			fmt.Fprintln(tw, strings.Join(cells, "\t")+"\t")
		}
		line(slices.Clone(header))
		for _, row := range r.Rows {
			line(r.cells(row))
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprint(w, strings.Join(r.notes(), "\n"), "\n")
		return err
	case "markdown":
		var b strings.Builder
		b.WriteString("| " + strings.Join(header, " | ") + " |\n|---|---" + strings.Repeat("|---:", len(header)-2) + "|\n")
		for _, row := range r.Rows {
			b.WriteString("| " + strings.Join(r.cells(row), " | ") + " |\n")
		}
		b.WriteString("\n" + strings.Join(r.notes(), "  \n") + "\n")
		_, err := io.WriteString(w, b.String())
		return err
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return fmt.Errorf("format %q: expected one of %s", format, strings.Join(Formats(), ", "))
}

var header = []string{
	"Weights", "Mode", "Threads", "Load", "First token", "Prefill tok/s", "Decode tok/s", "Request", "Peak memory", "Resident", "KV a token", "Same output",
}

func (r *Report) cells(row Row) []string {
	kv := "none"
	if row.KVPerToken > 0 {
		kv = bytesText(float64(row.KVPerToken))
	}
	return []string{
		row.format(), string(row.Mode), fmt.Sprint(row.Threads),
		secondsText(row.Load), secondsText(row.FirstToken), rateText(row.Prefill), rateText(row.Decode), secondsText(row.Request),
		bytesText(row.Peak.Median), bytesText(row.Resident.Median), kv, r.agreement(row),
	}
}

// nameWidths returns the widths of the first two columns.
func (r *Report) nameWidths() []int {
	w := []int{len(header[0]), len(header[1])}
	for _, row := range r.Rows {
		w[0], w[1] = max(w[0], len(row.format())), max(w[1], len(row.Mode))
	}
	return w
}

// agreement says how a row's output compares with those that it must equal, and with the first row's.
func (r *Report) agreement(row Row) string {
	switch {
	case row.Agreeing < r.NewTokens:
		return fmt.Sprintf("DIFFERS at %d", row.Agreeing+1)
	case row.format() == r.Rows[0].format():
		return "yes"
	case row.AgreeingFirst == r.NewTokens:
		return "yes, and as " + r.Rows[0].format()
	}
	return fmt.Sprintf("yes; %d of %d as %s", row.AgreeingFirst, r.NewTokens, r.Rows[0].format())
}

func (r *Report) notes() []string {
	notes := []string{
		fmt.Sprintf("%s: %d prompt and %d new tokens, never fewer. %s, %s, %s, %s.",
			r.Model, r.PromptTokens, r.NewTokens, r.Machine.Processor, plural(r.Machine.Cores, "core"), r.Machine.System, r.Date.Format(time.DateOnly)),
		fmt.Sprintf("Medians of %s, each in a process of its own, in mixed order; ± is half the range.", plural(r.Repeat, "measurement")),
	}
	for _, n := range r.threads() {
		read, fma := r.calibration(n)
		notes = append(notes, fmt.Sprintf("The machine meanwhile, %s: read %.1f GB/s (%.1f–%.1f), float32 multiply-add %.0f GFLOP/s (%.0f–%.0f).",
			plural(n, "thread"), read.Median, read.Min, read.Max, fma.Median, fma.Min, fma.Max))
	}
	return append(notes, "Same output: greedy tokens equal to those of the other rows with these weights and KV format, as they must be; across formats they need not be.")
}

// threads lists the numbers of threads measured, in the order of the rows.
func (r *Report) threads() []int {
	var ns []int
	for _, row := range r.Rows {
		if !slices.Contains(ns, row.Threads) {
			ns = append(ns, row.Threads)
		}
	}
	return ns
}

// calibration returns the machine's speed beside all measurements on n threads.
func (r *Report) calibration(n int) (read, fma Spread) {
	var reads, fmas []float64
	for _, row := range r.Rows {
		if row.Threads == n {
			reads, fmas = append(reads, row.Read.Values...), append(fmas, row.FMA.Values...)
		}
	}
	return spread(reads), spread(fmas)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// secondsText writes a time and how far it varied with one unit.
func secondsText(s Spread) string {
	if s.Median < 1 {
		return withSpread(1e3*s.Median, 1e3*s.Half()) + " ms"
	}
	return withSpread(s.Median, s.Half()) + " s"
}

func rateText(s Spread) string { return withSpread(s.Median, s.Half()) }

// withSpread writes x with three significant digits and h with as many decimals.
func withSpread(x, h float64) string {
	decimals := 0
	if x > 0 {
		decimals = max(0, 2-int(math.Floor(math.Log10(x))))
	}
	decimals = min(decimals, 3)
	return fmt.Sprintf("%.*f ±%.*f", decimals, x, decimals, h)
}

// bytesText writes a size in decimal units; "–" for one that is not known.
func bytesText(n float64) string {
	switch {
	case n <= 0:
		return "–"
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", n/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.0f MB", n/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.1f kB", n/1e3)
	}
	return fmt.Sprintf("%.0f B", n)
}
