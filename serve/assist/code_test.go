package assist

import (
	"context"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// scripted answers with given pieces.
type scripted struct {
	pieces []string
	finish Finish
	base   bool
	err    error
	asked  []Query
}

func (s *scripted) Model() string { return "org/Scripted-1B" }
func (s *scripted) Base() bool    { return s.base }

func (s *scripted) Answer(_ context.Context, q Query, emit func(string) error) (Reply, error) {
	s.asked = append(s.asked, q)
	for _, p := range s.pieces {
		if err := emit(p); err != nil {
			return Reply{Finish: FinishCancel}, err
		}
	}
	if s.finish == "" {
		s.finish = FinishStop
	}
	return Reply{Finish: s.finish}, s.err
}

func function(t testing.TB, name string) *Function {
	t.Helper()
	all, err := Builtin("")
	if err != nil {
		t.Fatal(err)
	}
	f := all.Get(name)
	if f == nil {
		t.Fatalf("there is no function %s", name)
	}
	return f
}

func TestCode(t *testing.T) {
	python := Request{File: "a.py", Selection: "    def f(x):\n        return x\n", Before: "class A:\n"}
	cases := []struct {
		name    string
		request Request
		answer  string
		want    string
	}{
		{"fence", python, "```python\ndef f(x):\n    return x + 1\n```", "    def f(x):\n        return x + 1\n"},
		{"talk around", python, "Sure! Here it is:\n\n```python\ndef f(x):\n    return 1\n```\n\nI changed `f`.\n```python\nf(1)\n```\n", "    def f(x):\n        return 1\n"},
		{"indentation given back", python, "```\n    def f(x):\n        return 1\n\n    # end\n```", "    def f(x):\n        return 1\n\n    # end\n"},
		{"tildes, indented fence", python, "1. So:\n   ~~~py\n   def f(x):\n       return 1\n   ~~~\n", "    def f(x):\n        return 1\n"},
		{"no end", python, "```python\ndef f(x):\n    return 1", "    def f(x):\n        return 1\n"},
		{"half an end", python, "```python\ndef f(x):\n    return 1\n``", "    def f(x):\n        return 1\n"},
		{"blank lines around", python, "```python\n\n\ndef f(x):\n    return 1\n\n\n```", "    def f(x):\n        return 1\n"},
		{"fences in a docstring", python, "```python\ndef f(x):\n    \"\"\"\n    ```\n    f(1)\n    ```\n    \"\"\"\n    return 1\n```", "    def f(x):\n        \"\"\"\n        ```\n        f(1)\n        ```\n        \"\"\"\n        return 1\n"},
		{"a fence at the margin inside", python, "```python\ndef f(x):\n    x = '''\n```js\nf\n```\n    '''\n```", "    def f(x):\n        x = '''\n    ```js\n    f\n    ```\n        '''\n"},
		{"longer fence", python, "````python\ndef f(x):\n    '''\n```\n    '''\n````", "    def f(x):\n        '''\n    ```\n        '''\n"},
		{"commands first", python, "Run:\n```bash\npip install x\n```\nThen:\n```python\ndef f(x): pass\n```", "    def f(x): pass\n"},
		{"thoughts", python, "<think>\nMaybe ```python\nno\n```\n</think>\n\n```python\ndef f(x): pass\n```", "    def f(x): pass\n"},
		{"bare code", python, "def f(x):\n    return 1\n", "    def f(x):\n        return 1\n"},
		{"bare code, another first line", python, "def f(x, y=1):\n    return x + y\n", "    def f(x, y=1):\n        return x + y\n"},
		{"decorator first", python, "```\n@cached\ndef f(x):\n    return 1\n```", "    @cached\n    def f(x):\n        return 1\n"},
		{"no line end selected", Request{File: "a.py", Selection: "return x", Before: "def f(x):\n    "}, "```python\nx += 1\nreturn x\n```\n", "x += 1\n    return x"},
		{"in a line", Request{File: "a.py", Selection: "a + b", Before: "x = "}, "```python\nb + a\n```", "b + a"},
		{"tabs", Request{File: "a.go", Selection: "\tif x {\n\t\treturn 1\n\t}\n"}, "```go\nif x {\n    if y {\n        return 2\n    }\n}\n```", "\tif x {\n\t\tif y {\n\t\t\treturn 2\n\t\t}\n\t}\n"},
		{"tabs, comment stars", Request{File: "a.c", Selection: "\tint f()\n\t{\n\t\treturn 1;\n\t}\n"}, "```c\n/*\n * F.\n */\nint f()\n{\n  return 1;\n}\n```", "\t/*\n\t * F.\n\t */\n\tint f()\n\t{\n\t\treturn 1;\n\t}\n"},
		{"spaces for tabs", python, "```\ndef f(x):\n\treturn 1\n```", "    def f(x):\n        return 1\n"},
		{"CRLF", Request{File: "a.js", Selection: "  f()\r\n  g()\r\n"}, "```js\nf()\n\ng(1)\n```", "  f()\r\n\r\n  g(1)\r\n"},
		{"CRLF of the model", Request{File: "a.js", Selection: "f()\ng()\n"}, "```js\r\nf()\r\ng(1)\r\n```\r\n", "f()\ng(1)\n"},
		{"blank lines selected", Request{File: "a.js", Selection: "\n\nf()\n\n"}, "```js\ng()\n```", "\n\ng()\n\n"},
		{"shell", Request{File: "a.sh", Selection: "ls\n"}, "```bash\nls -l\n```", "ls -l\n"},
	}
	for _, c := range cases {
		for _, size := range []int{1, 3, 1000} {
			b := &scripted{pieces: chunks(c.answer, size)}
			var streamed strings.Builder
			a, err := function(t, "improve").Run(context.Background(), b, c.request, Text, 0, func(s string) error { streamed.WriteString(s); return nil })
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				break
			}
			if a.Edit == nil || a.Edit.NewText != c.want || streamed.String() != c.want {
				t.Errorf("%s: in pieces of %d: found %q, streamed %q, expected %q", c.name, size, a.Text, streamed.String(), c.want)
				break
			}
		}
	}
}

