package typing

import (
	"embed"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"autodev/internal/rng"
)

// TraceOptions say how traces are made.
type TraceOptions struct {
	Seed  uint64
	Lines int // written in the first of two places of each file; half as many in the second
	// Accept has the scripted suggestions taken, as a user would: most of those that are what is typed next, when they were waited for.
	Accept bool
	// Known is the share of lines that the scripted model knows from their beginning; others it knows from a place in them that is as likely as
	// any other.
	Known float64
}

// Sizes of files that traces are made of, in bytes: they fit into a context of 2,048 tokens.
const minFile, maxFile = 1500, 4500

// Times and habits, after studies of typing: intervals are distributed log-normally.
const (
	key        = 160 * time.Millisecond // median interval
	keySpread  = 0.45                   // of its logarithm
	afterWord  = 1.5                    // times as long
	afterLine  = 2.5
	reading    = 600 * time.Millisecond // a suggestion, before going on
	readSpread = 0.4
	finding    = 1500 * time.Millisecond // another place in the file
	mistakes   = 0.02                    // a keystroke
	takes      = 0.8                     // of right suggestions that were waited for
	// waits is the share of keystrokes after which the user waits for a suggestion. It is the same everywhere, so that the times are those of a
	// sample of all keystrokes, none of them cut off by the next.
	waits = 0.15
)

// Make returns a trace for each of the texts that is suited to it.
func Make(texts []string, o TraceOptions) []Trace {
	var traces []Trace
	for i, text := range texts {
		if t, ok := makeTrace(text, uint64(i), o); ok {
			t.Name = fmt.Sprintf("file %d", i)
			traces = append(traces, t)
		}
	}
	return traces
}

// typist writes a trace.
type typist struct {
	r      *rand.Rand
	o      TraceOptions
	doc    document
	trace  Trace
	lines  []string // of the file, to be wrong with
	last   rune
	waited bool
}

// makeTrace takes two pieces out of a text and has them typed again: half of the first, the second, the rest of the first.
func makeTrace(text string, index uint64, o TraceOptions) (Trace, bool) {
	if len(text) < minFile || len(text) > maxFile || !utf8.ValidString(text) || strings.Contains(text, "\r") {
		return Trace{}, false
	}
	lines := strings.SplitAfter(text, "\n")
	first, second := o.Lines, max(1, o.Lines/2)
	spare := len(lines) - first - second - 12
	if spare < 12 {
		return Trace{}, false
	}
	t := &typist{r: rng.New(o.Seed, "typing/trace", index), o: o}
	var a, b int
	var one, two string
	piece := func(from, n int) (string, bool) {
		s := strings.TrimSuffix(strings.Join(lines[from:from+n], ""), "\n")
		return s, strings.TrimSpace(lines[from]) != "" && strings.TrimSpace(lines[from+n-1]) != ""
	}
	// Pieces begin and end with lines that are not empty.
	for tries, ok := 0, false; !ok; tries++ {
		if tries == 100 {
			return Trace{}, false
		}
		a = 4 + t.r.IntN(spare/2)
		b = a + first + 4 + t.r.IntN(spare/2)
		var also bool
		one, ok = piece(a, first)
		two, also = piece(b, second)
		ok = ok && also
	}
	before, between, after := strings.Join(lines[:a], ""), "\n"+strings.Join(lines[a+first:b], ""), "\n"+strings.Join(lines[b+second:], "")
	for _, l := range lines {
		if l = strings.TrimSpace(l); len(l) > 3 {
			t.lines = append(t.lines, l)
		}
	}
	t.doc = document{before + between + after, len(before)}
	t.trace.Text, t.trace.Cursor = t.doc.text, t.doc.cursor
	typed := strings.SplitAfter(one, "\n")
	half := strings.TrimSuffix(strings.Join(typed[:len(typed)/2], ""), "\n")
	t.write(half, false)
	t.jump(len(t.doc.text) - len(after))
	t.write(two, false)
	t.jump(len(before) + len(half))
	t.write(strings.Join(typed[len(typed)/2:], ""), half != "")
	return t.trace, true
}

// line is one that is typed.
type line struct {
	indent, body string
	known        int    // bytes of body after which the model knows the rest
	wrong        string // what it suggests before
}

