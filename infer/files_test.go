package infer

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"autodev/infer/infertest"
	"autodev/internal/sharedtest"
	"autodev/tokenizer"
)

// TestFileFormats: the other files, and the names, as the models have seen them; control tokens only where they are meant.
func TestFileFormats(t *testing.T) {
	p := Prompt{
		Prefix: "import a\n", Suffix: "\nrun()\n", Filename: "src/main.py", Repository: "demo",
		Files: []File{{"a.py", "def f():\n    pass\n"}, {"b.py", "<file_sep>\r\n\r\nx = 1"}},
	}
	for _, c := range []struct {
		vocabulary string
		order      Order
		want       string
	}{
		{"starcoder", PSM, "<reponame>demo<filename>b.py\n<file_sep>\n\nx = 1<filename>a.py\ndef f():\n    pass<filename>src/main.py\n<fim_prefix>import a\n<fim_suffix>\nrun()\n<fim_middle>"},
		{"starcoder2", PSM, "<repo_name>demo<file_sep>b.py\n‹<file_sep>›\n\nx = 1<file_sep>a.py\ndef f():\n    pass<file_sep><fim_prefix>src/main.py\nimport a\n<fim_suffix>\nrun()\n<fim_middle>"},
		{"starcoder2", SPM, "<repo_name>demo<file_sep>b.py\n‹<file_sep>›\n\nx = 1<file_sep>a.py\ndef f():\n    pass<file_sep><fim_prefix><fim_suffix>\nrun()\n<fim_middle>src/main.py\nimport a\n"},
		{"qwen3", PSM, "<|repo_name|>demo\n<|file_sep|>b.py\n<file_sep>\n\nx = 1\n<|file_sep|>a.py\ndef f():\n    pass\n<|file_sep|>src/main.py\n<|fim_prefix|>import a\n<|fim_suffix|>\nrun()\n<|fim_middle|>"},
		{"santacoder", PSM, "<fim-prefix># Path: b.py\n# <file_sep>\n#\n# x = 1\n\n# Path: a.py\n# def f():\n#     pass\n\n# Path: src/main.py\nimport a\n<fim-suffix>\nrun()\n<fim-middle>"},
		{"santacoder", SPM, "<fim-prefix><fim-suffix>\nrun()\n<fim-middle># Path: b.py\n# <file_sep>\n#\n# x = 1\n\n# Path: a.py\n# def f():\n#     pass\n\n# Path: src/main.py\nimport a\n"},
	} {
		tok, err := tokenizer.Load(sharedtest.Path(t, "tokenizers/"+c.vocabulary))
		if err != nil {
			t.Fatal(err)
		}
		p.Order = c.order
		got, err := p.budget(tok, tok.VocabSize(), 8000, 100)
		if err != nil {
			t.Fatal(err)
		}
		if text := tok.Decode(got.ids); text != strings.NewReplacer("‹", "", "›", "").Replace(c.want) {
			t.Errorf("%s: %q\nexpected %q", c.vocabulary, text, c.want)
		}
		// What the user wrote is text, whatever it spells.
		if sep, ok := tok.ID("<file_sep>"); ok {
			n := 0
			for _, id := range got.ids {
				if id == sep {
					n++
				}
			}
			if n != 3 {
				t.Errorf("%s: %d separators, expected 3", c.vocabulary, n)
			}
		}
		if end := got.ids[:got.cursor]; !strings.HasSuffix(tok.Decode(end), "import a\n") || got.prefix != len(tok.Encode("import a\n")) {
			t.Errorf("%s: the cursor is behind %q, %d tokens of prefix", c.vocabulary, tok.Decode(end), got.prefix)
		}
	}
}

func TestFileComments(t *testing.T) {
	for file, want := range map[string]string{
		"a.go": "// Path: b\n// x\n\n", "a.lua": "-- Path: b\n-- x\n\n", "a.css": "/* Path: b */\n/* x */\n\n", "a.html": "<!-- Path: b -->\n<!-- x -->\n\n", "a": "# Path: b\n# x\n\n",
	} {
		if got := (fileFormat{lang: languageOf(file)}).render("b", "x"); got != want {
			t.Errorf("%s: %q, expected %q", file, got, want)
		}
	}
}

