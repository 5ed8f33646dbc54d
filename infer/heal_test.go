package infer

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"autodev/infer/infertest"
	"autodev/internal/sharedtest"
	"autodev/tokenizer"
)

// TestTokenIndex compares with a look at every token.
func TestTokenIndex(t *testing.T) {
	tok := infertest.Tokenizer(t)
	var x tokenIndex
	x.fill(tok)
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOfN(rapid.RuneFrom([]rune("return +é日\n")), 1, 12, -1).Draw(t, "s")
		var want []int32
		longer := false
		for id := range int32(tok.VocabSize()) {
			b := string(tok.TokenBytes(id))
			if tok.IsSpecial(id) || b == "" {
				continue
			}
			longer = longer || len(b) > len(s) && strings.HasPrefix(b, s)
			// All bytes are tokens: whatever is left can be spelled.
			if strings.HasPrefix(b, s) || strings.HasPrefix(s, b) {
				want = append(want, id)
			}
		}
		if got := x.beginning(nil, s); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Fatalf("%q: %d tokens %v, expected %d: %v", s, len(got), got, len(want), want)
		}
		if x.longer(s) != longer {
			t.Fatalf("%q: a longer token: %v, expected %v", s, !longer, longer)
		}
	})
}

// TestTokenIndexSpells: a beginning behind which nothing can spell the rest is no choice.
func TestTokenIndexSpells(t *testing.T) {
	x := &tokenIndex{tokens: []indexed{{"a", 0}, {"ab", 1}, {"abcd", 2}, {"c", 3}, {"x", 4}}}
	for s, want := range map[string][]int32{
		"abc": {1, 2},    // "a" would need a token for "bc"
		"ac":  {0},       // "a", then "c"
		"a":   {0, 1, 2}, // with anything behind it
		"xab": {4},
		"z":   nil,
		"xb":  nil,
	} {
		if got := x.beginning(nil, s); !slices.Equal(got, want) {
			t.Errorf("%q: %v, expected %v", s, got, want)
		}
	}
}

// TestHealWord: a prefix that ends in "retu" is cut there in two tokens, which the model has hardly seen like that; healed, it is free to
// go on with the token for " return", and shows what that adds.
func TestHealWord(t *testing.T) {
	tok, err := tokenizer.Load(sharedtest.Path(t, "tokenizers/santacoder"))
	if err != nil {
		t.Fatal(err)
	}
	word, ok := tok.ID("Ġreturn")
	if !ok {
		t.Fatal("the vocabulary has no token for return")
	}
	c := infertest.Config(tok.VocabSize())
	c.Embed, c.Layers, c.Inner, c.Heads = 8, 1, 8, 1
	m := newModel(t, infertest.Checkpoint(c), tok, 1)
	for _, order := range []Order{PSM, SPM} {
		for _, suffix := range []string{"", "\n\nprint(f())\n"} {
			p := Prompt{Prefix: "def f(a):\n    retu", Suffix: suffix, Order: order}
			plain, err := m.prepare(Request{Prompt: p, MaxTokens: 5})
			if err != nil {
				t.Fatal(err)
			}
			p.Heal = true
			healed, err := m.prepare(Request{Prompt: p, MaxTokens: 5})
			if err != nil {
				t.Fatal(err)
			}
			if healed.prompt.heal != " retu" || len(plain.prompt.ids)-len(healed.prompt.ids) != healed.prompt.maxNew-5 {
				t.Errorf("left out %q: %d tokens of %d, %d new ones", healed.prompt.heal, len(healed.prompt.ids), len(plain.prompt.ids), healed.prompt.maxNew)
			}
			// All of the rest is in its place.
			at := healed.prompt.cursor
			n := len(plain.prompt.ids) - len(healed.prompt.ids)
			if !slices.Equal(slices.Concat(healed.prompt.ids[:at], plain.prompt.ids[at:at+n], healed.prompt.ids[at:]), plain.prompt.ids) {
				t.Errorf("the prompt %v became %v", plain.prompt.ids, healed.prompt.ids)
			}
			// The model wants "return".
			res, err := m.Generate(t.Context(), Request{Prompt: p, MaxTokens: 5, Logprobs: true, Sampling: Sampling{Bias: map[int32]float64{word: 100}, FrequencyPenalty: 2, PresencePenalty: 2}}, nil)
			if err != nil || res.IDs[0] != word || !strings.HasPrefix(res.Text, "rn") || res.Tokens[0].Start != 0 || string(res.Tokens[0].Bytes) != "rn" {
				t.Errorf("%q of %v (%v)", res.Text, res.IDs, err)
			}
			if res.Healed != 0 || len(res.IDs) != 5 {
				t.Errorf("%d of %d tokens only spell the prompt again, expected 0 of 5", res.Healed, len(res.IDs))
			}
		}
	}
}

