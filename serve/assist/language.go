package assist

import (
	"path"
	"regexp"
	"strings"
)

// language is what prompts and results need to know of a programming language.
type language struct {
	Name  string // as people write it
	Fence string // as it stands behind a code fence
	Line  string // what begins a comment to the end of the line; "" for languages without
	Tests string // what tests are commonly written with
	Docs  string // how code is documented
	file  string // where the tests of a file are: % is its name without extension
}

var (
	cDocs   = "Doxygen comments (/** … */) above each declaration"
	anyDocs = "documentation comments in the form that the language's tools read"
)

// languages by the name that fences use.
var languages = map[string]language{
	"python":     {"Python", "python", "#", "pytest", "docstrings (PEP 257) below each definition's first line", "test_%.py"},
	"ruby":       {"Ruby", "ruby", "#", "minitest", "YARD comments above each definition", "%_test.rb"},
	"go":         {"Go", "go", "//", "the testing package", "doc comments above each declaration that begin with its name", "%_test.go"},
	"java":       {"Java", "java", "//", "JUnit 5", "Javadoc comments above each declaration", "%Test.java"},
	"kotlin":     {"Kotlin", "kotlin", "//", "JUnit 5", "KDoc comments above each declaration", "%Test.kt"},
	"scala":      {"Scala", "scala", "//", "ScalaTest", "Scaladoc comments above each declaration", "%Test.scala"},
	"javascript": {"JavaScript", "javascript", "//", "Jest", "JSDoc comments above each declaration", "%.test.js"},
	"typescript": {"TypeScript", "typescript", "//", "Jest", "TSDoc comments above each declaration", "%.test.ts"},
	"rust":       {"Rust", "rust", "//", "the built-in #[test] attribute", "/// comments above each item", "%_test.rs"},
	"c":          {"C", "c", "//", "assert.h and a main function", cDocs, "%_test.c"},
	"cpp":        {"C++", "cpp", "//", "GoogleTest", cDocs, "%_test.cpp"},
	"csharp":     {"C#", "csharp", "//", "xUnit", "XML documentation comments (///) above each declaration", "%Tests.cs"},
	"php":        {"PHP", "php", "//", "PHPUnit", "PHPDoc comments above each declaration", "%Test.php"},
	"swift":      {"Swift", "swift", "//", "XCTest", "/// comments above each declaration", "%Tests.swift"},
	"dart":       {"Dart", "dart", "//", "package:test", "/// comments above each declaration", "%_test.dart"},
	"lua":        {"Lua", "lua", "--", "busted", "LDoc comments above each function", "%_spec.lua"},
	"perl":       {"Perl", "perl", "#", "Test::More", "POD", "%.t"},
	"r":          {"R", "r", "#", "testthat", "roxygen2 comments above each function", "test-%.R"},
	"julia":      {"Julia", "julia", "#", "Test", "docstrings above each definition", "%_test.jl"},
	"haskell":    {"Haskell", "haskell", "--", "Hspec", "Haddock comments above each declaration", "%Spec.hs"},
	"elixir":     {"Elixir", "elixir", "#", "ExUnit", "@doc attributes", "%_test.exs"},
	"bash":       {"Bash", "bash", "#", "Bats", "a comment above each function", "%.bats"},
	"sql":        {"SQL", "sql", "--", "plain queries with the expected results in comments", "a comment above each statement", "%_test.sql"},
	"html":       {"HTML", "html", "", "", "comments", ""},
	"css":        {"CSS", "css", "", "", "comments", ""},
	"yaml":       {"YAML", "yaml", "#", "", "comments", ""},
	"json":       {"JSON", "json", "", "", "", ""},
	"markdown":   {"Markdown", "markdown", "", "", "", ""},
}