// TestFilesBudget: other files take nothing from the text at the cursor or from the completion, at most half of the context, and the least
// relevant goes first.
func TestFilesBudget(t *testing.T) {
	tok := infertest.Tokenizer(t)
	sep, _ := tok.ID("<file_sep>")
	rapid.Check(t, func(t *rapid.T) {
		p := Prompt{
			Prefix: strings.Repeat("x = 1\n", rapid.IntRange(0, 60).Draw(t, "prefix")), Suffix: strings.Repeat("y = 2\n", rapid.IntRange(0, 40).Draw(t, "suffix")),
			Order: rapid.SampledFrom([]Order{PSM, SPM}).Draw(t, "order"), Filename: "a.py", Heal: rapid.Bool().Draw(t, "heal"),
		}
		if p.Prefix == "" && p.Suffix == "" {
			return
		}
		context, maxNew := rapid.IntRange(40, 600).Draw(t, "context"), rapid.IntRange(1, 50).Draw(t, "new")
		p.Filename = ""
		without, err := p.budget(tok, tok.VocabSize(), context, maxNew)
		if err != nil {
			t.Fatal(err)
		}
		p.Filename = "a.py"
		for i := range rapid.IntRange(0, 4).Draw(t, "files") {
			p.Files = append(p.Files, File{"abcd"[i : i+1], strings.Repeat(string("abcd"[i])+" += b\n", rapid.IntRange(0, 50).Draw(t, "lines"))})
		}
		got, err := p.budget(tok, tok.VocabSize(), context, maxNew)
		if err != nil {
			t.Fatal(err)
		}
		if got.maxNew != without.maxNew || got.shortened != without.shortened || got.prefix != without.prefix || len(got.ids)+got.maxNew > context {
			t.Fatalf("%d tokens, %d new, %d of the prefix in a context of %d; without files %d, %d, %d", len(got.ids), got.maxNew, got.prefix, context, len(without.ids), without.maxNew, without.prefix)
		}
		if added := len(got.ids) - len(without.ids); added > context/2+context/16 {
			t.Fatalf("%d tokens of files in a context of %d", added, context)
		}
		if got.shortened && len(got.ids) != len(without.ids) {
			t.Fatal("files beside a text that was cut")
		}
		// Those that are there are the first ones, the first of them last.
		var names []string
		for i, id := range got.ids {
			if id == sep && i+1 < len(got.ids) && !tok.IsSpecial(got.ids[i+1]) {
				names = append(names, strings.SplitN(tok.Decode(got.ids[i+1:]), "\n", 2)[0])
			}
		}
		names = slices.DeleteFunc(names, func(s string) bool { return strings.HasPrefix(s, "a.py") })
		var want []string
		for _, f := range p.Files {
			if f.Text != "" && len(want) < len(names) {
				want = append([]string{f.Name}, want...)
			}
		}
		if !slices.Equal(names, want) {
			t.Fatalf("files %v, expected %v", names, want)
		}
	})
}

// TestTypingWithFiles: while somebody types, the files stay where they are in the prompt, so that a keystroke costs what it changes.
func TestTypingWithFiles(t *testing.T) {
	tok := infertest.Tokenizer(t)
	m := newModel(t, infertest.Checkpoint(infertest.Config(tok.VocabSize())), tok, 1)
	e := NewEngine(m, EngineOptions{})
	defer e.Close()
	files := []File{{"near.py", strings.Repeat("def add(a, b):\n    return a + b\n", 3)}, {"far.py", strings.Repeat("for i in range(10):\n    print(i)\n", 3)}}
	before, typed, after := "class A:\n    ", "def sub(a, b):\n        return a - b\n", "\n\nprint(A)\n"
	var evaluated []int
	for i := range len(typed) {
		p := Prompt{Prefix: before + typed[:i], Suffix: after, Filename: "a.py", Files: files}
		res := completed(t, e, Request{Prompt: p, MaxTokens: 4})
		if i == 0 && len(res.PromptIDs) < 100 {
			t.Fatalf("%d tokens: the files are not in the prompt", len(res.PromptIDs))
		}
		evaluated = append(evaluated, len(res.PromptIDs)-res.Cached)
	}
	sorted := slices.Sorted(slices.Values(evaluated))
	t.Logf("tokens evaluated by keystroke: %v", evaluated)
	if most := sorted[len(sorted)*9/10]; most > 8 {
		t.Errorf("nine keystrokes in ten cost up to %d tokens, expected at most 8", most)
	}
}
