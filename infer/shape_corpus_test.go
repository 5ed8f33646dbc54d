package infer

import (
	"crypto/sha256"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"autodev/internal/edits"
	"autodev/internal/sharedtest"
)

// cut is a place in a real file: the text from the cursor to end is what a completion is to be.
type cut struct {
	kind        string
	cursor, end int
}

// goCuts returns statements, declarations and blocks of a Go file, by the compiler's parser.
func goCuts(text string) []cut {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "x.go", text, parser.ParseComments)
	if err != nil {
		return nil
	}
	var cuts []cut
	at := func(p token.Pos) int { return set.PositionFor(p, false).Offset }
	add := func(kind string, from, to token.Pos) {
		cuts = append(cuts, cut{kind, at(from), at(to)})
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			add("declaration", n.Pos(), n.End())
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt, *ast.SwitchStmt:
			add("statement with a block", n.Pos(), n.End())
		case *ast.AssignStmt, *ast.ReturnStmt, *ast.ExprStmt:
			add("statement", n.Pos(), n.End())
		case *ast.BlockStmt:
			if len(n.List) > 0 {
				add("body", n.List[0].Pos(), n.List[len(n.List)-1].End())
				add("body with bracket", n.List[0].Pos(), n.End())
				add("from the bracket on", n.Lbrace+1, n.End())
			}
		}
		return true
	})
	return cuts
}

// pythonCuts returns statements and blocks of the corpus's Python files, by Python's own parser.
func pythonCuts(t *testing.T) func(text string) []cut {
	t.Helper()
	golden, err := os.ReadFile("testdata/python_blocks.tsv")
	if err != nil {
		t.Fatal(err)
	}
	byFile := map[string][]cut{}
	for row := range strings.Lines(string(golden)) {
		f := strings.Split(strings.TrimSuffix(row, "\n"), "\t")
		from, err := strconv.Atoi(f[2])
		if err != nil {
			t.Fatal(err)
		}
		to, err := strconv.Atoi(f[3])
		if err != nil {
			t.Fatal(err)
		}
		byFile[f[0]] = append(byFile[f[0]], cut{f[1], from, to})
	}
	return func(text string) []cut {
		return byFile[fmt.Sprintf("%.8x", sha256.Sum256([]byte(text)))]
	}
}

// blockCuts returns blocks of languages whose blocks are marked by brackets or "end", by the indentation of well kept files: from a line to
// the first one at its indentation, which has to be the end of a block.
func blockCuts(text string) []cut {
	lines := strings.SplitAfter(text, "\n")
	starts := make([]int, len(lines)+1)
	for i, l := range lines {
		starts[i+1] = starts[i] + len(l)
	}
	var cuts []cut
	for i, l := range lines {
		indent, n := indentation(l)
		code := strings.TrimSpace(l)
		opens := strings.HasSuffix(code, "{") || strings.HasSuffix(code, " do") || strings.HasPrefix(code, "def ") || strings.HasPrefix(code, "if ") || strings.HasPrefix(code, "class ")
		if !opens || strings.HasPrefix(code, "}") {
			continue
		}
		first := -1
		for j := i + 1; j < len(lines); j++ {
			w, m := indentation(lines[j])
			c := strings.TrimSpace(lines[j])
			if c == "" {
				continue
			}
			if first < 0 {
				first = starts[j] + m
			}
			if w > indent {
				continue
			}
			if w < indent || c != "}" && c != "end" && c != "};" && c != "});" || first == starts[j]+m {
				break
			}
			end := starts[j] + m + len(c)
			last := len(strings.TrimRight(text[:starts[j]], " \t\n"))
			cuts = append(cuts, cut{"statement with a block", starts[i] + n, end}, cut{"body", first, last}, cut{"from the header on", starts[i] + len(strings.TrimRight(l, " \t\n")), end})
			if c == "}" || c == "end" {
				cuts = append(cuts, cut{"body with bracket", first, end})
			}
			break
		}
	}
	return cuts
}

