package infer

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// shapeCase is a completion at the place marked by ‸ in a file, and what is to be left of it.
type shapeCase struct {
	name, file, around string
	text, want         string
	rule               StopRule
}

// check runs a case in pieces of every length.
func (c shapeCase) check(t *testing.T, s Shape) {
	t.Helper()
	before, after, ok := strings.Cut(c.around, "‸")
	if !ok {
		t.Fatalf("%s: no cursor in %q", c.name, c.around)
	}
	p := Prompt{Prefix: before, Suffix: after, Filename: c.file}
	for n := 1; n <= len(c.text)+1; n++ {
		if got, rule := shapeText(s, p, c.text, n); got != c.want || rule != c.rule {
			t.Errorf("%s, in pieces of %d: %q by %q, expected %q by %q", c.name, n, got, rule, c.want, c.rule)
			return
		}
	}
}

func TestOneLine(t *testing.T) {
	for _, c := range []shapeCase{
		{"a line", "a.py", "x = ‸", "1\ny = 2\n", "1", StopLine},
		{"no newline", "a.py", "x = ‸", "1", "1", ""},
		{"nothing left of the line", "a.py", "x = 1‸", "\ny = 2", "", StopLine},
		{"carriage return", "a.py", "x = ‸", "1\r\ny", "1", StopLine},
		{"a carriage return that no newline follows", "a.py", "x = ‸", "1\ry", "1\ry", ""},
	} {
		c.check(t, Shape{Lines: OneLine})
	}
}

