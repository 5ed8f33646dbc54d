package infer

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"autodev/infer/infertest"
	"autodev/tokenizer"
)

func TestPromptTemplates(t *testing.T) {
	tok := infertest.Tokenizer(t)
	fim, _ := tok.FIM()
	end, _ := tok.EOS()
	p, s := tok.Encode("def f(a):\n"), tok.Encode("\n    return a\n")
	for _, c := range []struct {
		name   string
		prompt Prompt
		want   []int32
	}{
		{"left to right", Prompt{Prefix: "def f(a):\n"}, p},
		{"auto", Prompt{Prefix: "def f(a):\n", Suffix: "\n    return a\n"}, join([]int32{fim.Prefix, fim.Suffix}, s, []int32{fim.Middle}, p)},
		{"psm", Prompt{Prefix: "def f(a):\n", Suffix: "\n    return a\n", Order: PSM}, join([]int32{fim.Prefix}, p, []int32{fim.Suffix}, s, []int32{fim.Middle})},
		{"spm", Prompt{Prefix: "def f(a):\n", Suffix: "\n    return a\n", Order: SPM}, join([]int32{fim.Prefix, fim.Suffix}, s, []int32{fim.Middle}, p)},
		{"fim without suffix", Prompt{Prefix: "def f(a):\n", FIM: FIMAlways, Order: PSM}, join([]int32{fim.Prefix}, p, []int32{fim.Suffix, fim.Middle})},
		{"suffix alone", Prompt{Suffix: "\n    return a\n"}, join([]int32{fim.Prefix, fim.Suffix}, s, []int32{fim.Middle})},
		{"empty", Prompt{}, []int32{end}},
		{"ids", Prompt{IDs: []int32{7, 8}}, []int32{7, 8}},
		{"control tokens of the user are text", Prompt{Prefix: "<fim_middle>"}, tok.Encode("<fim_middle>")},
	} {
		got, err := c.prompt.budget(tok, tok.VocabSize(), 200, 20)
		if err != nil || !slices.Equal(got.ids, c.want) || got.maxNew != 20 || got.shortened {
			t.Errorf("%s: %v, %v; expected %v", c.name, got, err, c.want)
		}
	}
	if ids := tok.Encode("<fim_middle>"); slices.Contains(ids, fim.Middle) {
		t.Errorf("a control token spelled by a user became one: %v", ids)
	}
}

func TestPromptErrors(t *testing.T) {
	tok := infertest.Tokenizer(t)
	long := strings.Repeat("x = 1\n", 200)
	n := len(tok.Encode(long))
	for _, c := range []struct {
		name   string
		prompt Prompt
		maxNew int
		want   string
	}{
		{"ids too long", Prompt{IDs: make([]int32, 65)}, 16, "prompt: found 65 tokens, expected at most 63: the model's context is 64 and at least 1 is left for the completion"},
		{"ids too long to score", Prompt{IDs: make([]int32, 65)}, 0, "prompt: found 65 tokens, expected at most 64: the model's context is 64 and at least 0 is left for the completion"},
		{"id out of range", Prompt{IDs: []int32{1, int32(tok.VocabSize())}}, 16, "prompt: token 1: found id 322, expected 0 to 321"},
		{"negative id", Prompt{IDs: []int32{-1}}, 16, "prompt: token 0: found id -1, expected 0 to 321"},
		{"no ids", Prompt{IDs: []int32{}}, 16, "prompt: found no token ids, expected at least one"},
		{"ids and text", Prompt{IDs: []int32{1}, Prefix: "x"}, 16, "prompt: found token ids and text, expected one of them"},
		{"suffix without FIM", Prompt{Prefix: "a", Suffix: "b", FIM: FIMNever}, 16, "suffix: found a suffix, expected none: fill-in-the-middle is switched off"},
		{"negative max_tokens", Prompt{Prefix: "a"}, -1, "max_tokens: found -1, expected 0 or more"},
	} {
		if _, err := c.prompt.budget(tok, tok.VocabSize(), 64, c.maxNew); errorText(err) != c.want {
			t.Errorf("%s: %v, expected %s", c.name, err, c.want)
		}
	}
	_, err := Prompt{Prefix: long, Whole: true}.budget(tok, tok.VocabSize(), 64, 16)
	var tooLong *PromptTooLongError
	if !errors.As(err, &tooLong) || *tooLong != (PromptTooLongError{n, 1, 64}) {
		t.Errorf("long text that must stay whole: %v, expected %d tokens", err, n)
	}
	if _, err := (Prompt{Prefix: "x"}).budget(nil, 100, 64, 16); err == nil {
		t.Error("text without a tokenizer: expected an error")
	}
}