// TestAutoLinesCorpus lets real files be the completion: the text that truly follows, to the end of the file. Auto has to end it where the
// statement or the block ends that the cursor is in, whatever the pieces are that it comes in.
func TestAutoLinesCorpus(t *testing.T) {
	dir := sharedtest.Path(t, "corpus/test")
	for _, l := range []struct {
		name, file string
		cuts       func(string) []cut
		files      int
	}{
		{"go", "a.go", goCuts, 100},
		{"java", "A.java", blockCuts, 100},
		{"javascript", "a.js", blockCuts, 100},
		{"ruby", "a.rb", blockCuts, 200},
		{"python", "a.py", pythonCuts(t), 200},
	} {
		r := rand.New(rand.NewPCG(1, 1))
		type count struct{ all, right, short, long int }
		counts := map[string]*count{}
		files, shown := 0, map[string]int{}
		err := edits.Files(t.Context(), dir, l.name, func(text string) bool {
			text = strings.ReplaceAll(text, "\r\n", "\n")
			cuts := l.cuts(text)
			if len(cuts) == 0 {
				return true
			}
			files++
			for range min(20, len(cuts)) {
				c := cuts[r.IntN(len(cuts))]
				line := text[c.cursor-len(lastLine(text[:c.cursor])) : c.cursor]
				from := strings.Contains(c.kind, " on")
				if (!from && !blank(line)) || !blank(firstLine(text[c.end:])) || c.end-c.cursor > 4000 {
					continue
				}
				p := Prompt{Prefix: text[:c.cursor], Suffix: text[c.end:], Filename: l.file}
				got, _ := shapeText(Shape{Lines: AutoLines}, p, text[c.cursor:], 7)
				want := text[c.cursor:c.end]
				n := counts[c.kind]
				if n == nil {
					n = &count{}
					counts[c.kind] = n
				}
				n.all++
				switch {
				case got == want:
					n.right++
				case len(got) < len(want):
					n.short++
				default:
					n.long++
				}
				if got != want && shown[c.kind] < 4 && testing.Verbose() {
					shown[c.kind]++
					fmt.Printf("=== %s %s\n…%s|\n--- want\n%s\n--- got\n%s\n--- suffix\n%s\n", l.name, c.kind, tail(p.Prefix, 200), want, got, p.Suffix[:min(len(p.Suffix), 100)])
				}
			}
			return files < l.files
		})
		if err != nil {
			t.Fatal(err)
		}
		for kind, n := range counts {
			t.Logf("%s, %s: %d of %d right (%.1f %%), %d short, %d long", l.name, kind, n.right, n.all, 100*float64(n.right)/float64(n.all), n.short, n.long)
			if n.all < 90 || float64(n.right) < 0.98*float64(n.all) {
				t.Errorf("%s, %s: %d of %d right, expected 98 %% of at least 90", l.name, kind, n.right, n.all)
			}
		}
	}
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// shapeText brings text through a Shape in pieces of n bytes and returns what is shown.
func shapeText(s Shape, p Prompt, text string, n int) (string, StopRule) {
	x := newShaper(s, p)
	if x == nil {
		return text, ""
	}
	var b strings.Builder
	for text != "" && !x.ended {
		k := min(n, len(text))
		b.WriteString(x.push(text[:k]))
		text = text[k:]
	}
	if !x.ended {
		b.WriteString(x.flush())
	}
	return b.String(), x.rule
}

// TestNoOverlapCorpus takes pieces out of real files. What was taken out, as a completion that ends by itself, has to stay whole; and
// where it runs on into the rest of the file, it has to end where it met that.
func TestNoOverlapCorpus(t *testing.T) {
	dir := sharedtest.Path(t, "corpus/test")
	for _, l := range []struct {
		name, file string
	}{{"go", "a.go"}, {"java", "A.java"}, {"javascript", "a.js"}, {"ruby", "a.rb"}, {"python", "a.py"}} {
		r := rand.New(rand.NewPCG(2, 2))
		type count struct{ all, wrong, early, right int }
		counts := map[string]*count{}
		files, printed := 0, map[string]int{}
		err := edits.Files(t.Context(), dir, l.name, func(text string) bool {
			text = strings.ReplaceAll(text, "\r\n", "\n")
			if len(text) < 1000 {
				return true
			}
			files++
			for i := range 30 {
				c := r.IntN(len(text) - 500)
				end := c + 1 + r.IntN(400)
				kind := []string{"in a line", "to the end of a line", "whole lines"}[i%3]
				switch kind {
				case "in a line":
					n := len(firstLine(text[c:]))
					if n < 2 {
						continue
					}
					end = c + 1 + r.IntN(n-1)
				case "to the end of a line":
					end += len(firstLine(text[end:]))
				case "whole lines":
					c -= len(lastLine(text[:c]))
					end += len(firstLine(text[end:]))
				}
				p := Prompt{Prefix: text[:c], Suffix: text[end:], Filename: l.file}
				middle := text[c:end]
				if strings.TrimSpace(middle) == "" || kind != "in a line" && !within(languageOf(l.file), text, c, end) {
					continue
				}
				n := counts[kind]
				if n == nil {
					n = &count{}
					counts[kind] = n
				}
				n.all++
				got, _ := shapeText(Shape{NoOverlap: true}, p, middle, 7)
				if strings.TrimRight(got, " \t\n") != strings.TrimRight(middle, " \t\n") {
					n.wrong++
					if printed[kind] < 5 && testing.Verbose() {
						printed[kind]++
						fmt.Printf("=== %s %s\n…%s|\n--- want\n%s\n--- got\n%s\n--- suffix\n%s\n", l.name, kind, tail(p.Prefix, 100), middle, got, p.Suffix[:min(len(p.Suffix), 100)])
					}
				}
				got, _ = shapeText(Shape{NoOverlap: true}, p, text[c:min(len(text), end+1500)], 7)
				switch a, b := strings.TrimRight(got, " \t\n"), strings.TrimRight(middle, " \t\n"); {
				case a == b:
					n.right++
				case len(a) < len(b):
					n.early++
				default:
					if printed["long"]++; printed["long"] < 5 && testing.Verbose() {
						fmt.Printf("=== LONG %s %s\n…%s|\n--- want\n%s\n--- got\n%s\n--- suffix\n%s\n", l.name, kind, tail(p.Prefix, 100), middle, got[:min(len(got), len(middle)+200)], p.Suffix[:min(len(p.Suffix), 100)])
					}
				}
			}
			return files < 60
		})
		if err != nil {
			t.Fatal(err)
		}
		for kind, n := range counts {
			t.Logf("%s, %s: of %d, %d cut wrongly; running on, %.1f %% end where they meet the rest of the file, %d before", l.name, kind, n.all, n.wrong, 100*float64(n.right)/float64(n.all), n.early)
			if n.all < 200 || float64(n.wrong) > 0.01*float64(n.all) || float64(n.early) > 0.01*float64(n.all) {
				t.Errorf("%s, %s: of %d, %d and %d cut wrongly, expected 1 %% of at least 200 at most", l.name, kind, n.all, n.wrong, n.early)
			}
			if kind != "in a line" && float64(n.right) < 0.96*float64(n.all) {
				t.Errorf("%s, %s: %d of %d end where they meet the rest of the file, expected 96 %%", l.name, kind, n.right, n.all)
			}
		}
	}
}

// within says whether a piece of a file stays in the block that it begins in: it is not indented by less and closes no bracket from before.
func within(l *language, text string, from, to int) bool {
	head := lastLine(text[:from])
	lines := strings.Split(text[from:to], "\n")
	lines[0] = head + lines[0]
	x := &lexer{lang: l}
	least := -1
	for i, line := range lines {
		x.line(line, nil)
		width, n := indentation(line)
		if n == len(line) {
			continue
		}
		if least < 0 {
			least = width
		}
		if width < least || i > 0 && width == least && !blank(head) && slices.Contains(l.closes, firstWord(line[n:])) {
			return false
		}
	}
	return len(x.shut) == 0
}

// TestNoLoopsCorpus: next to nothing that people write is taken for a circle.
func TestNoLoopsCorpus(t *testing.T) {
	dir := sharedtest.Path(t, "corpus/test")
	for _, l := range edits.Languages() {
		r := rand.New(rand.NewPCG(3, 3))
		all, cuts, files := 0, 0, 0
		err := edits.Files(t.Context(), dir, l, func(text string) bool {
			files++
			for range 10 {
				from := r.IntN(len(text))
				piece := text[from:min(len(text), from+1500)]
				got, rule := shapeText(Shape{NoLoops: true}, Prompt{}, piece, 7)
				all++
				if rule != "" {
					cuts++
					if testing.Verbose() && cuts < 6 {
						fmt.Printf("=== %s\n%s\n--- cut\n%.200s\n", l, tail(got, 300), piece[len(got):])
					}
				} else if got != piece {
					t.Fatalf("no rule, but %q", piece[len(got):])
				}
			}
			return files < 200
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d of %d cut", l, cuts, all)
		if all < 1000 || cuts > all/100 {
			t.Errorf("%s: %d of %d cut, expected 1 %% of at least 1000 at most", l, cuts, all)
		}
	}
}