func TestAutoLines(t *testing.T) {
	for _, c := range []shapeCase{
		{"inside a line", "a.py", "x = f(‸)\n", "1\ny = 2", "1", StopLine},
		{"at the end of an unfinished line", "a.py", "x = ‸\n", "1\ny = 2", "1", StopLine},
		{"a statement", "a.py", "a = 1\n‸\n", "b = 2\nc = 3\n", "b = 2", StopBlock},
		{"a call over lines", "a.py", "‸\n", "f(\n    1,\n    2,\n)\ng()\n", "f(\n    1,\n    2,\n)", StopBlock},
		{"a function", "a.py", "‸\n", "def f(a):\n    if a:\n        return 1\n\n    return 2\n\n\nf(1)\n", "def f(a):\n    if a:\n        return 1\n\n    return 2", StopBlock},
		{"decorated", "a.py", "‸\n", "@cache\ndef f(a):\n    return 2\nf(1)\n", "@cache\ndef f(a):\n    return 2", StopBlock},
		{"a comment and what it is about", "a.py", "‸\n", "# two\nx = 2\ny = 3\n", "# two\nx = 2", StopBlock},
		{"else and except go on", "a.py", "def f():\n    g()\n    ‸\n", "try:\n        h()\n    except E:\n        return\n    else:\n        i()\n    return 1\n", "try:\n        h()\n    except E:\n        return\n    else:\n        i()", StopBlock},
		{"a name that begins like else", "a.py", "def f():\n    g()\n    ‸\n", "if a:\n        h()\n    elsewhere()\n", "if a:\n        h()", StopBlock},
		{"a body", "a.py", "def f(a):\n    ‸\n\ng()\n", "b = a\n    if b:\n        return 1\n    return b\n\ng()\n", "b = a\n    if b:\n        return 1\n    return b", StopBlock},
		{"a body from the end of the line before", "a.py", "def f(a):‸\n\ng()\n", "\n    b = a\n    return b\n\ng()\n", "\n    b = a\n    return b", StopBlock},
		{"a line more in a body", "a.py", "def f(a):\n    ‸\n    return b\n", "b = a\n    return b\n", "b = a", StopBlock},
		{"a string over lines", "a.py", "‸\n", "s = \"\"\"\nx: {\n\"\"\"\nt = 1\n", "s = \"\"\"\nx: {\n\"\"\"", StopBlock},
		{"the block is over", "a.py", "def f():\n    return 1‸\n", "\n\ndef g():\n    return 2\n", "", StopLine},
		{"braces", "a.go", "func f() {\n\t‸\n}\n", "if a {\n\t\tg()\n\t} else {\n\t\th()\n\t}\n\treturn\n}\n", "if a {\n\t\tg()\n\t} else {\n\t\th()\n\t}\n\treturn", StopBlock},
		{"the bracket is missing", "a.go", "func f() {\n\t‸\n\nfunc g() {\n}\n", "return\n}\n\nfunc h() {\n}\n", "return\n}", StopBlock},
		{"from the bracket on", "a.go", "func f() {‸\n\nfunc g() {\n}\n", "\n\treturn\n}\n\nfunc h() {\n}\n", "\n\treturn\n}", StopBlock},
		{"cases", "a.go", "func f() {\n\tswitch a {\n\t‸\n\t}\n}\n", "case 1:\n\t\tg()\n\tdefault:\n\t\th()\n\t}\n}\n", "case 1:\n\t\tg()\n\tdefault:\n\t\th()", StopBlock},
		{"brackets in strings and comments", "a.c", "‸\n", "void f() { // {\n  g('{', \"{\"); /* { */\n}\nint x;\n", "void f() { // {\n  g('{', \"{\"); /* { */\n}", StopBlock},
		{"a bracket in a line of its own", "a.c", "‸\n", "void f()\n{\n  g();\n}\nint x;\n", "void f()\n{\n  g();\n}", StopBlock},
		{"an annotation", "A.java", "class A {\n    int x;\n    ‸\n}\n", "@Override\n    public int a() {\n        return 1;\n    }\n\n    int b;\n", "@Override\n    public int a() {\n        return 1;\n    }", StopBlock},
		{"a documented method", "A.java", "class A {\n    int x;\n    ‸\n}\n", "/** A. */\n    public int a() {\n        return 1;\n    }\n\n    int b;\n", "/** A. */\n    public int a() {\n        return 1;\n    }", StopBlock},
		{"a function as an argument", "a.js", "‸\n", "a.map(function (x) {\n  return x\n})\nb()\n", "a.map(function (x) {\n  return x\n})", StopBlock},
		{"a chain", "a.js", "‸\n", "a()\n  .then(b)\n  .catch(c);\nd();\n", "a()\n  .then(b)\n  .catch(c);", StopBlock},
		{"a regular expression", "a.js", "‸\n", "if (/[{(]/.test(a)) {\n  b()\n}\nc()\n", "if (/[{(]/.test(a)) {\n  b()\n}", StopBlock},
		{"end", "a.rb", "‸\n", "def f(a)\n  a.each do |x|\n    puts x\n  end\nend\n\nf(1)\n", "def f(a)\n  a.each do |x|\n    puts x\n  end\nend", StopBlock},
		{"end follows: the rule of the first AutoDev", "a.rb", "class A\n  def f(a)\n    ‸\n  end\nend\n", "a + 1\n  end\n\n  def g\n  end\nend\n", "a + 1", StopBlock},
		{"end is missing", "a.rb", "class A\n  def f(a)\n    ‸\n\n  def h\n  end\nend\n", "a + 1\n  end\n\n  def g\n  end\n", "a + 1\n  end", StopBlock},
		{"repeat until", "a.lua", "‸\n", "repeat\n  f()\nuntil x\ng()\n", "repeat\n  f()\nuntil x", StopBlock},
		{"a language not known", "", "‸\n", "a {\n  b\n}\nc\n", "a {\n  b\n}", StopBlock},
	} {
		c.check(t, Shape{Lines: AutoLines})
	}
}

