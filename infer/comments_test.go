package infer

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"autodev/internal/edits"
	"autodev/internal/sharedtest"
)

func TestCodeOnly(t *testing.T) {
	for _, c := range []struct {
		name, file string
		a, b       string
		same       bool
	}{
		{"docstring", "a.py", "def f(x):\n    return x\n", "def f(x):\n    \"\"\"Return x.\n\n    x: anything\n    \"\"\"\n    return x\n", true},
		{"docstring in a line", "a.py", "def f(x):\n    return x\n", "def f(x):\n    'Return x.'\n    # so\n\n    return x  # done\n", true},
		{"another docstring", "a.py", "def f(x):\n    '''X'''\n    return x\n", "def f(x):\n    r\"\"\"Y\"\"\"\n    return x\n", true},
		{"a string that is used", "a.py", "x = '''a'''\n", "x = '''b'''\n", false},
		{"a string's lines", "a.py", "x = '''a\nb  # c\n'''\n", "x = '''a\nb\n'''\n", false},
		{"a string's spaces", "a.py", "x = '''a\n  b\n'''\n", "x = '''a\n b\n'''\n", false},
		{"another width", "a.py", "if x:\n  f()\n", "if x:\n    f()\n", true},
		{"another block", "a.py", "if x:\n    f()\n    g()\n", "if x:\n    f()\ng()\n", false},
		{"the rest of a file", "a.py", "    x()\ny()\n", "x()\ny()\n", true},
		{"brackets", "a.py", "f(a,\n  b)\ng()\n", "f(a,  # first\n        b)\ng()\n", true},
		{"line left out", "a.go", "x := 1\ny := 2\n", "x := 1\n// y\n", false},
		{"comments", "a.go", "func f() {}\n", "// F does nothing.\n/* at\nall */\nfunc f() {} // not a thing\n", true},
		{"alignment", "a.go", "a   int\nbcd int\n", "a int // one\nbcd int // two\n", true},
		{"comment signs in strings", "a.go", "x := \"// a\"\n", "x := \"// b\"\n", false},
		{"backticks", "a.go", "x := `a\n// b\n`\n", "x := `a\n`\n", false},
		{"name", "a.js", "let a = 1;\n", "/** A. */\nlet b = 1;\n", false},
		{"doc block", "a.java", "int f() { return 1; }\r\n", "/**\n * F.\n */\nint f() { return 1; }\n", true},
		{"hash", "a.rb", "def f\n  1\nend\n", "# One.\ndef f\n  1 # one\nend\n", true},
	} {
		a, ok := CodeOnly(c.file, c.a)
		b, ok2 := CodeOnly(c.file, c.b)
		if !ok || !ok2 || (a == b) != c.same {
			t.Errorf("%s: found %q (%v) and %q (%v), expected the same: %v", c.name, a, ok, b, ok2, c.same)
		}
	}
	for _, file := range []string{"", "a.ex", "a.pl", "a.md", "a.unknown"} {
		if _, ok := CodeOnly(file, "x"); ok {
			t.Errorf("%q: found a language whose documentation is told from code, expected none", file)
		}
	}
}

// TestCodeOnlyCorpus documents real files between their lines, and changes single lines of them.
func TestCodeOnlyCorpus(t *testing.T) {
	dir := sharedtest.Path(t, "corpus/test")
	rng := rand.New(rand.NewPCG(4, 2))
	for _, l := range []struct{ name, ext, before, doc string }{
		{"python", ".py", "", "%s# Comment, (not \"closed\".\n"},
		{"java", ".java", "", "%s/**\n%[1]s * It's {documentation}.\n%[1]s */\n"},
		{"javascript", ".js", "", "%s// It's [documentation.\n"},
		{"ruby", ".rb", "", "%s# It's #{documentation.\n"},
		{"go", ".go", "", "%s// It's `documentation.\n"},
		{"rust", ".rs", "", "%s/// It's \"documentation.\n"},
	} {
		files, documented, changes, missed := 0, 0, 0, 0
		err := edits.Files(t.Context(), dir, l.name, func(text string) bool {
			if len(text) > 20000 {
				return true
			}
			files++
			file := "x" + l.ext
			want, ok := CodeOnly(file, text)
			if !ok {
				t.Fatalf("%s: the language is not known", l.name)
			}
			lines := strings.SplitAfter(text, "\n")
			x := &lexer{lang: languageOf(file)}
			var out strings.Builder
			var code []int // lines that hold code
			for i, line := range lines {
				_, in := indentation(line)
				if x.until == "" && i > 0 && !strings.HasSuffix(strings.TrimRight(lines[i-1], "\r\n"), "\\") && rng.IntN(4) == 0 {
					fmt.Fprintf(&out, l.doc, line[:in])
				}
				open := x.until != ""
				if c := x.line(strings.TrimRight(line, "\r\n"), nil).code; !open && x.until == "" && len(strings.Fields(c)) > 1 && !isString(c) {
					code = append(code, i)
				}
				out.WriteString(line)
			}
			if found, _ := CodeOnly(file, out.String()); found == want {
				documented++
			} else if testing.Verbose() {
				t.Logf("%s: documentation taken for code in the file that begins %.60q", l.name, text)
			}
			for range min(5, len(code)) {
				changed := append([]string{}, lines...)
				changed[code[rng.IntN(len(code))]] = "\n"
				changes++
				if found, _ := CodeOnly(file, strings.Join(changed, "")); found == want {
					missed++
				}
			}
			return files < 60
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: documentation of %d of %d files known as such; %d of %d lines left out not noticed", l.name, documented, files, missed, changes)
		if documented*100 < files*98 || missed*200 > changes {
			t.Errorf("%s: expected 98 %% and at most a half", l.name)
		}
	}
}
