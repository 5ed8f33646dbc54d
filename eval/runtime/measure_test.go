package runtime

import (
	"context"
	"fmt"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"autodev/infer"
	"autodev/infer/infertest"
)

// childEnv makes TestChild the measuring process.
const childEnv = "AUTODEV_RUNTIME_TEST_CHILD"

// child measures in a process of its own.
var child = Process([]string{os.Args[0], "-test.run=^TestChild$"}, childEnv+"=1")

func TestChild(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		t.Skip("runs as the process of another test")
	}
	// A random model: "tiny" with a tokenizer, "ids" without.
	open := func(_ context.Context, s Spec) (Opened, error) {
		tok := infertest.Tokenizer(t)
		c := infertest.Config(tok.VocabSize())
		c.Tied = false // a head of its own: a random tied one repeats the last token
		if s.Model == "ids" {
			tok = nil
		}
		m, err := infer.New(infertest.Checkpoint(c), tok, infer.Options{Threads: s.Threads})
		return Opened{Model: m, Tokenizer: tok, Config: c, KVPerToken: c.KVBytesPerToken(4)}, err
	}
	if err := Child(t.Context(), os.Stdin, os.Stdout, open); err != nil {
		fmt.Fprint(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0) // nothing of the test framework follows on standard output
}

// The whole way: processes, real models, all modes. Outputs must be equal and every figure must be there.
func TestBenchmarkOfRealModels(t *testing.T) {
	for name, variants := range map[string][]Variant{
		"tiny": Variants([]string{"float32"}, []string{"float32"}, Modes(), []int{1, 2}), "ids": Variants([]string{"float32"}, []string{"float32"}, Modes(), []int{2}),
	} {
		b := Benchmark{
			Model: name, Variants: variants, PromptTokens: 150, NewTokens: 24, Repeat: 1,
			Measure: child,
		}
		r, err := b.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Err(); err != nil {
			t.Error(err)
		}
		for _, row := range r.Rows {
			for what, s := range map[string]Spread{"load": row.Load, "first use": row.FirstUse, "first token": row.FirstToken, "prefill": row.Prefill,
				"decode": row.Decode, "request": row.Request, "read": row.Read, "fma": row.FMA} {
				if !(s.Min > 0) {
					t.Errorf("%s, %s: %s %+v", name, row.Variant, what, s)
				}
			}
			if row.FirstUse.Min < row.Load.Min || row.Request.Min < row.FirstToken.Min {
				t.Errorf("%s, %s: parts longer than the whole: %+v", name, row.Variant, row)
			}
			if goruntime.GOOS == "linux" && (row.Resident.Min < 1e6 || row.Peak.Min < row.Resident.Min || row.Peak.Max > 1e9) {
				t.Errorf("%s, %s: peak memory %+v, resident %+v", name, row.Variant, row.Peak, row.Resident)
			}
			if kv := int64(3 * 2 * 12 * 4); row.Mode != Uncached && row.KVPerToken != kv || row.Mode == Uncached && row.KVPerToken != 0 {
				t.Errorf("%s, %s: %d bytes of keys and values a token", name, row.Variant, row.KVPerToken)
			}
			if len(row.IDs) != 24 {
				t.Errorf("%s, %s: tokens %v", name, row.Variant, row.IDs)
			}
		}
		if !slices.ContainsFunc(r.Rows[0].IDs, func(id int32) bool { return id != r.Rows[0].IDs[0] }) {
			t.Errorf("%s: all tokens are %d, which compares nothing", name, r.Rows[0].IDs[0])
		}
	}
}

func TestMeasureRefuses(t *testing.T) {
	good := Spec{Variant: Variant{"float32", "float32", Cached, 1}, Model: "tiny", PromptTokens: 10, NewTokens: 2}
	for want, change := range map[string]func(*Spec){
		"expected at least 1 and 2":                   func(s *Spec) { s.NewTokens = 1 },
		"expected at most the model's context of 600": func(s *Spec) { s.PromptTokens = 599 },
		"the prompt's text has 1 tokens, expected at": func(s *Spec) { s.Prompt = "a" },
	} {
		s := good
		change(&s)
		if _, err := child(t.Context(), s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %q", err, want)
		}
	}
	if _, err := Process([]string{os.Args[0], "-test.run=^$"})(t.Context(), good); err == nil || !strings.Contains(err.Error(), "answered") {
		t.Errorf("a process that does not measure: %v", err)
	}
}