// TestNoOverlap has the repetitions that users of other servers complain about (llama.vim's issues 55 and 71: brackets and lines once more),
// and what must not be taken for one (llama.vscode's 18: good text is cut).
func TestNoOverlap(t *testing.T) {
	for _, c := range []shapeCase{
		{"a bracket that the editor has closed", "a.py", "print(‸)\n", "x)", "x", StopSuffix},
		{"and more behind it", "a.js", "print(‸)\n", "x);\ny()\n", "x", StopSuffix},
		{"a bracket of its own", "a.py", "print(‸)\n", "f(x)", "f(x)", ""},
		{"one of its own and the editor's", "a.py", "print(‸)\n", "f(x))", "f(x)", StopSuffix},
		{"a bracket that is needed", "a.py", "print(f(‸)\n", "x)", "x)", ""},
		{"a method behind the bracket that is needed", "a.py", "print(f(‸)\n", "a).strip(", "a).strip(", ""},
		{"a string that the editor has closed", "a.py", "print(\"‸\")\n", "hello\")", "hello", StopSuffix},
		{"an index", "a.py", "a[‸]\n", "b[0]]", "b[0]", StopSuffix},
		{"the rest of a line", "a.py", "def f(‸):\n    return a\n", "a):\n    return a\n", "a", StopSuffix},
		{"a semicolon", "a.c", "int x = ‸;\n", "1;", "1", StopSuffix},
		{"a letter that also follows", "a.py", "e‸r\n", "r", "r", ""},
		{"the next line", "a.py", "x = 1\n‸\nreturn x\n", "y = 2\nreturn x\n", "y = 2", StopSuffix},
		{"the next line with other space", "a.py", "x = 1\n‸\n\nresult = compute(x)\n", "y = 2\n\n  result = compute(x) \n", "y = 2", StopSuffix},
		{"the lines that follow, and on", "a.py", "x = 1\n‸\nfoo = bar(x)\nbaz = quux(foo)\nreturn baz\n", "y = 2\nfoo = bar(x)\nbaz = quux(foo)\nreturn baz\nmore()\n", "y = 2", StopSuffix},
		{"half of the next line", "a.py", "x = 1\n‸\nresult = compute(x, y, z)\n", "y = 2\nresult = compute(x", "y = 2", StopSuffix},
		{"a line like the next one in the middle", "a.py", "x = 1\n‸\nreturn x\n", "if a:\n    x = 2\n    return x\nx = 3", "if a:\n    x = 2\n    return x\nx = 3", ""},
		{"a short line like the next one", "a.py", "a = [\n    ‸\n    0,\n]\n", "1,\n    0,", "1,\n    0,", ""},
		{"a bracket in the next line", "a.go", "func f() {\n\t‸\n}\n", "return\n}\n\nfunc g() {\n}\n", "return", StopSuffix},
		{"brackets of its own", "a.go", "func f() {\n\t‸\n}\n", "if a {\n\t\treturn\n\t}", "if a {\n\t\treturn\n\t}", ""},
		{"a bracket that is missing", "a.go", "func f() {\n\t‸\n\nfunc g() {\n}\n", "return\n}", "return\n}", ""},
		{"end", "a.rb", "def f\n  ‸\nend\n", "1\nend\n\ndef g\nend\n", "1", StopSuffix},
		{"an end of its own", "a.rb", "def f\n  ‸\nend\n", "if a\n    1\n  end", "if a\n    1\n  end", ""},
		{"a newline at the end", "a.py", "x = 1\n‸\ny\n", "y = 2\n\n", "y = 2", ""},
		{"all of it", "a.py", "x = 1\n‸\nresult = compute(x)\n", "result = compute(x)\n", "", StopSuffix},
		{"nothing follows", "a.py", "f(‸", "a)\n", "a)\n", ""},
	} {
		c.check(t, Shape{NoOverlap: true})
	}
}

func TestNoLoops(t *testing.T) {
	lines := "x = compute(x)\ny = compute(y)\n"
	for _, c := range []shapeCase{
		{"a line", "", "‸", strings.Repeat("print('hello')\n", 5), "print('hello')", StopLoop},
		{"lines", "", "‸", "a\n" + strings.Repeat(lines, 5), "a\n" + strings.TrimSuffix(lines, "\n"), StopLoop},
		{"a line twice", "", "‸", "print('hello')\nprint('hello')\nreturn", "print('hello')\nprint('hello')\nreturn", ""},
		{"closing brackets", "", "‸", "}\n}\n}\n}\n", "}\n}\n}\n}\n", ""},
		{"blank lines", "", "‸", "a" + strings.Repeat("\n", 30), "a\n", StopLoop},
		{"a ruler", "", "‸", strings.Repeat("-", 120), strings.Repeat("-", 120), ""},
		{"within a line", "", "‸", strings.Repeat("foo and bar, ", 20), strings.Repeat("foo and bar, ", 20)[:13+24], StopLoop},
		{"zeros", "", "‸", strings.Repeat("0, ", 60), strings.Repeat("0, ", 60), ""},
	} {
		c.check(t, Shape{NoLoops: true})
	}
}

