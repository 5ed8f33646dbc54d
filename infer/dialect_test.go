package infer

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseDialect(t *testing.T) {
	p, s := "def f(a):\n    ", "\n\nf(1)\n"
	for _, c := range []struct {
		raw, name string
		want      Prompt
	}{
		{"<fim-prefix>" + p + "<fim-suffix>" + s + "<fim-middle>", "santacoder", Prompt{Prefix: p, Suffix: s}},
		{"<fim-prefix><fim-suffix>" + s + "<fim-middle>" + p, "santacoder", Prompt{Prefix: p, Suffix: s}},
		{"<fim_prefix>" + p + "<fim_suffix>" + s + "<fim_middle>", "starcoder", Prompt{Prefix: p, Suffix: s}},
		{"<fim_suffix>" + s + "<fim_prefix>" + p + "<fim_middle>", "starcoder", Prompt{Prefix: p, Suffix: s}},
		{"<fim_prefix>" + p + "<fim_suffix><fim_middle>", "starcoder", Prompt{Prefix: p}},
		{"<fim_prefix>" + p + "<fim_suffix>" + s + "<fim_middle>return ", "starcoder", Prompt{Prefix: p + "return ", Suffix: s}},
		{"<|endoftext|><fim_prefix>" + p + "<fim_suffix>" + s + "<fim_middle>", "starcoder", Prompt{Prefix: p, Suffix: s}},
		{"# a note\n<fim_prefix>" + p + "<fim_suffix>" + s + "<fim_middle>", "starcoder", Prompt{Prefix: "# a note\n" + p, Suffix: s}},
		{"<reponame>demo<filename>a.py\nx = 1\n<filename>b.py\n<fim_prefix>" + p + "<fim_suffix>" + s + "<fim_middle>", "starcoder",
			Prompt{Prefix: p, Suffix: s, Repository: "demo", Filename: "b.py", Files: []File{{"a.py", "x = 1\n"}}}},
		{"<repo_name>demo<file_sep>a.py\nx = 1<file_sep>c.py\ny = 1<file_sep><fim_prefix>src/b.py\n" + p + "<fim_suffix>" + s + "<fim_middle>", "starcoder2",
			Prompt{Prefix: p, Suffix: s, Repository: "demo", Filename: "src/b.py", Files: []File{{"c.py", "y = 1"}, {"a.py", "x = 1"}}}},
		{"<file_sep><fim_prefix>" + p + "<fim_suffix>" + s + "<fim_middle>", "starcoder2", Prompt{Prefix: p, Suffix: s}},
		{"<|fim_prefix|>" + p + "<|fim_suffix|>" + s + "<|fim_middle|>", "qwen", Prompt{Prefix: p, Suffix: s}},
		{"<|repo_name|>demo\n<|file_sep|>a.py\nx = 1\n<|file_sep|>b.py\n<|fim_prefix|>" + p + "<|fim_suffix|>" + s + "<|fim_middle|>", "qwen",
			Prompt{Prefix: p, Suffix: s, Repository: "demo", Filename: "b.py", Files: []File{{"a.py", "x = 1\n"}}}},
		{"<bos><|file_separator|>a.py\nx = 1\n<|file_separator|><|fim_prefix|>" + p + "<|fim_suffix|>" + s + "<|fim_middle|>", "codegemma",
			Prompt{Prefix: p, Suffix: s, Files: []File{{"a.py", "x = 1\n"}}}},
		{"<｜fim▁begin｜>" + p + "<｜fim▁hole｜>" + s + "<｜fim▁end｜>", "deepseek", Prompt{Prefix: p, Suffix: s}},
		{"<|fim▁begin|>" + p + "<|fim▁hole|>" + s + "<|fim▁end|>", "deepseek", Prompt{Prefix: p, Suffix: s}},
		{"<PRE> " + p + " <SUF>" + s + " <MID>", "codellama", Prompt{Prefix: p, Suffix: s}},
		{"<s>▁<PRE> " + p + "▁<SUF>" + s + "▁<MID>", "codellama", Prompt{Prefix: p, Suffix: s}},
		{"<PRE> <SUF>" + s + " <MID> " + p, "codellama", Prompt{Prefix: p, Suffix: s}},
		{"[SUFFIX]" + s + "[PREFIX]" + p, "codestral", Prompt{Prefix: p, Suffix: s}},
		{"<s>[SUFFIX]" + s + "[PREFIX]" + p, "codestral", Prompt{Prefix: p, Suffix: s}},
		{"<|code_suffix|>" + s + "<|code_prefix|>" + p + "<|code_middle|>", "glm", Prompt{Prefix: p, Suffix: s}},
		{"<|code_prefix|>" + p + "<|code_suffix|>" + s + "<|code_middle|>", "glm", Prompt{Prefix: p, Suffix: s}},
	} {
		c.want.FIM = FIMAlways
		got, name, ok := ParseDialect(c.raw)
		if !ok || name != c.name || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q:\n%s %+v (%v), expected\n%s %+v", c.raw, name, got, ok, c.name, c.want)
		}
	}
	for _, raw := range []string{
		"", "x = 1", "<fim_prefix>", "<fim_prefix>a<fim_suffix>b", "<fim_prefix>a<fim-suffix>b<fim_middle>", "<fim_middle>a<fim_prefix>b<fim_suffix>",
		"<fim_prefix>a<fim_suffix>b<fim_suffix>c<fim_middle>", "[PREFIX]a[SUFFIX]b", "x [SUFFIX]a[PREFIX]b", "<PRE>a</PRE>", "<fim_prefix>a<fim_middle>b<fim_suffix>c",
		`tokens = ["<fim_prefix>", "<fim_middle>", "<fim_pad>"]`,
	} {
		if got, name, ok := ParseDialect(raw); ok || name != "" || !reflect.DeepEqual(got, Prompt{Prefix: raw}) {
			t.Errorf("%q: %s %+v (%v), expected a text", raw, name, got, ok)
		}
	}
}

// FuzzParseDialect: no text breaks it, none without all markers of a family is touched, and of one that is nothing is made up.
func FuzzParseDialect(f *testing.F) {
	for _, d := range dialects {
		f.Add(d.prefix + "a\n" + d.suffix + "b" + d.middle)
		f.Add(d.repo + "r" + d.file + "p\nc" + d.file + d.prefix + d.suffix + "b" + d.middle + "c")
		f.Add(d.suffix + "x" + d.prefix + "y")
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, name, ok := ParseDialect(raw)
		if !ok {
			if name != "" || !reflect.DeepEqual(p, Prompt{Prefix: raw}) {
				t.Fatalf("%q is no dialect, but became %+v", raw, p)
			}
			return
		}
		known := false
		for _, d := range dialects {
			all := strings.Contains(raw, d.prefix) && strings.Contains(raw, d.suffix)
			known = known || d.name == name && all && (d.short || strings.Contains(raw, d.middle))
			if d.name == name && all && (strings.Contains(p.Suffix, d.prefix) || strings.Contains(p.Suffix, d.suffix)) {
				t.Fatalf("%q: a marker is left in %q", raw, p.Suffix)
			}
		}
		if !known {
			t.Fatalf("%q is said to be %s", raw, name)
		}
		n := len(p.Prefix) + len(p.Suffix) + len(p.Filename) + len(p.Repository)
		for _, file := range p.Files {
			n += len(file.Name) + len(file.Text)
		}
		if n > len(raw) || !strings.Contains(raw, p.Suffix) {
			t.Fatalf("%q: %d bytes became %d: %+v", raw, len(raw), n, p)
		}
	})
}
