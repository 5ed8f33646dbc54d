package assist

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestHTML(t *testing.T) {
	for text, want := range map[string]string{
		"a <b> & c":                            "<p>a &lt;b&gt; &amp; c</p>\n",
		"`List<int>` and List<int>":            "<p><code>List&lt;int&gt;</code> and List&lt;int&gt;</p>\n",
		"<script>alert(1)</script>":            "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n",
		"<div>\n<img src=x onerror=y>\n</div>": "<p>&lt;div&gt;\n&lt;img src=x onerror=y&gt;\n&lt;/div&gt;</p>\n",
		"[x](javascript:alert(1))":             "<p><a href=\"\">x</a></p>\n",
		"[x](https://e.org \"t\")":             "<p><a href=\"https://e.org\" title=\"t\">x</a></p>\n",
		"![a *b*](http://e.org/i.png)":         "<p>a <em>b</em></p>\n",
		"```js\"><b>\nif (a < b) {}\n```":      "<pre><code class=\"language-js&quot;&gt;&lt;b&gt;\">if (a &lt; b) {}\n</code></pre>\n",
		"# H\ntext\n\n- a\n- b\n\n  c\n\nend":  "<h1>H</h1>\n<p>text</p>\n<ul>\n<li>\n<p>a</p>\n</li>\n<li>\n<p>b</p>\n<p>c</p>\n</li>\n</ul>\n<p>end</p>\n",
		"1. a\n\n2. b":                         "<ol>\n<li>\n<p>a</p>\n</li>\n<li>\n<p>b</p>\n</li>\n</ol>\n",
		"|a|\n|-|\n|<i>|":                      "<table>\n<thead>\n<tr>\n<th>a</th>\n</tr>\n</thead>\n<tbody>\n<tr>\n<td>&lt;i&gt;</td>\n</tr>\n</tbody>\n</table>\n",
		"~~old~~ **new**":                      "<p><del>old</del> <strong>new</strong></p>\n",
	} {
		h := &htmlStream{}
		var b strings.Builder
		for _, c := range []byte(text) {
			b.WriteString(h.push(string(c)))
		}
		b.WriteString(h.flush())
		if got := b.String(); got != want {
			t.Errorf("%q: found %q, expected %q", text, got, want)
		}
	}
}

// Blocks appear as soon as they are certain.
func TestHTMLStreams(t *testing.T) {
	h := &htmlStream{}
	for _, step := range [][2]string{
		{"# T", ""}, {"\n", "<h1>T</h1>\n"}, {"para\nmore\n", ""}, {"\n", ""}, {"n", ""}, {"ext\n", "<p>para\nmore</p>\n"},
		{"```\nx\n\ny\n", "<p>next</p>\n"}, {"```", ""}, {"\n", "<pre><code>x\n\ny\n</code></pre>\n"}, {"- a\n\n- b\n\n", ""}, {"z\n", "<ul>\n<li>\n<p>a</p>\n</li>\n<li>\n<p>b</p>\n</li>\n</ul>\n"},
	} {
		if got := h.push(step[0]); got != step[1] {
			t.Errorf("after %q, found %q, expected %q", step[0], got, step[1])
		}
	}
	if got := h.flush(); got != "<p>z</p>\n" {
		t.Errorf("at the end, found %q", got)
	}
}

// Block by block is the whole, for texts of what models write.
func TestHTMLEqualsWhole(t *testing.T) {
	parts := []string{"word", "word\n", "\n", "\n\n", "# H\n", "- a\n", "  more\n", "1. x\n", "```py\n", "```\n", " ```\n", "  ```\n", "code\n", "    deep\n", "> q\n", "---\n", "**b** ", "<i>", "|a|b|\n|-|-|\n|1|2|\n"}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(rapid.SampledFrom(parts), 0, 14).Draw(t, "parts"), "")
		h := &htmlStream{}
		got := h.push(text)
		got += h.flush()
		if want := renderHTML(text); got != want {
			t.Fatalf("%q: found %q, expected %q", text, got, want)
		}
	})
}
