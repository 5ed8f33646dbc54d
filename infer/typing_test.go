package infer

import (
	"os"
	"slices"
	"strings"
	"testing"

	"autodev/infer/infertest"
	"autodev/internal/sharedtest"
	"autodev/tokenizer"
)

// typing is an editor that asks for a completion after every character.
type typing struct {
	t         *testing.T
	e         *Engine
	order     Order
	window    int   // bytes before the cursor that the editor sends; 0: all
	evaluated []int // tokens, by keystroke
	shortened int
}

// key sends one request.
func (y *typing) key(before, after string) {
	y.t.Helper()
	if y.window > 0 {
		before = before[max(0, len(before)-y.window):]
	}
	r := Request{Prompt: Prompt{Prefix: before, Suffix: after, Order: y.order}, MaxTokens: 4}
	res := completed(y.t, y.e, r)
	y.evaluated = append(y.evaluated, len(res.PromptIDs)-res.Cached)
	if res.Shortened {
		y.shortened++
	}
	if len(y.evaluated)%40 == 1 {
		want, err := y.e.m.Generate(y.t.Context(), r, nil)
		if err != nil || !sameCompletion(res, want) {
			y.t.Errorf("keystroke %d: %q, a cold run gives %q (%v)", len(y.evaluated), res.Text, want.Text, err)
		}
	}
}

// TestTyping: in suffix-first order a keystroke costs the tokens that it changed, however long the file is, and only now and then,
// where a long file has to be cut at another place, the whole prompt. In prefix-first order each costs the suffix.
func TestTyping(t *testing.T) {
	tok, err := tokenizer.Load(sharedtest.Path(t, "tokenizers/santacoder"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("generate.go")
	if err != nil {
		t.Fatal(err)
	}
	text := string(source)
	const keys = 400
	cursor := strings.Index(text, "\n// Generate completes") + 1
	for _, c := range []struct {
		name      string
		order     Order
		context   int
		window    int
		shortened bool
		median    int
		most      int // of 19 keystrokes in 20
		reread    int // keystrokes that cost more than 32 tokens
	}{
		{"whole file", OrderAuto, 8000, 0, false, 2, 6, 1},
		{"file cut to fit", OrderAuto, 1000, 0, true, 2, 6, 8},
		{"file cut to fit, the editor sends a window", OrderAuto, 1000, 5000, true, 2, 6, 10},
		{"prefix first", PSM, 1000, 0, true, 300, 1000, keys},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := infertest.Config(tok.VocabSize())
			config.Positions, config.Embed, config.Layers, config.Inner, config.Heads = c.context, 8, 1, 8, 1
			e := NewEngine(newModel(t, infertest.Checkpoint(config), tok, 0), EngineOptions{})
			y := &typing{t: t, e: e, order: c.order, window: c.window}
			for i := range keys {
				y.key(text[:cursor+i], text[cursor+keys:])
			}
			sorted := slices.Sorted(slices.Values(y.evaluated))
			reread := 0
			for _, n := range sorted {
				if n > 32 {
					reread++
				}
			}
			t.Logf("first %d, median %d, 95 %% within %d, %d of %d keystrokes above 32, on average %.1f; %d prompts cut", y.evaluated[0], sorted[keys/2], sorted[keys*19/20], reread, keys, mean(sorted), y.shortened)
			if (y.shortened > 0) != c.shortened {
				t.Fatalf("%d prompts were cut", y.shortened)
			}
			if c.order == PSM {
				if sorted[1] < 100 {
					t.Errorf("keystroke of %d tokens, expected at least the suffix", sorted[1])
				}
				return
			}
			if sorted[keys/2] > c.median || sorted[keys*19/20] > c.most || reread > c.reread {
				t.Errorf("expected a median of at most %d, 95 %% within %d and %d above 32", c.median, c.most, c.reread)
			}
		})
	}
}

func mean(x []int) float64 {
	sum := 0
	for _, v := range x {
		sum += v
	}
	return float64(sum) / float64(len(x))
}

// TestTypingFive: five tokens typed since the last request cost five tokens and a small constant.
func TestTypingFive(t *testing.T) {
	tok := infertest.Tokenizer(t)
	e := NewEngine(newModel(t, infertest.Checkpoint(infertest.Config(tok.VocabSize())), tok, 1), EngineOptions{})
	text := strings.Repeat("def add(a, b):\n    return a + b\n", 8)
	y := &typing{t: t, e: e, order: SPM}
	for _, typed := range []string{"", "for i in range(10):", "for i in range(10):\n    print(i)"} {
		y.key(text+typed, "\n"+text)
	}
	before := len(tok.Encode(text))
	for i, typed := range []string{"for i in range(10):", "for i in range(10):\n    print(i)"} {
		n := len(tok.Encode(text+typed)) - before
		if y.evaluated[i+1] > n+3 {
			t.Errorf("%d tokens typed: %d evaluated", n, y.evaluated[i+1])
		}
		before += n
	}
}
