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

// TestTypingWithFiles: while somebody types, the files stay where they are in the prompt, so that a keystroke costs what it changes; only
// where they have to make room, now and then, is the prompt read anew.
func TestTypingWithFiles(t *testing.T) {
	santacoder, err := tokenizer.Load(sharedtest.Path(t, "tokenizers/santacoder"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		tok     *tokenizer.Tokenizer
		context int
	}{
		{"own format", infertest.Tokenizer(t), 560},
		{"comments", santacoder, 480},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := infertest.Config(c.tok.VocabSize())
			config.Positions, config.Embed, config.Layers, config.Inner, config.Heads = c.context, 8, 1, 8, 1
			e := NewEngine(newModel(t, infertest.Checkpoint(config), c.tok, 1), EngineOptions{})
			defer e.Close()
			const unit = "def add(a, b):\n    return a + b\n"
			files := []File{{"near.py", strings.Repeat(unit, 12)}, {"far.py", strings.Repeat(unit, 12)}}
			typed := strings.Repeat("def sub(a, b):\n        return a - b\n\n    ", 20)
			var evaluated []int
			first, last := 0, 0
			for i := range len(typed) {
				p := Prompt{Prefix: "class A:\n    " + typed[:i], Suffix: "\n\nprint(A)\n", Filename: "a.py", Files: files}
				res := completed(t, e, Request{Prompt: p, MaxTokens: 4})
				last = len(res.PromptIDs) - len(c.tok.Encode(p.Prefix))
				if i == 0 {
					first = last
				}
				evaluated = append(evaluated, len(res.PromptIDs)-res.Cached)
			}
			sorted := slices.Sorted(slices.Values(evaluated))
			reread := 0
			for _, n := range sorted {
				if n > 32 {
					reread++
				}
			}
			t.Logf("%d tokens of files at first, %d in the end; median %d, 95 %% within %d, %d of %d keystrokes above 32", first, last, sorted[len(sorted)/2], sorted[len(sorted)*19/20], reread, len(sorted))
			if first < 200 || last >= first || sorted[len(sorted)/2] > 3 || sorted[len(sorted)*19/20] > 10 || reread > 6 {
				t.Errorf("expected at least 200 tokens of files, fewer in the end, a median of at most 3, 95 %% within 10 and 6 above 32")
			}
		})
	}
}
