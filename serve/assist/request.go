package assist

import (
	"strings"
	"unicode/utf8"
)

// Position is a place in a file as editors count: lines and characters from 0. What a character is, is the editor's business: the numbers come back
// as they were sent.
type Position struct {
	Line      int `json:"line"`
	Character int `json:"character"`
}

// Range is a part of a file.
type Range struct {
	Start Position `json:"start"`
	End   Position `json:"end"`
}

// Request is what a function is applied to.
type Request struct {
	Language    string // "" is the file's, by its name
	File        string // path as the user knows it; may be ""
	Selection   string
	Before      string // the file before the selection, or its end
	After       string // the file after the selection, or its beginning
	Instruction string // what the user wants beside, or all that they want
	Range       *Range // of the selection, which edits name
}

// Prompt is what the templates of functions know.
type Prompt struct {
	Request
	shape selected
}

// newPrompt makes a Prompt of a request.
func newPrompt(r Request) Prompt { return Prompt{r, newSelected(r)} }

// Lang returns the language's name, "" if it is unknown.
func (p Prompt) Lang() string { return languageOf(p.Language, p.File).Name }

// Tests returns what tests of the language are commonly written with.
func (p Prompt) Tests() string { return languageOf(p.Language, p.File).Tests }

// Docs returns how code of the language is documented.
func (p Prompt) Docs() string { return languageOf(p.Language, p.File).Docs }

// Code returns the selection as a model should see it: without the indentation that all its lines have, lines ended by \n, in a fence with the
// language.
func (p Prompt) Code() string { return p.fenced(p.shape.text) }

// Fence returns the line that opens a fence for code like the selection.
func (p Prompt) Fence() string { return p.ticks() + languageOf(p.Language, p.File).Fence }

// Close returns the line that closes it.
func (p Prompt) Close() string { return p.ticks() }

// Context returns the text around the selection in fences with headings, "" when there is none.
func (p Prompt) Context() string {
	var b strings.Builder
	for _, part := range []struct{ head, text string }{{"The code before it", p.Before}, {"The code after it", p.After}} {
		if text := strings.Trim(unix(part.text), "\n"); strings.TrimSpace(text) != "" {
			b.WriteString(part.head + ", which only shows where it stands:\n\n" + p.fenced(text) + "\n\n")
		}
	}
	return strings.TrimRight(b.String(), "\n")
}

func (p Prompt) fenced(code string) string {
	return p.Fence() + "\n" + strings.TrimRight(code, "\n") + "\n" + p.ticks()
}

// ticks returns more backticks than any run of the texts has, three at least.
func (p Prompt) ticks() string {
	longest := 2
	for _, s := range []string{p.Selection, p.Before, p.After} {
		for run, i := 0, 0; i < len(s); i++ {
			if run++; s[i] != '`' {
				run = 0
			}
			longest = max(longest, run)
		}
	}
	return strings.Repeat("`", longest+1)
}

// around is how much text around a selection a prompt shows, in bytes: more says little about the selection, and costs time for every token.
const around = 3000

// narrow keeps the n bytes of the surroundings that are nearest to the selection, cut at line ends: two thirds of them before it.
func (r Request) narrow(n int) Request {
	before, after := n*2/3, n/3
	if len(r.Before) > before {
		s := r.Before[len(r.Before)-before:]
		if i := strings.IndexByte(s, '\n'); i >= 0 {
			s = s[i+1:]
		} else {
			s = ""
		}
		r.Before = s
	}
	if len(r.After) > after {
		s := r.After[:after]
		r.After = s[:strings.LastIndexByte(s, '\n')+1]
	}
	return r
}

func unix(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }

// selected is what a selection looks like, for texts that replace it to look the same.
type selected struct {
	text   string // dedented, line ends \n
	lead   string // white space before the selection on its first line, when there is nothing else
	indent string // what all its lines begin with, the first one's lead included
	first  string // the indentation of the first line that is not blank, in text
	unit   string // one step of indentation: "\t" or spaces; "" when unknown
	eol    string
	head   string // blank lines at its beginning, as they are
	tail   string // white space at its end, as it is
}

func newSelected(r Request) selected {
	s := selected{eol: "\n"}
	all := r.Selection + r.Before + r.After
	if strings.Count(all, "\r\n")*2 > strings.Count(all, "\n") {
		s.eol = "\r\n"
	}
	before := unix(r.Before)
	if line := before[strings.LastIndexByte(before, '\n')+1:]; strings.Trim(line, " \t") == "" {
		s.lead = line
	}
	body := strings.TrimRight(r.Selection, " \t\r\n")
	s.tail = r.Selection[len(body):]
	if i := strings.LastIndexByte(body[:len(body)-len(strings.TrimLeft(body, " \t\r\n"))], '\n'); i >= 0 {
		s.head = body[:i+1]
	}
	text := unix(body[len(s.head):])
	if s.head == "" {
		text = s.lead + text
	} else {
		s.lead = ""
	}
	lines := strings.Split(text, "\n")
	common := false
	for _, l := range lines {
		if strings.TrimSpace(l) == "" {
			continue
		}
		in := leading(l)
		if !common {
			s.indent, common = in, true
		}
		s.indent = s.indent[:shared(s.indent, in)]
	}
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, s.indent)
		if strings.TrimSpace(l) == "" {
			lines[i] = ""
		}
	}
	s.first = leading(lines[0])
	s.text = strings.Join(lines, "\n") + "\n"
	s.unit = unitOf(s.text)
	if leading(strings.TrimLeft(s.text, "\n")) == "" && !strings.Contains(s.text, "\n ") && !strings.Contains(s.text, "\n\t") {
		s.unit = unitOf(before + text + unix(r.After)) // nothing in it says
	}
	return s
}

func leading(line string) string { return line[:len(line)-len(strings.TrimLeft(line, " \t"))] }

func shared(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// unitOf returns one step of a text's indentation: a tab, or the smallest number of spaces, two at least, that begins a line; "" where there is
// none, or both are.
func unitOf(text string) string {
	least, tabs := 0, false
	for line := range strings.SplitSeq(text, "\n") {
		in := leading(line)
		if len(in) == len(line) {
			continue
		}
		tabs = tabs || strings.Contains(in, "\t")
		if n := len(in) - len(strings.TrimLeft(in, " ")); n >= 2 && (least == 0 || n < least) {
			least = n
		}
	}
	switch {
	case !tabs:
		return strings.Repeat(" ", min(least, 8))
	case least == 0:
		return "\t"
	}
	return ""
}

// valid replaces broken characters, which no model and no JSON can hold.
func (r Request) valid() Request {
	for _, s := range []*string{&r.Language, &r.File, &r.Selection, &r.Before, &r.After, &r.Instruction} {
		if !utf8.ValidString(*s) {
			*s = strings.ToValidUTF8(*s, "\uFFFD")
		}
	}
	return r
}
