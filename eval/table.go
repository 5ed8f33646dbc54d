package eval

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Row is one model of a table.
type Row struct {
	Name   string
	Result Result
}

// Table compares models scored on the same documents; percentages refer to the first row.
type Table struct {
	Data string // where the documents come from
	Seed uint64 // of the bootstrap
	Rows []Row
}

// Formats lists what Write knows.
func Formats() []string { return []string{"table", "markdown", "csv", "json"} }

// record is a row with everything derived from it: the JSON format.
type record struct {
	Model         string    `json:"model"`
	Perplexity    float64   `json:"perplexity"`
	Percent       float64   `json:"percent_of_first"`
	Interval      Interval  `json:"perplexity_95"`
	PercentRange  *Interval `json:"percent_of_first_95,omitempty"`
	Tokens        int       `json:"tokens"`
	Documents     int       `json:"documents"`
	NLL           float64   `json:"nll_sum"`
	Bytes         int       `json:"bytes"`
	BitsPerByte   float64   `json:"bits_per_byte"`
	ResampledOver string    `json:"resampled_over"`
	Clusters      int       `json:"clusters"`
}

type report struct {
	Protocol  Protocol `json:"protocol"`
	Window    int      `json:"window"`
	Stride    int      `json:"stride"`
	Data      string   `json:"data"`
	Resamples int      `json:"bootstrap_resamples"`
	Seed      uint64   `json:"bootstrap_seed"`
	Rows      []record `json:"rows"`
}

func (t Table) report(ctx context.Context) (report, error) {
	if len(t.Rows) == 0 {
		return report{}, fmt.Errorf("a table needs at least one row")
	}
	first := t.Rows[0].Result
	for _, r := range t.Rows {
		if r.Result.Protocol != first.Protocol || len(r.Result.Clusters) != len(first.Clusters) {
			return report{}, fmt.Errorf("%s was scored by %s over %d %s, %s by %s over %d %s: rows of one table must be scored alike",
				t.Rows[0].Name, first.Protocol, len(first.Clusters), first.ClustersKind,
				r.Name, r.Result.Protocol, len(r.Result.Clusters), r.Result.ClustersKind)
		}
	}
	rep := report{Protocol: first.Protocol, Window: first.Window, Stride: first.Stride, Data: t.Data, Resamples: Resamples, Seed: t.Seed}
	results := make([]Result, len(t.Rows))
	for i, r := range t.Rows {
		results[i] = r.Result
	}
	perplexities, ratios, err := Bootstrap(ctx, t.Seed, results)
	if err != nil {
		return report{}, err
	}
	for i, r := range t.Rows {
		rec := record{
			Model: r.Name, Perplexity: r.Result.Perplexity, Percent: 100 * r.Result.Perplexity / first.Perplexity,
			Interval: perplexities[i], Tokens: r.Result.Tokens, Documents: r.Result.Documents, NLL: r.Result.NLL, Bytes: r.Result.Bytes,
			BitsPerByte: r.Result.BitsPerByte(), ResampledOver: r.Result.ClustersKind, Clusters: len(r.Result.Clusters),
		}
		if i > 0 {
			rec.PercentRange = &Interval{100 * ratios[i].Low, 100 * ratios[i].High}
		}
		rep.Rows = append(rep.Rows, rec)
	}
	return rep, nil
}

// caption says what the numbers are.
func (r report) caption() string {
	x := r.Rows[0]
	return fmt.Sprintf("%s protocol (window %d, stride %d), %d documents, %d tokens scored; 95 %% intervals by bootstrap over %d %s.",
		r.Protocol, r.Window, r.Stride, x.Documents, x.Tokens, x.Clusters, x.ResampledOver)
}

func (r record) percent() string {
	s := fmt.Sprintf("%.0f %%", r.Percent)
	if r.PercentRange != nil {
		s = fmt.Sprintf("%.0f %% (%.1f–%.1f)", r.Percent, r.PercentRange.Low, r.PercentRange.High)
	}
	return s
}

// Write renders the table in one of Formats.
func (t Table) Write(ctx context.Context, w io.Writer, format string) error {
	rep, err := t.report(ctx)
	if err != nil {
		return err
	}
	header := []string{"Model", "Perplexity", "% of first", "95 % interval", "Bits per byte"}
	cells := func(r record) []string {
		return []string{r.Model, fmt.Sprintf("%.2f", r.Perplexity), r.percent(), fmt.Sprintf("%.2f–%.2f", r.Interval.Low, r.Interval.High), fmt.Sprintf("%.3f", r.BitsPerByte)}
	}
	switch format {
	case "table":
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, strings.Join(header, "\t"))
		for _, r := range rep.Rows {
			fmt.Fprintln(tw, strings.Join(cells(r), "\t"))
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, rep.caption())
		return err
	case "markdown":
		var b strings.Builder
		b.WriteString("| " + strings.Join(header, " | ") + " |\n|---|---:|---:|---:|---:|\n")
		for _, r := range rep.Rows {
			c := cells(r)
			c[0] = strings.ReplaceAll(c[0], "|", `\|`)
			b.WriteString("| " + strings.Join(c, " | ") + " |\n")
		}
		b.WriteString("\n" + rep.caption() + "\n")
		_, err := io.WriteString(w, b.String())
		return err
	case "csv":
		cw := csv.NewWriter(w)
		g := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
		rows := [][]string{{"model", "perplexity", "percent_of_first", "low_95", "high_95", "tokens", "documents", "nll_sum", "bits_per_byte", "protocol"}}
		for _, r := range rep.Rows {
			rows = append(rows, []string{r.Model, g(r.Perplexity), g(r.Percent), g(r.Interval.Low), g(r.Interval.High),
				strconv.Itoa(r.Tokens), strconv.Itoa(r.Documents), g(r.NLL), g(r.BitsPerByte), string(rep.Protocol)})
		}
		return cw.WriteAll(rows)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(rep)
	}
	return fmt.Errorf("format %q: expected one of %s", format, strings.Join(Formats(), ", "))
}
