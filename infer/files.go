package infer

import (
	"slices"
	"strings"

	"autodev/tokenizer"
)

// fileFormat is how a model has seen several files of a repository one after the other.
type fileFormat struct {
	lang      *language // of the comments that hold them, for models without tokens for that; else nil
	sep, repo int32     // in front of a file, and of a repository's name; −1: none
	newline   bool      // between all parts
	inside    bool      // the path of the file with the cursor stands behind the token of the prefix, not before it
}

// formatOf returns the format of a vocabulary: StarCoder's <reponame>R<filename>path⏎code, StarCoder2's <repo_name>R<file_sep>path⏎code
// with <file_sep><fim_prefix>path⏎prefix at the end (Lozhkov et al. 2024, section 5.1), Qwen2.5-Coder's <|repo_name|>R⏎<|file_sep|>path⏎code⏎
// with <|file_sep|>path⏎<|fim_prefix|>prefix (its repository's examples); else comments.
func formatOf(tok *tokenizer.Tokenizer, lang *language) fileFormat {
	for _, f := range []struct {
		sep, repo       string
		newline, inside bool
	}{{"<|file_sep|>", "<|repo_name|>", true, false}, {"<file_sep>", "<repo_name>", false, true}, {"<filename>", "<reponame>", false, false}} {
		sep, ok := tok.ID(f.sep)
		if !ok || !tok.IsSpecial(sep) {
			continue
		}
		repo, ok := tok.ID(f.repo)
		if !ok {
			repo = -1
		}
		return fileFormat{sep: sep, repo: repo, newline: f.newline, inside: f.inside}
	}
	return fileFormat{lang: lang, sep: -1, repo: -1}
}

// framing is what a prompt has around the text next to the cursor.
type framing struct {
	front []int32 // before everything
	files []int32 // behind that, or with comments at the beginning of the prefix
	path  []int32 // of the file with the cursor: the end of front
	lead  []int32 // the same at the beginning of the prefix
}

func (f *framing) len() int { return len(f.front) + len(f.files) + len(f.path) + len(f.lead) }

// frame returns what p's names ask for, without the other files.
func (p Prompt) frame(tok *tokenizer.Tokenizer, f fileFormat, fim bool) framing {
	var out framing
	name := flat(p.Filename)
	switch {
	case f.lang != nil:
		if name != "" && len(p.Files) > 0 {
			out.lead = tok.Encode(f.lang.note("Path: "+name) + "\n")
		}
		return out
	case p.Repository != "" && f.repo >= 0:
		end := ""
		if f.newline {
			end = "\n"
		}
		out.front = append([]int32{f.repo}, tok.Encode(flat(p.Repository)+end)...)
	}
	switch {
	case name == "" && len(p.Files) == 0:
	case f.inside && fim && name != "":
		out.path, out.lead = []int32{f.sep}, tok.Encode(name+"\n")
	case name != "":
		out.path = append([]int32{f.sep}, tok.Encode(name+"\n")...)
	default:
		out.path = []int32{f.sep}
	}
	return out
}

// leastFile is the number of tokens below which a part of a file says nothing.
const leastFile = 24

// encodeFiles returns the tokens of files, the most relevant last, as far as they fit into n: the least relevant are left out, and of the
// last that fits only the beginning may be there.
func (f fileFormat) encodeFiles(tok *tokenizer.Tokenizer, files []File, n int) []int32 {
	var parts [][]int32
	for _, file := range files {
		if n < leastFile {
			break
		}
		text := strings.TrimRight(strings.ReplaceAll(file.Text, "\r\n", "\n"), "\n")
		if text == "" {
			continue
		}
		sep := 1
		if f.lang != nil {
			sep = 0
		}
		text = text[:min(len(text), 8*n)] // more cannot matter
		text = f.render(flat(file.Name), text)
		c := newClip(tok, text, n, true)
		whole := len(c.ids)+sep <= n && !c.cut
		if c.fit(n - sep); len(c.ids) == 0 || !whole && len(c.ids) < leastFile {
			break
		}
		ids := c.ids
		if sep > 0 {
			ids = append([]int32{f.sep}, ids...)
		}
		parts = append(parts, ids)
		if n -= len(ids); !whole {
			break
		}
	}
	slices.Reverse(parts)
	return join(parts...)
}

// render returns a file as it stands behind its separator.
func (f fileFormat) render(name, text string) string {
	if f.lang == nil {
		if name != "" {
			text = name + "\n" + text
		}
		if f.newline {
			text += "\n"
		}
		return text
	}
	var b strings.Builder
	if name != "" {
		b.WriteString(f.lang.note("Path: "+name) + "\n")
	}
	for l := range strings.SplitSeq(text, "\n") {
		b.WriteString(f.lang.note(l) + "\n")
	}
	b.WriteByte('\n')
	return b.String()
}

// note returns a line as a comment.
func (l *language) note(s string) string {
	switch {
	case l.comment != "":
		return strings.TrimRight(l.comment+" "+s, " ")
	case l.block[0] != "":
		return l.block[0] + " " + s + " " + l.block[1]
	}
	return strings.TrimRight("# "+s, " ")
}

// flat returns s without newlines.
func flat(s string) string { return strings.NewReplacer("\n", " ", "\r", " ").Replace(s) }