func chunks(s string, size int) []string {
	var out []string
	for len(s) > size {
		out, s = append(out, s[:size]), s[size:]
	}
	return append(out, s)
}

func TestNoCode(t *testing.T) {
	r := Request{File: "a.py", Selection: "def f(x):\n    return x\n"}
	failed := errors.New("gone")
	for _, c := range []struct {
		name   string
		answer string
		finish Finish
		err    error
		want   error
	}{
		{"nothing", "", "", nil, ErrNoCode},
		{"talk", "I'm sorry, but I cannot improve this code. It is fine as it is.", "", nil, ErrNoCode},
		{"an empty block", "```python\n\n```", "", nil, ErrNoCode},
		{"an open block", "```python\n", "", nil, ErrNoCode},
		{"commands only", "```bash\nls\n```\n", "", nil, ErrNoCode},
		{"thoughts only", "<think>\ndef f(x): pass\n", "", nil, ErrNoCode},
		{"cut off", "```python\ndef f(x):\n    ret", FinishLength, nil, ErrTruncated},
		{"bare and cut off", "def f(x):\n    ret", FinishLength, nil, ErrTruncated},
		{"failed", "```python\ndef f(x):\n", "", failed, failed},
	} {
		b := &scripted{pieces: []string{c.answer}, finish: c.finish, err: c.err}
		a, err := function(t, "improve").Run(context.Background(), b, r, Text, 0, nil)
		if !errors.Is(err, c.want) || a.Edit != nil {
			t.Errorf("%s: found error %v and edit %v, expected %v and none", c.name, err, a.Edit, c.want)
		}
	}
	// The code was complete when the limit was reached behind it.
	b := &scripted{pieces: []string{"```\nx = 1\n```\nThis sets"}, finish: FinishLength}
	if a, err := function(t, "improve").Run(context.Background(), b, r, Text, 0, nil); err != nil || a.Edit == nil || a.Edit.NewText != "x = 1\n" {
		t.Errorf("complete code: found %v (%v)", a.Edit, err)
	}
}

