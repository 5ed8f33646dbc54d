package assist

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBuiltinFunctions(t *testing.T) {
	all, err := Builtin("")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"add-input-checks", "document", "edit", "explain", "find-problems", "improve", "review", "write-tests"} {
		f := all.Get(name)
		if f == nil {
			t.Errorf("there is no function %s", name)
			continue
		}
		p := newPrompt(Request{File: "x/a.rb", Selection: "  def f\n    1\n  end\n", Before: "class A\n", Instruction: "Use {{.Code}} <|im_end|>"})
		messages, base, err := f.render("m", p)
		if err != nil || len(messages) != 2 || messages[0].Role != "system" {
			t.Errorf("%s: found %v (%v)", name, messages, err)
			continue
		}
		user := messages[1].Content
		for _, want := range []string{"Ruby", "x/a.rb", "```ruby\ndef f\n  1\nend\n```", "```ruby\nclass A\n```", "Use {{.Code}} <|im_end|>"} {
			if !strings.Contains(user, want) {
				t.Errorf("%s: found the message %q, expected it to hold %q", name, user, want)
			}
		}
		if !strings.Contains(base, "def f") || f.Output == Code && !strings.HasSuffix(base, "```ruby\n") {
			t.Errorf("%s: found the text %q", name, base)
		}
		if strings.Contains(user, "\n\n\n") || strings.Contains(user, "  code") {
			t.Errorf("%s: the message has holes: %q", name, user)
		}
		// Without a language, a file and surroundings nothing of them is mentioned.
		messages, _, err = f.render("m", newPrompt(Request{Selection: "x"}))
		if err != nil || strings.Contains(messages[1].Content, "from") && strings.Contains(messages[1].Content, " from :") || strings.Contains(messages[1].Content, "before it") {
			t.Errorf("%s: found %q (%v)", name, messages[1].Content, err)
		}
	}
}

func TestUserFunctions(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("mine.md", "---\nname: translate\noutput: code\nplace: below\nmax_tokens: 7\ntemperature: 0.5\nbackend: hosted\nstop: [\"END\"]\n---\n{{.Instruction}}: {{.Code}}"+
		"{{define \"user qwen*\"}}Q {{.Lang}}{{end}}{{define \"user qwen3*\"}}Q3{{end}}{{define \"system other-1\"}}S{{end}}")
	write("explain.md", "---\r\nname: explain\r\noutput: prose\r\n---\r\nWhat is {{trim .Selection}}?\r\n")
	write("README.md", "no function")
	write("notes.txt", "no function")
	all, err := Builtin(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := all.Get("translate")
	if f == nil || f.Place != Below || f.MaxTokens != 7 || f.Temperature != .5 || f.Backend != "hosted" || f.Title != "translate" || len(f.Stop) != 1 {
		t.Fatalf("found %+v", f)
	}
	p := newPrompt(Request{Language: "go", Selection: "x\n", Instruction: "I"})
	for model, want := range map[string]string{"": "I: ```go\nx\n```", "org/Qwen2.5-Coder": "Q Go", `C:\models\QWEN3-0.6B`: "Q3"} {
		messages, _, err := f.render(model, p)
		if err != nil || messages[len(messages)-1].Content != want || len(messages) != 1 {
			t.Errorf("%s: found %q (%v), expected %q", model, messages, err, want)
		}
	}
	if messages, _, _ := f.render("other-1", p); len(messages) != 2 || messages[0].Content != "S" {
		t.Errorf("found %q", messages)
	}
	messages, _, err := all.Get("explain").render("", p)
	if err != nil || len(messages) != 1 || messages[0].Content != "What is x?" {
		t.Errorf("found %q (%v)", messages, err)
	}
	write("twice.md", "---\nname: translate\noutput: prose\n---\nx")
	if _, err := Builtin(dir); err == nil || !strings.Contains(err.Error(), "twice.md: name: found translate, which ") {
		t.Errorf("found error %v", err)
	}
	if _, err := Builtin(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder that is not there: expected an error")
	}
}

func TestBadFunctions(t *testing.T) {
	head := func(s string) string { return "---\n" + s + "\n---\nx" }
	for text, want := range map[string]string{
		"":                             "expected a head",
		"name: x\n":                    "expected a head",
		head("name: x"):                `output: found "", expected prose or code`,
		head("name: X\noutput: prose"): `name: found "X"`,
		head("name: x\noutput: prose\nplace: below"):                      "place",
		head("name: x\noutput: code\nplace: here"):                        `place: found "here", expected replace, below or new`,
		head("name: x\noutput: code\nchanges: all"):                       `changes: found "all" of code, expected comments`,
		head("name: x\noutput: prose\nchanges: comments"):                 `changes: found "comments" of prose`,
		head("name: x\noutput: code\nplace: new\nchanges: comments"):      "changes",
		head("name: x\noutput: code\nmax_tokens: 0"):                      "max_tokens: found 0",
		head("name: x\noutput: code\ntemperature: 3"):                     "temperature: found 3",
		head("name: x\noutput: code\nstop: [\"\"]"):                       "stop: found an empty text",
		head("name: x\noutput: code\ncolour: red"):                        "colour",
		head("name: x\noutput: [1]"):                                      "f.md",
		"---\nname: x\noutput: prose\n---\n":                              "expected a message",
		"---\nname: x\noutput: prose\n---\n{{.Nope}}":                     "Nope",
		"---\nname: x\noutput: prose\n---\n{{if}}":                        "f.md",
		"---\nname: x\noutput: prose\n---\nx{{define \"user [\"}}{{end}}": "block",
	} {
		if _, err := ParseFunction("f.md", []byte(text)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "f.md") {
			t.Errorf("%q: found error %v, expected %q", text, err, want)
		}
	}
}

func FuzzParseFunction(f *testing.F) {
	entries, err := builtin.ReadDir("functions")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		b, err := builtin.ReadFile("functions/" + e.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if fn, err := ParseFunction("f.md", b); err == nil && (fn.Name == "" || fn.MaxTokens < 1) {
			t.Fatalf("found %+v", fn)
		}
	})
}

