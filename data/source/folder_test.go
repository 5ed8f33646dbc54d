package source

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"autodev/data"
)

func write(t testing.TB, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func paths(docs []data.Document) []string {
	var l []string
	for _, d := range docs {
		l = append(l, d.Path)
	}
	return l
}

func TestFolder(t *testing.T) {
	root := filepath.Join(t.TempDir(), "library")
	write(t, root, map[string]string{
		"main.go":            "package main\n",
		"README.md":          "# read me\n",
		"net/http/client.go": "package http\n",
		"net/ünï.py":         "print('ü')\n",
		"bin.c":              "a\x00b",
		"latin.c":            "\xe9",
		"big.c":              strings.Repeat("x", 2000),
		"data.unknown":       "?",
		"vendor/x.go":        "package x\n",
		"gen/a.go":           "package a\n",
		"gen/keep.go":        "package keep\n",
		".gitignore":         "vendor/\ngen/*\n!gen/keep.go\n",
		"deep/.gitignore":    "*.rb\n!b.rb\n",
		"deep/a.rb":          "1",
		"deep/b.rb":          "2",
		"deep/c/a.rb":        "3",
		"deep/c/.gitignore":  "!a.rb\n",
		".git/hook.py":       "no",
	})
	if err := os.Symlink("main.go", filepath.Join(root, "link.go")); err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{MaxFileBytes: 1000}, root)
	docs := readAll(t, s)
	want := []string{"deep/b.rb", "deep/c/a.rb", "gen/keep.go", "main.go", "net/http/client.go", "net/ünï.py"}
	if got := paths(docs); !slices.Equal(got, want) {
		t.Errorf("paths %q, want %q", got, want)
	}
	for _, d := range docs {
		repo, _, deep := strings.Cut(d.Path, "/")
		if !deep {
			repo = "library"
		}
		if d.Repository != repo {
			t.Errorf("%s: repository %q, want %q", d.Path, d.Repository, repo)
		}
	}
	if got, want := fmt.Sprint(s.Skipped()), fmt.Sprint(map[string]int{skipBinary: 1, skipUTF8: 1, skipLarge: 1, skipSymlink: 1}); got != want {
		t.Errorf("skipped %s, want %s", got, want)
	}
	if got := paths(readAll(t, open(t, Options{Languages: []string{"golang", "markdown"}}, root))); !slices.Equal(got, []string{"README.md", "gen/keep.go", "main.go", "net/http/client.go"}) {
		t.Errorf("go and markdown: %q", got)
	}
	checkResume(t, "folder", s)
}

func TestSpecErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"mixed/a.go":       "package a\n",
		"mixed/b.parquet":  "",
		"both/a.jsonl":     "",
		"both/b.parquet":   "",
		"empty/readme.xyz": "",
		"x.csv":            "",
		"py/a.py":          "",
	})
	for _, c := range []struct {
		opts Options
		spec string
		want string
	}{
		{Options{}, "none.parquet", "none.parquet: no such file"},
		{Options{}, "none*.parquet", "no file matches"},
		{Options{}, "mixed", "choose with format folder or parquet"},
		{Options{}, "both", "choose with format parquet or jsonl"},
		{Options{}, "empty", "no source file of a known language"},
		{Options{}, "x.csv", "neither .parquet nor .jsonl"},
		{Options{Format: "folder"}, "x.csv", "not a folder"},
		{Options{Format: "jsonl"}, "py", "holds no jsonl file"},
		{Options{Format: "csv"}, "py", `format "csv": expected auto, parquet, jsonl or folder`},
		{Options{Languages: []string{"ruby"}}, "py", "no file of language ruby"},
		{Options{MaxDocuments: -1}, "py", "at most -1 documents"},
	} {
		c.opts.Logger = quiet
		if _, err := Open(context.Background(), c.opts, filepath.Join(dir, c.spec)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.spec, err, c.want)
		}
	}
	if _, err := Open(context.Background(), Options{}); err == nil {
		t.Error("no source: no error")
	}
}

// TestWildmatch holds cases of git's own test t3070-wildmatch by meaning.
func TestWildmatch(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"foo", "foo", true}, {"*", "foo", true}, {"*f", "foo", false}, {"*foo*", "foo", true}, {"*ob*a*r*", "foobar", true},
		{"f?o", "foo", true}, {"f\\*", "f*", true}, {"f\\*", "foo", false}, {"*", "a/b", false}, {"**", "a/b", true},
		{"**/foo", "foo", true}, {"**/foo", "a/b/foo", true}, {"foo/**", "foo/a/b", true}, {"foo/**", "foo", false},
		{"foo/**/bar", "foo/bar", true}, {"foo/**/bar", "foo/x/y/bar", true}, {"foo/**/bar", "foo/xbar", false}, {"foo**bar", "foo/bar", false},
		{"[a-c]x", "bx", true}, {"[!a-c]x", "bx", false}, {"[^a-c]x", "dx", true}, {"[]]", "]", true}, {"[a", "[a", false},
		{"[[:digit:]]", "5", true}, {"[[:nope:]]", "5", false}, {"[\\]]", "]", true}, {"a[/]b", "a/b", false}, {"[a-]", "-", true}, {"foo\\", "foo\\", false},
	} {
		if got := wildmatch(c.pattern, c.text); got != c.want {
			t.Errorf("wildmatch(%q, %q) = %v", c.pattern, c.text, got)
		}
	}
}

