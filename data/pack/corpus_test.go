package pack

import (
	"context"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"autodev/data/fim"
	"autodev/data/source"
	"autodev/internal/sharedtest"
	"autodev/tokenizer"
)

// TestStreamOverParquet runs the whole pipeline on real shards with a real tokenizer: every token is a target once, and a
// restored stream with other workers goes on with the same windows.
func TestStreamOverParquet(t *testing.T) {
	tok, err := tokenizer.Load(sharedtest.Path(t, "tokenizers/santacoder"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	set, err := source.Open(ctx, source.Options{MaxDocuments: 600}, sharedtest.Path(t, "corpus/test/ruby"), sharedtest.Path(t, "corpus/test/rust"))
	if err != nil {
		t.Fatal(err)
	}
	const n = 512
	plain, err := NewStream(ctx, set, tok, Evaluation(n, fim.SentinelsOf(tok)))
	if err != nil {
		t.Fatal(err)
	}
	all(t, plain)
	tokens := int64(0)
	docs, err := NewStream(ctx, set, tok, Evaluation(n, fim.SentinelsOf(tok)))
	if err != nil {
		t.Fatal(err)
	}
	if err := docs.read(ctx, place{}, func(j *job) bool {
		tokens += int64(len(tok.Encode(j.doc.Content)))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	// A document of n tokens and end-of-text has n targets.
	if got := plain.Stats(); got.Scored != tokens || got.Documents != 600 {
		t.Errorf("%+v, want %d targets", got, tokens)
	}

	cfg := Config{FIM: fim.Default(), Sentinels: fim.SentinelsOf(tok), Pack: Options{Sequence: n}, Seed: 1, Shuffle: Shuffle{Documents: 100}, Workers: 2}
	a, err := NewStream(ctx, set, tok, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	some(t, a, 300)
	state, err := a.State()
	if err != nil {
		t.Fatal(err)
	}
	want := some(t, a, 1200) // well into the second epoch
	if a.Stats().Epoch < 1 {
		t.Errorf("%+v: no second epoch", a.Stats())
	}
	if p := a.Stats().PaddingFraction(n); p > .02 {
		t.Errorf("%.1f %% padding", 100*p)
	}
	for _, w := range want {
		checkWindow(t, w, n)
	}
	cfg.Workers = 1
	b, err := NewStream(ctx, set, tok, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Restore(state); err != nil {
		t.Fatal(err)
	}
	if got := some(t, b, len(want)); !reflect.DeepEqual(got, want) {
		t.Error("the restored stream gives other windows")
	}
	t.Logf("state of %d bytes, %+v, padding %.3f %%", len(state), a.Stats(), 100*a.Stats().PaddingFraction(n))
}

// FuzzPacker runs the packer's property on fuzzed examples.
func FuzzPacker(f *testing.F) { f.Fuzz(rapid.MakeFuzz(packerProperty)) }