// TestHealProperties: whatever the prefix, and however tokens are drawn, a healed completion begins exactly at the cursor: what the model has
// read before the cursor and its tokens spell the prefix and the text. Where it spells what was left out as it stood, all is as
// without healing.
func TestHealProperties(t *testing.T) {
	m := textModel(t, nil, 1)
	same, kept := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := Prompt{
			Prefix: rapid.StringOfN(rapid.RuneFrom([]rune("return if  add(é日\n:")), 0, 20, -1).Draw(t, "prefix"),
			Suffix: rapid.SampledFrom([]string{"", "\n", "return b"}).Draw(t, "suffix"), Order: rapid.SampledFrom([]Order{PSM, SPM}).Draw(t, "order"),
		}
		r := Request{Prompt: p, MaxTokens: rapid.IntRange(1, 8).Draw(t, "max"), Logprobs: true}
		r.Sampling.Temperature = rapid.SampledFrom([]float64{0, 1}).Draw(t, "temperature")
		plain, err := m.prepare(r)
		if err != nil {
			t.Fatal(err)
		}
		r.Prompt.Heal = true
		j, err := m.prepare(r)
		if err != nil {
			t.Fatal(err)
		}
		var streamed strings.Builder
		res, err := m.Generate(t.Context(), r, func(c Chunk) error {
			streamed.WriteString(c.Text)
			if !utf8.ValidString(c.Text) {
				t.Fatalf("chunk %q", c.Text)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		spelled := string(m.tok.DecodeBytes(res.IDs))
		if !strings.HasPrefix(spelled, j.prompt.heal) && res.FinishReason != FinishLength {
			t.Fatalf("spelled %q, expected %q first", spelled, j.prompt.heal)
		}
		if len(spelled) >= len(j.prompt.heal) {
			if want := strings.ToValidUTF8(spelled[len(j.prompt.heal):], "\ufffd"); utf8.ValidString(spelled) && res.Text != want || streamed.String() != res.Text {
				t.Fatalf("text %q and %q, expected %q", res.Text, streamed.String(), want)
			}
		} else if res.Text != "" {
			t.Fatalf("text %q before %q is spelled", res.Text, j.prompt.heal)
		}
		if len(res.IDs)-res.Healed > r.MaxTokens {
			t.Fatalf("%d tokens behind the cursor, expected at most %d", len(res.IDs)-res.Healed, r.MaxTokens)
		}
		var bytes []byte
		for _, tk := range res.Tokens {
			bytes = append(bytes, tk.Bytes...)
		}
		if utf8.Valid(bytes) && string(bytes) != res.Text {
			t.Fatalf("tokens spell %q, expected %q", bytes, res.Text)
		}
		dropped := plain.prompt.ids[j.prompt.cursor:][:len(plain.prompt.ids)-len(j.prompt.ids)]
		if len(dropped) == 0 {
			return
		}
		kept++
		if r.Sampling.Temperature == 0 && len(res.IDs) > len(dropped) && slices.Equal(res.IDs[:len(dropped)], dropped) && p.Order == SPM {
			same++
			r.Prompt.Heal = false
			want, err := m.Generate(t.Context(), r, nil)
			if err != nil || want.Text != res.Text || !slices.Equal(want.IDs, res.IDs[len(dropped):]) {
				t.Fatalf("%q of %v, unhealed %q of %v (%v)", res.Text, res.IDs, want.Text, want.IDs, err)
			}
		}
	})
	t.Logf("%d prompts were healed, %d as they stood", kept, same)
	if kept < 30 || same == 0 {
		t.Errorf("%d prompts were healed, %d as they stood", kept, same)
	}
}
