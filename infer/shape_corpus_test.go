package infer

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
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
		}
	}
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// shapeText brings text through a Shape in pieces of n bytes and returns what is shown.
func shapeText(s Shape, p Prompt, text string, n int) (string, StopRule) {
	x := newShaper(s, p)
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