func TestPlaces(t *testing.T) {
	r := Request{File: `src\pkg\stack.py`, Selection: "    x = 1", Range: &Range{Position{3, 0}, Position{3, 9}}}
	b := func() *scripted { return &scripted{pieces: []string{"```python\ndef test_x():\n    pass\n```"}} }
	a, err := function(t, "write-tests").Run(context.Background(), b(), r, Text, 0, nil)
	if err != nil || a.Edit.Place != New || a.Edit.Range != nil || a.Edit.File != "src/pkg/test_stack.py" || a.Edit.NewText != "def test_x():\n    pass\n" {
		t.Errorf("write-tests: found %+v (%v)", a.Edit, err)
	}
	below, err := ParseFunction("b.md", []byte("---\nname: below\noutput: code\nplace: below\n---\nx {{.Code}}"))
	if err != nil {
		t.Fatal(err)
	}
	a, err = below.Run(context.Background(), b(), r, Text, 0, nil)
	if want := (Range{Position{3, 9}, Position{3, 9}}); err != nil || *a.Edit.Range != want || a.Edit.NewText != "\n    def test_x():\n        pass\n" {
		t.Errorf("below: found %+v (%v)", a.Edit, err)
	}
	// Wherever the selection ends, the new lines are lines of their own and nothing else moves.
	for _, c := range []struct{ selection, after, want string }{
		{"x = 1\n", "y = 2\n", "x = 1\ndef test_x():\n    pass\ny = 2\n"},
		{"x = 1", "\ny = 2\n", "x = 1\ndef test_x():\n    pass\ny = 2\n"},
		{"x = 1", "\r\ny = 2\r\n", "x = 1\r\ndef test_x():\r\n    pass\r\ny = 2\r\n"},
		{"x = 1", "", "x = 1\ndef test_x():\n    pass\n"},
		{"x = 1\n", "", "x = 1\ndef test_x():\n    pass\n"},
		{"x = 1\n\n", "\ny = 2\n", "x = 1\n\ndef test_x():\n    pass\n\ny = 2\n"},
		{"x", " = 1\n", "x\ndef test_x():\n    pass\n = 1\n"},
	} {
		a, err := below.Run(context.Background(), b(), Request{File: "x.py", Selection: c.selection, After: c.after}, Text, 0, nil)
		if err != nil || c.selection+a.Edit.NewText+c.after != c.want {
			t.Errorf("below %q before %q: found %q (%v), expected %q", c.selection, c.after, c.selection+a.Edit.NewText+c.after, err, c.want)
		}
	}
}

// Whatever the answer and however it is cut, what is shown is the same, the edit is what was shown, and no code ends with a part of a fence.
func TestPiecesDoNotMatter(t *testing.T) {
	parts := []string{"```", "```python", "``", "`", "~~~", "\n", "\r\n", "    ", "\t", "def f(x):", "return x", "Here it is.", "<think>", "</think>", "é", "x = 1", "- ", "1. ", "# ", "## H", "> ",
		"|a|b|\n|-|-|\n|1|2|", "<b>", "[l](javascript:x)", "*e*", "[r]: /u", "![i](u)", "====", "---"}
	functions := []string{"improve", "explain", "write-tests"}
	rapid.Check(t, func(t *rapid.T) {
		answer := strings.Join(rapid.SliceOfN(rapid.SampledFrom(parts), 0, 30).Draw(t, "answer"), "")
		all, err := Builtin("")
		if err != nil {
			t.Fatal(err)
		}
		f := all.Get(rapid.SampledFrom(functions).Draw(t, "function"))
		format := rapid.SampledFrom([]Format{Text, HTML}).Draw(t, "format")
		r := Request{File: "a.py", Selection: rapid.SampledFrom([]string{"def f(x):\n\treturn x\n", "  x = 1", "def f(x):\r\n    return x\r\n"}).Draw(t, "selection")}
		base := rapid.Bool().Draw(t, "base")
		whole, wholeErr := f.Run(context.Background(), &scripted{pieces: []string{answer}, base: base}, r, format, 0, nil)
		var pieces []string
		for rest := answer; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		var shown strings.Builder
		cut, cutErr := f.Run(context.Background(), &scripted{pieces: pieces, base: base}, r, format, 0, func(s string) error { shown.WriteString(s); return nil })
		if cut.Text != whole.Text || shown.String() != whole.Text || !errors.Is(cutErr, wholeErr) {
			t.Fatalf("%q in pieces %q: found %q (%v), expected %q (%v)", answer, pieces, shown.String(), cutErr, whole.Text, wholeErr)
		}
		if (cut.Edit != nil) != (f.Output == Code && cutErr == nil) || cut.Edit != nil && cut.Edit.NewText != shown.String() {
			t.Fatalf("found the edit %+v with error %v after %q", cut.Edit, cutErr, shown.String())
		}
		if f.Output == Prose && format == HTML && strings.Contains(shown.String(), "<b>") {
			t.Fatalf("found a tag of the model's in %q", shown.String())
		}
	})
}