func (t *typist) line(text string) line {
	body := strings.TrimLeft(text, " \t")
	l := line{indent: text[:len(text)-len(body)], body: body, wrong: t.lines[t.r.IntN(len(t.lines))]}
	if t.r.Float64() >= t.o.Known {
		l.known = 1 + t.r.IntN(len(body)+1)
	}
	return l
}

// write types lines of text at the cursor; fresh begins with a new line.
func (t *typist) write(text string, fresh bool) {
	var lines []line
	for l := range strings.SplitSeq(text, "\n") {
		lines = append(lines, t.line(l))
	}
	for i, l := range lines {
		begin := l.indent // editors put it there
		if i > 0 || fresh {
			begin = "\n" + begin
		}
		if begin != "" {
			t.step(Step{Insert: begin, Answer: t.answer(lines, i, 0)}, t.waits())
		}
		for n := 0; n < len(l.body); {
			if t.waited && t.o.Accept && n >= l.known && t.r.Float64() < takes {
				t.step(Step{Insert: l.body[n:], Accept: true, Answer: t.answer(lines, i, len(l.body))}, false)
				break
			}
			if t.r.Float64() < mistakes {
				t.mistake(l)
			}
			c, size := utf8.DecodeRuneInString(l.body[n:])
			n += size
			t.step(Step{Insert: string(c), Answer: t.answer(lines, i, n)}, n < len(l.body) && t.waits())
		}
	}
}

// answer is what the model suggests when n bytes of the body of line i are typed: the rest of the line, or at its end the next one.
func (t *typist) answer(lines []line, i, n int) string {
	l := lines[i]
	switch {
	case n < l.known && n < len(l.body):
		return l.wrong
	case n < len(l.body):
		return l.body[n:]
	case i+1 < len(lines) && lines[i+1].known == 0:
		return "\n" + lines[i+1].indent + lines[i+1].body
	}
	return "\n" + l.indent + t.lines[t.r.IntN(len(t.lines))]
}

// waits decides whether the user waits for a suggestion.
func (t *typist) waits() bool { return t.r.Float64() < waits }

// mistake types one or two wrong letters and takes them back.
func (t *typist) mistake(l line) {
	n := 1 + t.r.IntN(2)
	for range n {
		t.step(Step{Insert: string(rune('a' + t.r.IntN(26))), Answer: l.wrong}, false)
	}
	for range n {
		t.step(Step{Erase: 1, Answer: l.wrong}, false)
	}
}

// jump moves the cursor.
func (t *typist) jump(to int) {
	t.step(Step{Jump: to + 1, Answer: t.lines[t.r.IntN(len(t.lines))]}, false)
}

// step adds a step. Its Jump counts from 1, so that 0 is none.
func (t *typist) step(s Step, wait bool) {
	interval := lognormal(t.r, key, keySpread)
	switch {
	case s.Jump > 0:
		interval = lognormal(t.r, finding, keySpread)
	case t.waited:
		interval = lognormal(t.r, reading, readSpread)
	case t.last == '\n':
		interval = time.Duration(afterLine * float64(interval))
	case t.last != 0 && !unicode.IsLetter(t.last):
		interval = time.Duration(afterWord * float64(interval))
	}
	s.Delay, s.Wait = interval.Round(time.Microsecond), wait
	s.Jump--
	t.doc.apply(s)
	t.trace.Steps = append(t.trace.Steps, s)
	t.waited = wait
	t.last, _ = utf8.DecodeLastRuneInString(s.Insert)
	if strings.HasPrefix(s.Insert, "\n") {
		t.last = '\n'
	}
}

// lognormal draws a time of a median.
func lognormal(r *rand.Rand, median time.Duration, spread float64) time.Duration {
	return time.Duration(float64(median) * math.Exp(spread*r.NormFloat64()))
}

// Suited says which files traces are made of.
const Suited = "1,500 to 4,500 bytes of UTF-8 and 30 lines or more"

// Suits says whether a trace can be made of a text.
func Suits(text string, lines int) bool {
	_, ok := makeTrace(text, 0, TraceOptions{Lines: lines})
	return ok
}

//go:embed client.go trace.go check.go llama.go watch.go
var samples embed.FS

// Samples returns files to type when there are no others: this package's own.
func Samples() []string {
	var texts []string
	for _, name := range []string{"llama.go", "check.go", "client.go", "watch.go", "trace.go"} {
		b, err := samples.ReadFile(name)
		if err != nil {
			panic(err) // it is in the program
		}
		texts = append(texts, string(b))
	}
	return texts
}