func TestMinIndent(t *testing.T) {
	for _, c := range []shapeCase{
		{"less", "", "    ‸", "a\n    b\n  c\n", "a\n    b", StopIndent},
		{"enough, and blank lines", "", "    ‸", "a\n\n    b\n", "a\n\n    b\n", ""},
		{"a tab reaches far", "", "    ‸", "a\n\tb\nc", "a\n\tb", StopIndent},
		{"the first line is where it is", "", "    ‸", "a", "a", ""},
	} {
		c.check(t, Shape{MinIndent: 4})
	}
}

// TestShapeProperties: whatever the rules, place, text and pieces, what is shown is a beginning of the text, does not depend on the pieces,
// is whole characters, and all of the text when no rule has cut it, but for newlines at the end.
func TestShapeProperties(t *testing.T) {
	code := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{
			"\n", "\n", "    ", "\t", "if a:", "def f(", ")", "}", "{", "end", "x", " = ", "é", "\"", "'", "# c", "/*", "*/", "return x", ",", "0, ", "\r\n", "else",
		}), 0, 30).Draw(t, "words"), "")
	})
	rapid.Check(t, func(t *rapid.T) {
		s := Shape{
			Lines: rapid.SampledFrom([]Lines{AllLines, OneLine, Block, AutoLines}).Draw(t, "lines"), NoOverlap: rapid.Bool().Draw(t, "no overlap"),
			NoLoops: rapid.Bool().Draw(t, "no loops"), MinIndent: rapid.IntRange(0, 6).Draw(t, "indent"),
		}
		p := Prompt{Prefix: code.Draw(t, "prefix"), Suffix: code.Draw(t, "suffix"), Filename: "a" + rapid.SampledFrom([]string{".py", ".go", ".rb", ".js", ""}).Draw(t, "extension")}
		text := code.Draw(t, "text")
		whole, rule := shapeText(s, p, text, len(text)+1)
		if !strings.HasPrefix(text, whole) || !utf8.ValidString(whole) {
			t.Fatalf("%q is shown of %q", whole, text)
		}
		if rule == "" && strings.TrimSpace(text[len(whole):]) != "" {
			t.Fatalf("%q is left out, by no rule", text[len(whole):])
		}
		if s == (Shape{}) && whole != text {
			t.Fatalf("%q is left of %q", whole, text)
		}
		n := rapid.IntRange(1, len(text)+1).Draw(t, "piece")
		if got, by := shapeText(s, p, text, n); got != whole || by != rule {
			t.Fatalf("%q by %q in pieces of %d, expected %q by %q", got, by, n, whole, rule)
		}
	})
}

// FuzzShape: no text breaks the rules, and none of them depends on the pieces that it comes in.
func FuzzShape(f *testing.F) {
	f.Add("def f(a):\n    ", "\n    return a\n", "b = [a]\n    return b\n", ".py", uint8(15), uint8(3))
	f.Add("func f() {\n\t", "\n}\n", "g(`}`)\n}\n", ".go", uint8(31), uint8(1))
	f.Add("a.each do |x|\n  ", "\nend\n", "puts %w(a b)\nend\n", ".rb", uint8(14), uint8(5))
	f.Add("print(\"", "\")\n", "hello\")\n", ".js", uint8(6), uint8(2))
	f.Fuzz(func(t *testing.T, prefix, suffix, text, extension string, rules, n uint8) {
		if len(text) > 2000 {
			return
		}
		s := Shape{Lines: Lines(rules & 3), NoOverlap: rules&4 != 0, NoLoops: rules&8 != 0, MinIndent: int(rules >> 4)}
		p := Prompt{Prefix: prefix, Suffix: suffix, Filename: "a" + extension}
		whole, rule := shapeText(s, p, text, len(text)+1)
		if !strings.HasPrefix(text, whole) || rule == "" && strings.TrimSpace(text[len(whole):]) != "" {
			t.Fatalf("%q is left of %q, by %q", whole, text, rule)
		}
		if got, by := shapeText(s, p, text, int(n)+1); got != whole || by != rule {
			t.Fatalf("%q by %q in pieces of %d, expected %q by %q", got, by, int(n)+1, whole, rule)
		}
	})
}