// A model that gives back what it was shown changes nothing but white space on blank lines.
func TestSelectionComesBack(t *testing.T) {
	line := rapid.Custom(func(t *rapid.T) string {
		return rapid.SampledFrom([]string{"", "    ", "\t", "        ", "\t\t", "  ", " "}).Draw(t, "indent") +
			rapid.SampledFrom([]string{"", "x = 1", "if (x) {", "}", "`", "```", "~~~", "````js", "*/"}).Draw(t, "text")
	})
	rapid.Check(t, func(t *rapid.T) {
		eol := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "eol")
		selection := strings.Join(rapid.SliceOfN(line, 1, 8).Draw(t, "lines"), eol) + strings.Repeat(eol, rapid.IntRange(0, 2).Draw(t, "end"))
		before := rapid.SampledFrom([]string{"", "a" + eol, "a" + eol + "    ", "\t", "x = "}).Draw(t, "before")
		if strings.TrimSpace(selection) == "" {
			return
		}
		r := Request{File: "a.js", Selection: selection, Before: before}
		p := newPrompt(r)
		a, err := function(&testing.T{}, "improve").Run(context.Background(), &scripted{pieces: []string{p.Code()}}, r, Text, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := blankLines(a.Edit.NewText), blankLines(selection); got != want {
			t.Fatalf("before %q, shown %q: found %q, expected %q", before, p.Code(), got, want)
		}
	})
}

// blankLines empties the lines that are white space.
func blankLines(s string) string {
	lines := strings.SplitAfter(s, "\n")
	for i, l := range lines {
		if strings.TrimSpace(l) == "" {
			lines[i] = strings.Trim(l, " \t")
		}
	}
	return strings.Join(lines, "")
}

func TestBaseModels(t *testing.T) {
	r := Request{File: "a.py", Selection: "def f():\n    '''\n    ```\n    '''\n"}
	b := &scripted{pieces: []string{"def f():\n    return 1"}, base: true}
	a, err := function(t, "improve").Run(context.Background(), b, r, Text, 0, nil)
	q := b.asked[0]
	if err != nil || a.Edit.NewText != "def f():\n    return 1\n" {
		t.Errorf("found %+v (%v)", a.Edit, err)
	}
	if !strings.HasSuffix(q.Base, "\n````python\n") || q.Stop[0] != "\n````" {
		t.Errorf("found the text %q, stops %q", q.Base, q.Stop)
	}
	b = &scripted{pieces: []string{" returns 1", "."}, base: true}
	a, err = function(t, "explain").Run(context.Background(), b, r, Text, 0, nil)
	if err != nil || a.Text != "This code returns 1." || !strings.HasSuffix(b.asked[0].Base, "\n\nThis code") {
		t.Errorf("found %q (%v) for %q", a.Text, err, b.asked[0].Base)
	}
}

// short takes prompts up to a length.
type short struct {
	scripted
	limit int
}

func (s *short) Answer(ctx context.Context, q Query, emit func(string) error) (Reply, error) {
	if n := len(q.Messages[1].Content); n > s.limit {
		s.asked = append(s.asked, q)
		return Reply{}, &TooLongError{errors.New("too long")}
	}
	return s.scripted.Answer(ctx, q, emit)
}

func TestSurroundingsGiveWay(t *testing.T) {
	r := Request{File: "a.py", Selection: "x = 1\n", Before: strings.Repeat("b = 0\n", 1000), After: strings.Repeat("a = 2\n", 1000)}
	b := &short{scripted{pieces: []string{"ok"}}, 1500}
	a, err := function(t, "explain").Run(context.Background(), b, r, Text, 0, nil)
	if err != nil || a.Text != "ok" || len(b.asked) < 2 {
		t.Fatalf("found %q (%v) after %d attempts", a.Text, err, len(b.asked))
	}
	last := b.asked[len(b.asked)-1].Messages[1].Content
	if !strings.Contains(last, "b = 0\n") || !strings.Contains(last, "a = 2\n") || !strings.Contains(last, "\nx = 1\n") {
		t.Errorf("found the prompt %q, expected some of what is around the selection", last)
	}
	b = &short{scripted{}, 10}
	var tooLong *TooLongError
	if _, err := function(t, "explain").Run(context.Background(), b, r, Text, 0, nil); !errors.As(err, &tooLong) {
		t.Errorf("found error %v, expected that it is too long", err)
	}
}

func TestInvalidRequests(t *testing.T) {
	var invalid *InvalidError
	if _, err := function(t, "explain").Run(context.Background(), &scripted{}, Request{Selection: " \n\t"}, Text, 0, nil); !errors.As(err, &invalid) || invalid.Field != "selection" {
		t.Errorf("found error %v", err)
	}
	stop := errors.New("enough")
	if _, err := function(t, "explain").Run(context.Background(), &scripted{pieces: []string{"a"}}, Request{Selection: "x"}, Text, 0, func(string) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("found error %v, expected the receiver's", err)
	}
}
