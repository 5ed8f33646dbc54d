package infer

import (
	"path"
	"strings"
)

// language is what the rules for completions need to know of a programming language.
type language struct {
	comment string    // begins a comment that the line ends; "" when not known
	block   [2]string // begins and ends a comment of any length; may be empty
	quotes  []quote   // longer ones first
	style   style
	// follow are the first words of lines that go on with the block before them at the same indentation.
	follow []string
	// closes are the words at the end of a block of the style ended.
	closes []string
	// opens are the first words, and doing the last ones, of lines that open such a block.
	opens, doing []string
	slashed      bool // regular expressions stand between slashes
	// newline says that a line with closed brackets that ends in no operator is a statement.
	newline bool
}

// quote is a kind of string literal.
type quote struct {
	open, close string
	lines       bool // may span lines
	raw         bool // a backslash is itself
	char        bool // one character: else it is something else, such as a lifetime
}

// style is how a language marks blocks.
type style uint8

const (
	anyStyle style = iota // not known
	indented              // by indentation alone
	braced                // by brackets
	ended                 // by a keyword at their end
)

var (
	double   = quote{open: `"`, close: `"`}
	single   = quote{open: `'`, close: `'`}
	char     = quote{open: `'`, close: `'`, char: true}
	backtick = quote{open: "`", close: "`", lines: true}

	endWord   = []string{"end"}
	elseWords = []string{"else", "elif", "elsif", "elseif", "catch", "except", "finally", "rescue", "ensure", "then"}

	anyLanguage = &language{closes: endWord, quotes: []quote{double, char}, follow: elseWords, opens: []string{"def"}, doing: []string{"do", "then"}}
	python      = &language{comment: "#", style: indented, newline: true, follow: []string{"else", "elif", "except", "finally"},
		quotes: []quote{{open: `"""`, close: `"""`, lines: true}, {open: `'''`, close: `'''`, lines: true}, double, single}}
	ruby = &language{comment: "#", slashed: true, style: ended, closes: endWord, quotes: []quote{double, single},
		follow: []string{"else", "elsif", "rescue", "ensure", "when", "in"}, doing: []string{"do"},
		opens: []string{"def", "class", "module", "if", "unless", "while", "until", "for", "case", "begin"}}
	lua = &language{comment: "--", block: [2]string{"--[[", "]]"}, style: ended, closes: []string{"end", "until"}, quotes: []quote{{open: "[[", close: "]]", lines: true, raw: true}, double, single},
		follow: []string{"else", "elseif"}, opens: []string{"function", "local function", "if", "for", "while", "repeat"}, doing: []string{"do", "then"}}
	julia = &language{comment: "#", style: ended, closes: endWord, quotes: []quote{{open: `"""`, close: `"""`, lines: true}, double, char},
		follow: []string{"else", "elseif", "catch", "finally"}, doing: []string{"do"},
		opens: []string{"function", "if", "for", "while", "begin", "struct", "mutable", "module", "let", "try", "macro", "quote"}}
	shell = &language{comment: "#", style: ended, closes: []string{"fi", "done", "esac"}, quotes: []quote{double, {open: `'`, close: `'`, raw: true, lines: true}},
		follow: []string{"else", "elif", "do", "then"}, opens: []string{"if", "for", "while", "until", "case"}, doing: []string{"do", "then"}}
	elixir = &language{comment: "#", style: ended, closes: endWord, quotes: []quote{{open: `"""`, close: `"""`, lines: true}, double},
		follow: []string{"else", "rescue", "catch", "after"}, doing: []string{"do"}}
	c          = slashes(braced, double, char)
	java       = slashes(braced, quote{open: `"""`, close: `"""`, lines: true}, double, char)
	javascript = withSlashes(slashes(braced, backtick, double, single))
	golang     = withNewline(slashes(braced, quote{open: "`", close: "`", lines: true, raw: true}, double, char))
	kotlin     = slashes(braced, quote{open: `"""`, close: `"""`, lines: true, raw: true}, double, char)
	php        = slashes(braced, double, single)
	perl       = &language{comment: "#", style: braced, quotes: []quote{double, single}, follow: []string{"else", "elsif"}}
	hashed     = &language{comment: "#", quotes: []quote{double, single}}
	sql        = &language{comment: "--", block: [2]string{"/*", "*/"}, quotes: []quote{{open: `'`, close: `'`, raw: true}, double}}
	haskell    = &language{comment: "--", block: [2]string{"{-", "-}"}, style: indented, quotes: []quote{double}}
	lisp       = &language{comment: ";", style: braced, quotes: []quote{double}}
	css        = &language{block: [2]string{"/*", "*/"}, style: braced, quotes: []quote{double, single}}
	markup     = &language{block: [2]string{"<!--", "-->"}}
	tex        = &language{comment: "%"}
)

func slashes(s style, quotes ...quote) *language {
	return &language{comment: "//", block: [2]string{"/*", "*/"}, style: s, quotes: quotes, follow: []string{"else", "catch", "finally", "while"}}
}

func withSlashes(l *language) *language {
	l.slashed = true
	return l
}

func withNewline(l *language) *language {
	l.newline = true
	return l
}

// languages are known by the end of a file's name.
var languages = map[string]*language{
	".py": python, ".pyi": python, ".pyx": python, ".bzl": python, ".gd": python, ".nim": python, ".coffee": python,
	".rb": ruby, ".rake": ruby, ".gemspec": ruby, ".cr": ruby, ".lua": lua, ".jl": julia, ".sh": shell, ".bash": shell, ".zsh": shell,
	".ex": elixir, ".exs": elixir,
	".c": c, ".h": c, ".cc": c, ".cpp": c, ".cxx": c, ".hh": c, ".hpp": c, ".hxx": c, ".cu": c, ".cuh": c, ".m": c, ".mm": c, ".cs": java, ".rs": c, ".zig": c,
	".glsl": c, ".proto": c, ".d": c, ".java": java, ".swift": java, ".groovy": java, ".gradle": java, ".kt": kotlin, ".kts": kotlin, ".scala": kotlin,
	".js": javascript, ".jsx": javascript, ".mjs": javascript, ".cjs": javascript, ".ts": javascript, ".tsx": javascript, ".mts": javascript, ".cts": javascript,
	".dart": javascript, ".vue": javascript, ".svelte": javascript, ".go": golang, ".php": php,
	".yaml": hashed, ".yml": hashed, ".toml": hashed, ".r": hashed, ".pl": perl, ".pm": perl, ".tf": hashed, ".cmake": hashed, ".ps1": hashed, ".mk": hashed, ".dockerfile": hashed,
	".sql": sql, ".hs": haskell, ".elm": haskell, ".lisp": lisp, ".el": lisp, ".clj": lisp, ".scm": lisp, ".css": css, ".scss": css, ".less": css,
	".html": markup, ".htm": markup, ".xml": markup, ".md": markup, ".tex": tex, ".erl": tex,
}

// languageOf tells the language from a file's name, anyLanguage when it is not known.
func languageOf(filename string) *language {
	name := strings.ToLower(path.Base(strings.ReplaceAll(filename, `\`, "/")))
	if l := languages[path.Ext(name)]; l != nil {
		return l
	}
	switch name {
	case "rakefile", "gemfile":
		return ruby
	case "makefile", "dockerfile", "cmakelists.txt":
		return hashed
	}
	return anyLanguage
}