// TestAgainstGit compares the matcher with git check-ignore on random trees and rules.
func TestAgainstGit(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed, so there is nothing to compare the ignore rules with")
	}
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(l ...string) string { return l[r.IntN(len(l))] }
	element := func() string {
		return pick("a", "b", "ab", "a.go", "b.py", "*", "a*", "*.go", "?", "[ab]", "[!a]", "**", "\\a", "*.p?", "b ", "a\\ ", "[a-b].*", "a**")
	}
	compared := 0
	for range 25 {
		root := t.TempDir()
		run := func(stdin string, args ...string) string {
			cmd := exec.Command(git, append([]string{"-C", root, "-c", "core.excludesFile=/dev/null"}, args...)...)
			cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
			cmd.Stdin = strings.NewReader(stdin)
			out, err := cmd.Output()
			if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() > 1 || err != nil && !ok {
				t.Fatalf("git %v: %v", args, err)
			}
			return string(out)
		}
		run("", "init", "-q")
		files := map[string]string{}
		var names []string
		for range 40 {
			var parts []string
			for range r.IntN(3) {
				parts = append(parts, pick("a", "b", "ab", "c"))
			}
			name := strings.Join(append(parts, pick("a.go", "b.py", "x.go", "ab.rb", "b.go")), "/")
			if _, dup := files[name]; !dup {
				files[name] = "text\n"
				names = append(names, name)
			}
		}
		for range 3 {
			var rules strings.Builder
			for range 1 + r.IntN(5) {
				rule := element()
				for range r.IntN(3) {
					rule += "/" + element()
				}
				rules.WriteString(pick("", "", "!") + pick("", "", "/") + rule + pick("", "", "/") + pick("", "", " ", "\r") + "\n")
			}
			files[pick("", "a/", "b/", "a/b/")+".gitignore"] = rules.String()
		}
		write(t, root, files)
		ignored := map[string]bool{}
		for line := range strings.SplitSeq(run(strings.Join(names, "\n")+"\n", "check-ignore", "--no-index", "--stdin"), "\n") {
			ignored[line] = true
		}
		var want []string
		for _, n := range names {
			if !ignored[n] {
				want = append(want, n)
			}
		}
		slices.Sort(want)
		var got []string
		s, err := Open(context.Background(), Options{Logger: quiet, Format: FormatFolder}, root)
		if err == nil {
			got = paths(readAll(t, s))
		} else if !strings.Contains(err.Error(), "holds no") {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("rules %q:\n got %q\nwant %q", files, got, want)
		}
		compared += len(names)
		// From inside the tree the rules above hold too.
		if _, err := os.Stat(filepath.Join(root, "a")); err == nil {
			var below []string
			for _, w := range want {
				if rest, ok := strings.CutPrefix(w, "a/"); ok {
					below = append(below, rest)
				}
			}
			s, err := Open(context.Background(), Options{Logger: quiet, Format: FormatFolder}, filepath.Join(root, "a"))
			if err == nil {
				// A folder that git ignores as a whole is read when it is named itself.
				if got := paths(readAll(t, s)); len(below) > 0 && !slices.Equal(got, below) {
					t.Errorf("rules %q:\nbelow a got %q\nwant %q", files, got, below)
				}
			} else if len(below) > 0 {
				t.Error(err)
			}
		}
	}
	if compared < 500 {
		t.Errorf("only %d paths compared", compared)
	}
}

// FuzzGitignore looks for panics and endless matching in the rule parser and matcher.
func FuzzGitignore(f *testing.F) {
	f.Add("*.go\n!a/**/b\n[a-z]/\\#\n", "a/b/c.go")
	f.Add("**/**/**/**a*a*a*a*a*a*b", strings.Repeat("a/", 200))
	f.Fuzz(func(t *testing.T, rules, path string) {
		file := ignoreFile{rules: parseIgnore([]byte(rules))}
		if len(file.rules) > 100 {
			return
		}
		file.match(path, true)
		file.match(path, false)
	})
}

func TestJSONLProperty(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		texts := rapid.SliceOfN(rapid.String(), 1, 20).Draw(rt, "texts")
		var b strings.Builder
		for i, s := range texts {
			b.WriteString(jsonLine(map[string]any{"content": s, "repository": fmt.Sprint("r", i), "path": "x.py"}))
			if rapid.Bool().Draw(rt, "blank") {
				b.WriteString("\n \r\n")
			}
			b.WriteString("\n")
		}
		name := filepath.Join(dir, "x.jsonl")
		if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
			rt.Fatal(err)
		}
		s := open(t, Options{}, name)
		docs := readAll(t, s)
		if len(docs) != len(texts) {
			rt.Fatalf("%d documents of %d", len(docs), len(texts))
		}
		for i, d := range docs {
			if d.Content != texts[i] || d.Repository != fmt.Sprint("r", i) || d.Language != "python" {
				rt.Fatalf("document %d: %+v, want %q", i, d, texts[i])
			}
		}
	})
}