// TestPromptKeepsCursor: what is left of a long prompt is the text next to the cursor, at line boundaries, three quarters of
// it before the cursor.
func TestPromptKeepsCursor(t *testing.T) {
	tok := infertest.Tokenizer(t)
	fim, _ := tok.FIM()
	var prefix, suffix strings.Builder
	for i := range 400 {
		prefix.WriteString("before = " + strings.Repeat("a", i%7) + "\n")
		suffix.WriteString("after = " + strings.Repeat("b", i%7) + "\n")
	}
	const context, maxNew = 300, 40
	got, err := Prompt{Prefix: prefix.String(), Suffix: suffix.String(), Order: PSM}.budget(tok, tok.VocabSize(), context, maxNew)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.Index(got.ids, fim.Suffix)
	p, s := tok.Decode(got.ids[1:at]), tok.Decode(got.ids[at+1:len(got.ids)-1])
	if !got.shortened || got.maxNew != maxNew {
		t.Errorf("shortened %v, %d new tokens", got.shortened, got.maxNew)
	}
	if !strings.HasSuffix(prefix.String(), "\n"+p) || !strings.HasPrefix(suffix.String(), s) || !strings.HasSuffix(s, "\n") {
		t.Errorf("prefix %q and suffix %q are not the lines at the cursor", p, s)
	}
	np, ns := at-1, len(got.ids)-at-2
	if total := context - maxNew - 3; np+ns > total || np+ns < total*8/10 || ns > total/4 || ns < total/4*7/10 {
		t.Errorf("%d and %d tokens of %d, expected nearly all, a quarter of them of the suffix", np, ns, total)
	}
	// A short side leaves its share to the other.
	got, err = Prompt{Prefix: prefix.String(), Suffix: "end\n"}.budget(tok, tok.VocabSize(), context, maxNew)
	if err != nil || len(got.ids) < (context-maxNew)*8/10 {
		t.Errorf("short suffix: %d tokens (%v), expected nearly %d", len(got.ids), err, context-maxNew)
	}
	got, err = Prompt{Prefix: "def", Suffix: suffix.String()}.budget(tok, tok.VocabSize(), context, maxNew)
	if err != nil || len(got.ids) < (context-maxNew)*8/10 {
		t.Errorf("short prefix: %d tokens (%v), expected nearly %d", len(got.ids), err, context-maxNew)
	}
}

// TestPromptBudget: for any text, context and number of new tokens the prompt fits, its template is complete, and its parts are
// the text at the cursor.
func TestPromptBudget(t *testing.T) {
	tok := infertest.Tokenizer(t)
	fim, _ := tok.FIM()
	text := rapid.OneOf(
		rapid.StringOfN(rapid.RuneFrom([]rune("ab \n\té日x=")), 0, 400, -1),
		rapid.Custom(func(t *rapid.T) string {
			return strings.Repeat(rapid.SampledFrom([]string{"x = 1\n", "   ", "日本", "return ", "\n", "\xff"}).Draw(t, "unit"), rapid.IntRange(0, 900).Draw(t, "times"))
		}),
	)
	rapid.Check(t, func(t *rapid.T) {
		p := Prompt{
			Prefix: text.Draw(t, "prefix"), Suffix: text.Draw(t, "suffix"),
			Order: rapid.SampledFrom([]Order{PSM, SPM}).Draw(t, "order"), FIM: rapid.SampledFrom([]FIM{FIMAuto, FIMAlways}).Draw(t, "fim"),
		}
		context := rapid.IntRange(4, 200).Draw(t, "context")
		maxNew := rapid.IntRange(0, 300).Draw(t, "max new")
		got, err := p.budget(tok, tok.VocabSize(), context, maxNew)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.ids) == 0 || got.maxNew < 0 || got.maxNew > maxNew || len(got.ids)+got.maxNew > context {
			t.Fatalf("%d tokens and %d new ones in a context of %d", len(got.ids), got.maxNew, context)
		}
		whole := len(tok.Encode(p.Prefix)) + len(tok.Encode(p.Suffix)) + 3
		if whole+maxNew <= context && (got.shortened || got.maxNew != maxNew) {
			t.Fatalf("cut although it fits: %d tokens and %d new ones in a context of %d", whole, maxNew, context)
		}
		if maxNew >= 2 && context >= 8 && got.maxNew == 0 {
			t.Fatal("no room left for the completion")
		}
		var prefix, suffix []int32
		use := p.FIM == FIMAlways || p.Suffix != ""
		switch {
		case !use:
			prefix = got.ids
		case p.Order == PSM:
			at := slices.Index(got.ids, fim.Suffix)
			if got.ids[0] != fim.Prefix || at < 1 || got.ids[len(got.ids)-1] != fim.Middle {
				t.Fatalf("template of %v", got.ids)
			}
			prefix, suffix = got.ids[1:at], got.ids[at+1:len(got.ids)-1]
		default:
			at := slices.Index(got.ids, fim.Middle)
			if got.ids[0] != fim.Prefix || got.ids[1] != fim.Suffix || at < 2 {
				t.Fatalf("template of %v", got.ids)
			}
			suffix, prefix = got.ids[2:at], got.ids[at+1:]
		}
		for _, side := range [][]int32{prefix, suffix} {
			if slices.ContainsFunc(side, tok.IsSpecial) && !(len(side) == 1 && !use) {
				t.Fatalf("control token in a side: %v", side)
			}
		}
		keptPrefix, keptSuffix := string(tok.DecodeBytes(prefix)), string(tok.DecodeBytes(suffix))
		if !use && len(prefix) == 1 && tok.IsSpecial(prefix[0]) {
			keptPrefix = ""
		}
		if !strings.HasSuffix(p.Prefix, keptPrefix) || !strings.HasPrefix(p.Suffix, keptSuffix) {
			t.Fatalf("kept %q and %q, not the text at the cursor", keptPrefix, keptSuffix)
		}
		if utf8.ValidString(p.Prefix) && !utf8.ValidString(keptPrefix) || utf8.ValidString(p.Suffix) && !utf8.ValidString(keptSuffix) {
			t.Fatalf("kept %q and %q: half a character", keptPrefix, keptSuffix)
		}
		if got.shortened != (len(keptPrefix) < len(p.Prefix) || len(keptSuffix) < len(p.Suffix)) {
			t.Fatalf("shortened is %v", got.shortened)
		}
		p.Whole = true
		exact, err := p.budget(tok, tok.VocabSize(), context, maxNew)
		if got.shortened && err == nil && exact.shortened || !got.shortened && (err != nil || !slices.Equal(exact.ids, got.ids)) {
			t.Fatalf("as a whole: %v, %v", exact, err)
		}
	})
}

