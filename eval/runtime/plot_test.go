package runtime

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeReport is a benchmark of made-up figures like those of a 1.1-billion-parameter model.
func fakeReport(t *testing.T, weights []string, modes []Mode, threads []int) *Report {
	t.Helper()
	bytes := map[string]float64{"float32": 4.6e9, "bf16": 2.3e9, "int8": 1.25e9, "int4": 0.8e9}
	b := Benchmark{
		Model: "a model", Variants: Variants(weights, []string{"float32"}, modes, threads), PromptTokens: 256, NewTokens: 4, Repeat: 3,
		Measure: func(_ context.Context, s Spec) (Sample, error) {
			prefill := float64(s.Threads) * 5e11 / bytes[s.Weights]
			decode := float64(s.Threads) * 20e9 / bytes[s.Weights]
			x := Sample{
				Load: bytes[s.Weights] / 2e9, Prefill: prefill, FirstToken: 256 / prefill, Decode: decode,
				PeakMemory: int64(1.1 * bytes[s.Weights]), Resident: int64(bytes[s.Weights]), KVPerToken: 49152, IDs: []int32{5, 6, 7, 8},
				Calibration: Calibration{Threads: s.Threads, Read: 20 * float64(s.Threads), FMA: 110 * float64(s.Threads)},
			}
			switch s.Mode {
			case Uncached:
				x.Decode = prefill / 256
			case Speculative:
				x.Decode *= 1.8
			}
			x.Request = x.FirstToken + 32/x.Decode
			return x, nil
		},
	}
	r, err := b.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// svgTexts returns the texts of an SVG document, which must be well-formed.
func svgTexts(t *testing.T, document []byte) string {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(document))
	var texts []string
	inText := false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return strings.Join(texts, "\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		switch x := token.(type) {
		case xml.StartElement:
			inText = x.Name.Local == "text"
		case xml.EndElement:
			inText = false
		case xml.CharData:
			if inText {
				texts = append(texts, string(x))
			}
		}
	}
}

func TestFigures(t *testing.T) {
	all := fakeReport(t, []string{"float32", "bf16", "int8", "int4"}, Modes(), []int{1, 2})
	want := map[string][]string{
		"latency": {"Time of a completion request", "a model; 256 prompt and 4 new tokens, never fewer", "seconds", "float32", "bf16", "int8", "int4",
			"no cache, 1 thread", "no cache, 2 threads", "cache, 1 thread", "cache + speculation, 2 threads", "With a cache of keys and values"},
		"memory": {"Peak memory against decoding speed", "decoded tokens a second", "peak memory of the process, GB", "float32", "bf16", "int8", "int4",
			"cache, 1 thread", "cache + speculation, 2 threads", "multiply-add 220 GFLOP/s"},
	}
	for _, f := range all.Figures() {
		var svg, picture bytes.Buffer
		if err := f.WriteSVG(&svg); err != nil {
			t.Fatal(err)
		}
		texts := svgTexts(t, svg.Bytes())
		for _, w := range want[f.Name] {
			if !strings.Contains(texts, w) {
				t.Errorf("%s: no %q in\n%s", f.Name, w, texts)
			}
		}
		if err := f.WritePNG(&picture); err != nil {
			t.Fatal(err)
		}
		if dir := os.Getenv("AUTODEV_FIGURES"); dir != "" {
			if err := os.WriteFile(filepath.Join(dir, f.Name+".png"), picture.Bytes(), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		img, err := png.Decode(&picture)
		if err != nil {
			t.Fatal(err)
		}
		if size := img.Bounds().Size(); size.X != 1920 || size.Y < 900 {
			t.Errorf("%s: %v pixels", f.Name, size)
		}
	}
}

// One bar, one point: no division by their number, no empty panel.
func TestFiguresOfOneVariant(t *testing.T) {
	for _, m := range Modes() {
		for _, f := range fakeReport(t, []string{"int8"}, []Mode{m}, []int{1}).Figures() {
			var svg bytes.Buffer
			if err := f.WriteSVG(&svg); err != nil {
				t.Fatal(err)
			}
			texts := svgTexts(t, svg.Bytes())
			if !strings.Contains(texts, "int8") || strings.Contains(texts, "NaN") || strings.Contains(svg.String(), "NaN") {
				t.Errorf("%s of %s alone:\n%s", f.Name, m, texts)
			}
		}
	}
}
