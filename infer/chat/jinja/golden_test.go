package jinja

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
)

// whole turns what JSON made of whole numbers back into them.
func whole(v any) any {
	switch v := v.(type) {
	case float64:
		if v == math.Trunc(v) {
			return int64(v)
		}
	case []any:
		for i := range v {
			v[i] = whole(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = whole(v[k])
		}
	}
	return v
}

type goldenFile struct {
	Vars  map[string]any
	Cases []struct{ Source, Text, Error string }
}

func readGolden(t testing.TB) goldenFile {
	t.Helper()
	content, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g goldenFile
	if err := json.Unmarshal(content, &g); err != nil {
		t.Fatal(err)
	}
	whole(g.Vars)
	return g
}

// TestJinja2 compares with jinja2: equal texts, and errors where it has them.
func TestJinja2(t *testing.T) {
	g := readGolden(t)
	for _, c := range g.Cases {
		tm, err := Parse(c.Source)
		var out Text
		if err == nil {
			out, err = tm.Render(g.Vars, Host{})
		}
		if c.Error != "" {
			if err == nil {
				t.Errorf("%s\nfound %q, expected the error %s", c.Source, out, c.Error)
			}
			continue
		}
		if err != nil || out.String() != c.Text {
			t.Errorf("%s\nfound    %q (%v)\nexpected %q", c.Source, out, err, c.Text)
		}
		if len(out.Marks()) > 0 {
			t.Errorf("%s: found marks in a text without a user's", c.Source)
		}
	}
}

// marked writes a text with its user's parts in brackets.
func marked(t Text) string {
	var b strings.Builder
	at := 0
	for _, m := range t.Marks() {
		b.WriteString(t.s[at:m.From] + "‹" + t.s[m.From:m.To] + "›")
		at = m.To
	}
	return b.String() + t.s[at:]
}

func TestMarks(t *testing.T) {
	vars := map[string]any{"u": User(" a<b>c "), "v": User("x,y"), "l": []any{User("p"), "q"}, "d": map[string]any{"k": User("w")}}
	for source, want := range map[string]string{
		"{{ u }}":                     "‹ a<b>c ›",
		"<{{ u|trim }}>":              "<‹a<b>c›>",
		"{{ '<' + u.strip() ~ '>' }}": "<‹a<b>c›>",
		"{{ u.split('<b>')[0] }}|{{ u[2:4] }}|{{ u[::-1] }}": "‹ a›|‹<b›|‹ c>b<a ›",
		"{{ v.split(',')|join('<') }}":                       "‹x›<‹y›",
		"{{ v.replace(',', '<|') }}":                         "‹x›<|‹y›",
		"{{ 'a,b'.replace(',', v) }}":                        "a‹x,y›b",
		"{{ v|upper }}{{ (v ~ 'z')|upper }}":                 "‹X,YX,Y›Z",
		"{{ (v ~ 'z')|capitalize }}":                         "‹X,yz›",
		"{{ l|join('-') }} {{ l }}":                          "‹p›-q [‹'p'›, 'q']",
		"{{ d|tojson }}":                                     `{"k": ‹"w"›}`,
		"{{ '%s!' % v }}{{ '{}?'.format(v) }}":               "‹x,y›!‹x,y›?",
		"{% set s %}<{{ v }}>{% endset %}{{ s }}":            "<‹x,y›>",
		"{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(v) }}":  "<‹x,y›>",
		"{% filter trim %} {{ v }} {% endfilter %}":          "‹x,y›",
		"{% for c in v %}{{ c }}.{% endfor %}":               "‹x›.‹,›.‹y›.",
		"{{ v * 2 }}{{ 'n' * 2 }}":                           "‹x,yx,y›nn",
		"{{ v|length }}{{ v == 'x,y' }}{{ 'x' in v }}":       "3TrueTrue",
		"{{ v|e }}{{ v|first }}{{ v|indent(2, true) }}":      "‹x,yx›  ‹x,y›",
		"{{ v.partition(',')[1] }}{{ u.splitlines()[0] }}{{ v|default('d') }}{{ nope|default(v) }}":     "‹, a<b>c x,yx,y›",
		"{% set ns = namespace(t='') %}{% for x in l %}{% set ns.t = ns.t + x %}{% endfor %}{{ ns.t }}": "‹p›q",
	} {
		tm, err := Parse(source)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		out, err := tm.Render(vars, Host{})
		if err != nil || marked(out) != want {
			t.Errorf("%s: found %s (%v), expected %s", source, marked(out), err, want)
		}
	}
}

func TestBounds(t *testing.T) {
	for name, source := range map[string]string{
		"steps":     "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
		"range":     "{{ range(100000000)|length }}",
		"recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
		"repeated":  "{{ 'x' * 1000000000000 }}",
		"doubling":  "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
		"output":    "{% set x = 'x' * 1000000 %}{% for i in range(99999) %}{{ x }}{% endfor %}",
		"nesting":   strings.Repeat("{% if 1 %}", 5000) + strings.Repeat("{% endif %}", 5000),
		"brackets":  "{{ " + strings.Repeat("(", 100000) + " }}",
		"minus":     "{{ " + strings.Repeat("-", 100000) + "1 }}",
		"not":       "{{ " + strings.Repeat("not ", 100000) + "1 }}",
		"lists":     "{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
		"printing":  "{% set ns = namespace(x=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
		"JSON":      "{% set ns = namespace(x=[]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}",
		"equality":  "{% set ns = namespace(x=[], y=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
	} {
		tm, err := Parse(source)
		if err == nil {
			_, err = tm.Render(nil, Host{})
		}
		if err == nil && name != "equality" {
			t.Errorf("%s: expected an error", name)
		}
	}
}

func TestErrors(t *testing.T) {
	for source, want := range map[string]string{
		"a\n{{ x":                       "line 2: the tag has no end, expected }}",
		"{% if x %}":                    `line 1: found the end of the template, expected "endif"`,
		"{% endif %}":                   `line 1: found the tag "endif"`,
		"{% include 'f' %}":             `line 1: found the tag "include"`,
		"{{ a b }}":                     `line 1: found "b", expected }}`,
		"{{ 'a }}":                      "line 1: the string has no end",
		"{{ 1 | }}":                     "line 1: found }}, expected a name",
		"{% break %}":                   "line 1: found break outside a loop",
		"{{ f(*a) }}":                   "spread arguments are not supported",
		"{# x":                          "line 1: the comment has no end",
		"{{ '\\u12' }}":                 "line 1: ",
		"{{ 99999999999999999999999 }}": "too large",
		"{{ ? }}":                       `line 1: found '?' in a tag`,
	} {
		if _, err := Parse(source); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: found error %v, expected %q", source, err, want)
		}
	}
	tm, err := Parse("\n{{ raise_exception('no ' ~ n) }}")
	if err != nil {
		t.Fatal(err)
	}
	_, err = tm.Render(map[string]any{"n": 5}, Host{})
	if e, ok := err.(*Error); !ok || !e.Raised || e.Text != "no 5" || e.Line != 2 {
		t.Errorf("found error %v", err)
	}
}

func FuzzRender(f *testing.F) {
	for _, c := range readGolden(f).Cases {
		f.Add(c.Source, "user")
	}
	f.Fuzz(func(t *testing.T, source, user string) {
		tm, err := Parse(source)
		if err != nil {
			return
		}
		out, err := tm.Render(map[string]any{"u": User(user), "n": 3, "l": []any{User(user), 1}, "d": map[string]any{"a": User(user)}}, Host{})
		if err != nil {
			return
		}
		at := -1
		for _, m := range out.Marks() {
			if m.From <= at || m.To <= m.From || m.To > len(out.String()) {
				t.Fatalf("found the marks %v in a text of %d bytes", out.Marks(), len(out.String()))
			}
			at = m.To
		}
	})
}