// TestOrderAuto: suffix first for the families that were trained with it, in both spellings, and no other.
func TestOrderAuto(t *testing.T) {
	for names, want := range map[[3]string]bool{
		{"<fim-prefix>", "<fim-middle>", "<fim-suffix>"}:       true,
		{"<fim_prefix>", "<fim_middle>", "<fim_suffix>"}:       true,
		{"<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"}: false,
		{"<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜fim▁hole｜>"}:       false,
		{"[PREFIX]", "[MIDDLE]", "[SUFFIX]"}:                   false,
	} {
		c := tokenizer.TrainConfig{VocabSize: 300, Specials: append([]string{"<|endoftext|>"}, names[:]...), MinFrequency: 1}
		tok, err := tokenizer.Train(t.Context(), c, func(yield func(string, error) bool) { yield("x = y", nil) })
		if err != nil {
			t.Fatal(err)
		}
		fim, ok := tok.FIM()
		got, err := Prompt{Prefix: "x", Suffix: "y"}.budget(tok, tok.VocabSize(), 50, 5)
		if err != nil || !ok || (got.ids[1] == fim.Suffix) != want {
			t.Errorf("%v: %v (%v), expected suffix first: %v", names, got.ids, err, want)
		}
	}
}

// TestAnchor: the place of a cut stays while text is appended or goes missing before it, moves on when it has to, and costs at
// most a sixth of the text.
func TestAnchor(t *testing.T) {
	source, err := os.ReadFile("prompt.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"lines": string(source), "one line": strings.ReplaceAll(string(source), "\n", " é ")} {
		moves, last := 0, -1
		const kept = 3000
		for end := 4000; end < 7000; end++ {
			from := end - kept
			at := anchor(text[:end], from)
			if at < from || at > from+kept/6 || !utf8.RuneStart(text[at]) || name == "lines" && text[at-1] != '\n' {
				t.Fatalf("%s: cut at %d of %d, not before %d", name, at, end, from)
			}
			// A client that sends only the last bytes.
			if got := 500 + anchor(text[500:end], from-500); got != at {
				t.Fatalf("%s: cut at %d in a shorter text, %d in the whole", name, got, at)
			}
			if at != last {
				moves, last = moves+1, at
			}
		}
		t.Logf("%s: %d places in 3000 keystrokes", name, moves)
		if moves > 30 {
			t.Errorf("%s: %d places in 3000 keystrokes", name, moves)
		}
	}
}