// extensions of files, and other names of languages, that are not their name in languages.
var extensions = map[string]string{
	"py": "python", "pyi": "python", "rb": "ruby", "rake": "ruby", "golang": "go", "kt": "kotlin", "kts": "kotlin", "js": "javascript", "mjs": "javascript",
	"jsx": "javascript", "javascriptreact": "javascript", "ts": "typescript", "tsx": "typescript", "typescriptreact": "typescript", "rs": "rust", "h": "c",
	"cc": "cpp", "cxx": "cpp", "hpp": "cpp", "hh": "cpp", "c++": "cpp", "cs": "csharp", "c#": "csharp", "pl": "perl", "pm": "perl", "jl": "julia", "hs": "haskell",
	"ex": "elixir", "exs": "elixir", "sh": "bash", "zsh": "bash", "shell": "bash", "shellscript": "bash", "htm": "html", "yml": "yaml", "md": "markdown",
}

// languageOf finds a language by its name, or by a file's extension when name is "".
func languageOf(name, file string) language {
	key := strings.ToLower(strings.TrimSpace(name))
	if key == "" {
		key = strings.ToLower(strings.TrimPrefix(path.Ext(slashed(file)), "."))
	}
	if k, ok := extensions[key]; ok {
		key = k
	}
	l, ok := languages[key]
	if !ok {
		// The word goes behind a fence and into a sentence: nothing of it may end either.
		l = language{Name: word(name), Fence: word(key), Docs: anyDocs}
	}
	if l.Docs == "" {
		l.Docs = anyDocs
	}
	return l
}

// guesses are lines by which code without a file tells its language, the surest first.
var guesses = []struct {
	language string
	line     *regexp.Regexp
}{
	{"php", regexp.MustCompile(`(?m)^\s*<\?php`)},
	{"go", regexp.MustCompile(`(?m)^(package \w+\s*$|func (\(\w+ \*?\w+\) )?\w+\(.*\{\s*$|\s*\w+ := )`)},
	{"cpp", regexp.MustCompile(`(?m)(^\s*#include <\w+>|std::|^template *<)`)},
	{"c", regexp.MustCompile(`(?m)^\s*#include [<"]`)},
	{"rust", regexp.MustCompile(`(?m)^\s*((pub(\(crate\))? )?fn \w+.*[{>)]\s*$|let mut |impl\b.*\{|use \w+::)`)},
	{"python", regexp.MustCompile(`(?m)^\s*((async )?def \w+\(.*:\s*(#.*)?$|class \w+(\(.*\))?:\s*$|from [\w.]+ import |(if|elif|for|while|with|try|except)\b.*:\s*$)`)},
	{"java", regexp.MustCompile(`(?m)^\s*(import java|(public|private|protected)( static)?( final)? [\w<>\[\], ]+ \w+ ?[({;=])`)},
	{"typescript", regexp.MustCompile(`(?m)^\s*(export )?(interface \w+ \{|type \w+ =|(const|let|function) .*: (string|number|boolean|void))`)},
	{"javascript", regexp.MustCompile(`(?m)(^\s*(export |async )*(function\b|const \w+ =|let \w+ =|var \w+ =)|=> *[{(])`)},
	{"ruby", regexp.MustCompile(`(?m)^\s*(def \w+[?!]?(\(.*\))?\s*$|require ['"]|module [A-Z]|\w.* do( \|.*\|)?\s*$)`)},
}

// guessLanguage returns the fence name of the language that code seems to be in, "" when nothing tells.
func guessLanguage(code string) string {
	for _, g := range guesses {
		if g.line.MatchString(code) {
			return g.language
		}
	}
	return ""
}

// word returns the beginning of s that is letters, digits, + # - _ and ., at most 32 bytes.
func word(s string) string {
	for i, r := range s {
		if i >= 32 || !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+#-_.", r)) {
			return s[:i]
		}
	}
	return s
}

func slashed(file string) string { return strings.ReplaceAll(file, `\`, "/") }

// testFile returns where the tests of a file are expected, beside it; "" when the language has no custom.
func (l language) testFile(file string) string {
	if l.file == "" || file == "" {
		return ""
	}
	dir, base := path.Split(slashed(file))
	return dir + strings.Replace(l.file, "%", strings.TrimSuffix(base, path.Ext(base)), 1)
}
