package eval

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"autodev/internal/rng"
)

func result(scale float64, n int) Result {
	r := Result{Protocol: Exact, Window: 1024, Stride: 512, Documents: n, ClustersKind: "documents"}
	g := rng.New(1, "test")
	for range n {
		tokens := 50 + g.IntN(100)
		r.add(Cluster{NLL: scale * float64(tokens) * (1 + .3*g.NormFloat64()), Tokens: tokens, Bytes: 3 * tokens})
	}
	r.Perplexity = perplexity(Exact, r.Clusters, nil)
	return r
}

func mustBootstrap(t *testing.T, rs ...Result) (perplexities, ratios []Interval) {
	t.Helper()
	perplexities, ratios, err := Bootstrap(t.Context(), 0, rs)
	if err != nil {
		t.Fatal(err)
	}
	return perplexities, ratios
}

func TestBootstrapCoversTheNormalInterval(t *testing.T) {
	const n = 400
	var r Result
	r.Protocol = Exact
	g := rng.New(3, "clusters")
	for range n {
		r.add(Cluster{NLL: 1 + .5*g.NormFloat64(), Tokens: 1, Bytes: 1})
	}
	ppl, ratio := mustBootstrap(t, r, r)
	mean := r.NLL / n
	half := 1.96 * .5 / math.Sqrt(n)
	if lo, hi := math.Log(ppl[0].Low)-(mean-half), math.Log(ppl[0].High)-(mean+half); math.Abs(lo) > .01 || math.Abs(hi) > .01 {
		t.Errorf("interval %v is off the normal one by %.3f and %.3f nats", ppl[0], lo, hi)
	}
	if ratio[1] != (Interval{1, 1}) {
		t.Errorf("the same result has ratio %v, expected exactly 1: the resamples are not paired", ratio[1])
	}
}

func TestTableFormats(t *testing.T) {
	table := Table{Data: "ruby", Rows: []Row{{"base", result(1.4, 200)}, {"tuned|x", result(1.2, 200)}}}
	out := map[string]string{}
	for _, f := range Formats() {
		var b strings.Builder
		if err := table.Write(t.Context(), &b, f); err != nil {
			t.Fatal(err)
		}
		out[f] = b.String()
	}
	for f, want := range map[string]string{
		"table":    "Model    Perplexity  % of first        95 % interval  Bits per byte\nbase     ",
		"markdown": "| Model | Perplexity | % of first | 95 % interval | Bits per byte |\n|---|---:|---:|---:|---:|\n| base |",
		"csv":      "model,perplexity,percent_of_first,low_95,high_95,tokens,documents,nll_sum,bits_per_byte,protocol\nbase,",
	} {
		if !strings.HasPrefix(out[f], want) {
			t.Errorf("%s begins\n%s\nexpected\n%s", f, out[f], want)
		}
	}
	if !strings.Contains(out["markdown"], `| tuned\|x |`) || !strings.Contains(out["table"], "exact protocol (window 1024, stride 512), 200 documents") {
		t.Errorf("markdown:\n%s\ntable:\n%s", out["markdown"], out["table"])
	}
	var rep report
	if err := json.Unmarshal([]byte(out["json"]), &rep); err != nil {
		t.Fatal(err)
	}
	a, b := rep.Rows[0], rep.Rows[1]
	if a.Percent != 100 || a.PercentRange != nil || b.PercentRange == nil || b.Percent >= 100 || b.PercentRange.Low > b.Percent || b.PercentRange.High < b.Percent {
		t.Errorf("rows %+v, %+v", a, b)
	}
	if want := a.NLL / math.Ln2 / float64(a.Bytes); a.BitsPerByte != want {
		t.Errorf("bits per byte %v, expected %v", a.BitsPerByte, want)
	}
	if err := (Table{Rows: []Row{{"a", result(1, 5)}, {"b", result(1, 6)}}}).Write(t.Context(), &strings.Builder{}, "table"); err == nil {
		t.Error("rows scored over 5 and 6 documents were put into one table")
	}
	if err := table.Write(t.Context(), &strings.Builder{}, "html"); err == nil || !strings.Contains(err.Error(), `format "html"`) {
		t.Errorf("format html: %v", err)
	}
}

// Of documents most of which are too short to be scored some resamples have no token: that is no number, and JSON has no such thing.
func TestDocumentsWithoutTokens(t *testing.T) {
	r := Result{Protocol: Exact, Window: 8, Stride: 4, ClustersKind: "documents", Documents: 3}
	for _, c := range []Cluster{{}, {NLL: 2, Tokens: 2, Bytes: 2}, {}} {
		r.add(c)
	}
	r.Perplexity = perplexity(Exact, r.Clusters, nil)
	var b strings.Builder
	if err := (Table{Rows: []Row{{"a", r}, {"b", r}}}).Write(t.Context(), &b, "json"); err != nil {
		t.Fatal(err)
	}
	ppl, ratios := mustBootstrap(t, r, r)
	if ppl[0] != (Interval{math.E, math.E}) || ratios[1] != (Interval{1, 1}) {
		t.Errorf("intervals %v, %v, expected those of the one document that was scored", ppl, ratios)
	}
}
