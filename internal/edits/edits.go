// Package edits makes edits of real files: a file as the prompt and what it is re-typed as, of the kinds that programmers ask
// for. Tests and benchmarks of speculative decoding follow them in place of a model's choices (infer.Request.Replay): they
// measure the mechanism on a model that would make the edit, not a model's ability to make it.
package edits

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"

	"autodev/data/source"
	"autodev/tokenizer"
)

// Edit is a file and what it is re-typed as.
type Edit struct {
	Kind           string // rename, comment, remove, call, move; Other
	Language       string
	Prompt, Target []int32 // at least 2 and at most 400 tokens in the target
}

// Other is the kind of a target that has nothing to do with the prompt.
const Other = "another file"

// Kinds lists those of edits.
func Kinds() []string {
	var names []string
	for _, c := range changes {
		names = append(names, c.name)
	}
	return names
}

// Languages are those of which Corpus takes files.
func Languages() []string { return []string{"python", "go", "java", "ruby"} }

// The lengths of files taken and of targets, in tokens.
const minFile, maxFile, maxTarget = 250, 900, 400

var identifier = regexp.MustCompile(`\b[A-Za-z_][A-Za-z0-9_]{3,}\b`)

// changes are kinds of edits of a whole file.
var changes = []struct {
	name, ask string
	apply     func(r *rand.Rand, text string) string
}{
	{"rename", "with a better name", func(r *rand.Rand, text string) string {
		count := map[string]int{}
		for _, name := range identifier.FindAllString(text, -1) {
			count[name]++
		}
		var names []string
		for name, n := range count {
			if n >= 4 && n <= 15 {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			return text
		}
		slices.Sort(names)
		old := names[r.IntN(len(names))]
		return regexp.MustCompile(`\b`+old+`\b`).ReplaceAllString(text, "renamed_"+strings.ToLower(old[:2]))
	}},
	{"comment", "with comments", func(r *rand.Rand, text string) string {
		var b strings.Builder
		for i, line := range strings.SplitAfter(text, "\n") {
			if i%8 == 5 {
				fmt.Fprintf(&b, "%s# step %d: see the notes of release %d\n", line[:len(line)-len(strings.TrimLeft(line, " \t"))], i/8, r.IntN(90))
			}
			b.WriteString(line)
		}
		return b.String()
	}},
	{"remove", "without what is not needed", func(r *rand.Rand, text string) string {
		lines := strings.SplitAfter(text, "\n")
		var b strings.Builder
		for i, line := range lines {
			if i%9 != 6 {
				b.WriteString(line)
			}
		}
		return b.String()
	}},
	{"call", "with logging", func(r *rand.Rand, text string) string {
		var b strings.Builder
		for i, line := range strings.SplitAfter(text, "\n") {
			if i%7 == 4 && strings.Contains(line, "(") {
				line = strings.Replace(line, "(", "(context, ", 1)
			}
			b.WriteString(line)
		}
		return b.String()
	}},
	{"move", "in another order", func(r *rand.Rand, text string) string {
		parts := strings.SplitAfter(text, "\n\n")
		r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		return strings.Join(parts, "")
	}},
}

// Corpus returns edits of the first files of each of Languages in a corpus folder, all kinds of each file after each other, and
// as many files with the next one to follow, which copy nothing. The same folder and tokenizer give the same edits.
func Corpus(ctx context.Context, tok *tokenizer.Tokenizer, dir string, files int) (edits, others []Edit, err error) {
	for _, language := range Languages() {
		r := rand.New(rand.NewPCG(1, 2))
		var last []int32
		n := 0
		err := Files(ctx, dir, language, func(text string) bool {
			ids := tok.Encode(text)
			if len(ids) < minFile || len(ids) > maxFile {
				return true
			}
			n++
			for _, c := range changes {
				changed := c.apply(r, text)
				if changed == text {
					continue
				}
				target := tok.Encode(changed)
				prompt := slices.Concat(ids, tok.Encode("\n\n# The same file, "+c.ask+":\n\n"))
				edits = append(edits, Edit{c.name, language, prompt, target[:min(len(target), maxTarget)]})
			}
			if last != nil {
				others = append(others, Edit{Other, language, last, ids[:min(len(ids), maxTarget)]})
			}
			last = ids
			return n < files
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return edits, others, nil
}

// Files calls yield with the text of every file of a language in a corpus folder, in the folder's order, until yield returns
// false.
func Files(ctx context.Context, dir, language string, yield func(text string) bool) error {
	s, err := source.Open(ctx, source.Options{Languages: []string{language}}, dir)
	if err != nil {
		return err
	}
	for unit := range s.Units() {
		r, err := s.OpenUnit(ctx, unit, 0)
		if err != nil {
			return err
		}
		for {
			d, _, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return errors.Join(err, r.Close())
			}
			if !yield(d.Content) {
				return r.Close()
			}
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}