func TestLanguages(t *testing.T) {
	for _, c := range [][3]string{
		{"", "a/b.PY", "Python"}, {"golang", "", "Go"}, {"typescriptreact", "x", "TypeScript"}, {"", "x.unknown", ""}, {"COBOL", "", "COBOL"}, {"c++", "", "C++"}, {"", "Makefile", ""},
		{"x\n```\nignore", "", "x"},
	} {
		if got := languageOf(c[0], c[1]).Name; got != c[2] {
			t.Errorf("%q, %q: found %q, expected %q", c[0], c[1], got, c[2])
		}
	}
	for _, c := range [][2]string{{"a/b/stack.go", "a/b/stack_test.go"}, {"Main.java", "MainTest.java"}, {`a\f.py`, "a/test_f.py"}, {"x.json", ""}, {"", ""}} {
		if got := languageOf("", c[0]).testFile(c[0]); got != c[1] {
			t.Errorf("%q: found %q, expected %q", c[0], got, c[1])
		}
	}
}

func TestGuessLanguage(t *testing.T) {
	for code, want := range map[string]string{
		"def f(x):\n    return x\n":                       "python",
		"    def pop(self) -> int:  # last\n        pass": "python",
		"def f(x)\n  x + 1\nend\n":                        "ruby",
		"items.each do |i|\n  puts i\nend":                "ruby",
		"func (s *Stack) Pop() int {\n\treturn 1\n}\n":    "go",
		"x := 1\n":                                           "go",
		"public int f(int x) {\n  return x;\n}":              "java",
		"  private static final List<String> X = null;":      "java",
		"const f = (x) => {\n  return x;\n};":                "javascript",
		"function f(x: number): string {\n  return \"\";\n}": "typescript",
		"fn main() {\n    println!(\"x\");\n}":               "rust",
		"#include <vector>\nint main() {}":                   "cpp",
		"#include \"a.h\"\nint main() {}":                    "c",
		"<?php\necho 1;":                                     "php",
		"SELECT 1":                                           "",
		"return x":                                           "",
	} {
		if got := guessLanguage(code); got != want {
			t.Errorf("%q: found %q, expected %q", code, got, want)
		}
	}
}
