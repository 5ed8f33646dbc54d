package infer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"autodev/data"
	"autodev/data/source"
	"autodev/infer/infertest"
	"autodev/internal/sharedtest"
	"autodev/tokenizer"
)

// edit is a file and what it is re-typed as. The tests that use it follow the text in place of a model's choices
// (Request.Replay): they measure the mechanism on a model that would make this edit, not a model's ability to make it.
type edit struct {
	name           string
	prompt, target []int32
}

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

// corpusEdits returns edits of files of the corpus's test part, and as many files with another to follow, which copy nothing.
func corpusEdits(t testing.TB, files int) (edits, others []edit) {
	t.Helper()
	tok, err := tokenizer.Load(sharedtest.Path(t, "tokenizers/santacoder"))
	if err != nil {
		t.Fatal(err)
	}
	for _, language := range []string{"python", "go", "java", "ruby"} {
		s, err := source.Open(t.Context(), source.Options{Languages: []string{language}}, sharedtest.Path(t, "corpus/test"))
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(1, 2))
		var last []int32
		n := 0
		for d := range documents(t, s) {
			if n == files {
				break
			}
			ids := tok.Encode(d.Content)
			if len(ids) < 250 || len(ids) > 900 {
				continue
			}
			n++
			for _, c := range changes {
				changed := c.apply(r, d.Content)
				if changed == d.Content {
					continue
				}
				target := tok.Encode(changed)
				edits = append(edits, edit{c.name, slices.Concat(ids, tok.Encode("\n\n# The same file, "+c.ask+":\n\n")), target[:min(len(target), 400)]})
			}
			if last != nil {
				others = append(others, edit{"another file", last, ids[:min(len(ids), 400)]})
			}
			last = ids
		}
	}
	return edits, others
}

// documents yields the documents of all units.
func documents(t testing.TB, s data.Source) func(func(data.Document) bool) {
	return func(yield func(data.Document) bool) {
		for unit := range s.Units() {
			r, err := s.OpenUnit(context.Background(), unit, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for {
				d, _, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if !yield(d) {
					return
				}
			}
		}
	}
}

// follow counts the passes that a completion of e's target takes when a pass of n tokens costs cost(n), and the sum of their
// costs. What is measured of them is now and then several times as long.
func follow(learnt *speculation, e edit, cost func(n int) float64, noise *rand.Rand) (passes, drafted, accepted int, total float64) {
	d := newDrafter(learnt, nil, e.prompt, len(e.target), false)
	d.push(e.target[0])
	for i := 0; i+1 < len(e.target); {
		draft := d.draft(len(e.target) - i - 2)
		right := common(draft, e.target[i+1:])
		passes, drafted, accepted = passes+1, drafted+len(draft), accepted+right
		total += cost(1 + len(draft))
		measured := cost(1 + len(draft))
		if noise.IntN(3) == 0 {
			measured *= 1 + 3*noise.Float64()
		}
		learnt.timed(1+len(draft), time.Duration(measured*float64(time.Second)))
		if len(draft) > 0 {
			d.judged(len(draft), right)
		}
		for _, id := range e.target[i+1 : i+2+right] {
			d.push(id)
		}
		i += 1 + right
	}
	return passes, drafted, accepted, total
}

// TestEdits: on edits of real files most guesses are right and a model whose passes are bound by reading weights writes at least
// four times as fast; where nothing is copied, or passes cost what their tokens cost alone, guessing loses next to nothing.
func TestEdits(t *testing.T) {
	edits, others := corpusEdits(t, 12)
	for _, model := range []struct {
		name             string
		perToken         float64 // of another token in a pass, in passes of one
		least, leastElse float64 // times as fast on edits and on others
	}{
		{"bound by weights", 0.02, 4, 1.1},
		{"between", 0.2, 2, 1},
		{"bound by arithmetic", 1, 0.98, 0.97},
	} {
		cost := func(n int) float64 { return 1 + model.perToken*float64(n-1) }
		var learnt speculation
		noise := rand.New(rand.NewPCG(5, 5))
		type sums struct{ files, tokens, passes, drafted, accepted, cost float64 }
		byKind := map[string]*sums{}
		all := func(name string, edits []edit) float64 {
			total := &sums{}
			for _, e := range edits {
				passes, drafted, accepted, c := follow(&learnt, e, cost, noise)
				if byKind[e.name] == nil {
					byKind[e.name] = &sums{}
				}
				for _, s := range []*sums{byKind[e.name], total} {
					s.files++
					s.tokens += float64(len(e.target) - 1)
					s.passes += float64(passes)
					s.drafted += float64(drafted)
					s.accepted += float64(accepted)
					s.cost += c
				}
			}
			byKind[name] = total
			return total.tokens / total.cost
		}
		faster, fasterElse := all("all edits", edits), all("another file", others)
		for _, name := range []string{"rename", "comment", "remove", "call", "move", "all edits", "another file"} {
			s := byKind[name]
			t.Logf("%s, %s: %.0f completions, %.1f tokens a pass, %.0f %% of %.0f guesses right, %.2f times as fast",
				model.name, name, s.files, s.tokens/s.passes, 100*s.accepted/max(1, s.drafted), s.drafted, s.tokens/s.cost)
		}
		if faster < model.least || fasterElse < model.leastElse {
			t.Errorf("%s: edits %.2f times as fast, others %.2f; expected at least %v and %v", model.name, faster, fasterElse, model.least, model.leastElse)
		}
	}
}

// BenchmarkEdit decodes edits of real files, followed in place of the choices of a model of random weights, without and with
// guesses.
func BenchmarkEdit(b *testing.B) {
	edits, _ := corpusEdits(b, 2)
	c := infertest.Config(49280)
	c.Positions, c.Embed, c.Layers, c.Heads, c.Inner, c.InitStd = 2048, 768, 12, 12, 3072, 0.02
	ckpt := infertest.Checkpoint(c)
	for _, weights := range []Weights{Float32, Int8} {
		m, err := New(ckpt, nil, Options{Weights: weights})
		if err != nil {
			b.Fatal(err)
		}
		for name, how := range map[string]Speculate{"off": SpeculateOff, "auto": SpeculateAuto} {
			b.Run(string(weights)+"/"+name, func(b *testing.B) {
				var tokens, drafted, accepted int
				var spent time.Duration
				for i := 0; b.Loop(); i++ {
					e := edits[i%len(edits)]
					res, err := m.Generate(context.Background(), Request{Prompt: Prompt{IDs: e.prompt}, MaxTokens: 200, Replay: e.target, Speculate: how}, nil)
					if err != nil {
						b.Fatal(err)
					}
					tokens, drafted, accepted, spent = tokens+len(res.IDs), drafted+res.Drafted, accepted+res.Accepted, spent+res.Timings.Decode
				}
				b.ReportMetric(float64(tokens)/spent.Seconds(), "tokens/s")
				b.ReportMetric(float64(accepted)/float64(max(1, drafted)), "right/guess")
				b.ReportMetric(float64(accepted)/float64(tokens), "right/token")
			})
		}
		m.Close()
	}
}
