package assist

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestDocumentKeepsCode: what is documented is otherwise what it was, or nothing is changed.
func TestDocumentKeepsCode(t *testing.T) {
	const code = "    def mean(self):\n        total = 0\n        for x in self.items:\n            total += x\n        return total / len(self.items)\n"
	python := Request{File: "stack.py", Selection: code, Before: "class Stack:\n"}
	for _, c := range []struct {
		name    string
		request Request
		answer  string
		want    error
	}{
		{"documented", python, "def mean(self):\n    \"\"\"Return the mean.\n\n    Raises ZeroDivisionError when empty.\n    \"\"\"\n    total = 0  # so far\n    for x in self.items:\n        total += x\n    return total / len(self.items)\n", nil},
		{"as it was", python, "def mean(self):\n    total = 0\n    for x in self.items:\n        total += x\n    return total / len(self.items)\n", nil},
		{"a line changed", python, "def mean(self):\n    \"\"\"Return the mean.\"\"\"\n    total = 0\n    for x in self.items:\n        total += x\n    return total / max(1, len(self.items))\n", ErrChanged},
		{"a line moved", python, "def mean(self):\n    \"\"\"Return the mean.\"\"\"\n    total = 0\n    for x in self.items:\n        total += x\n        return total / len(self.items)\n", ErrChanged},
		{"another function", python, "def pop(self):\n    \"\"\"Return the last.\"\"\"\n    return self.items.pop()\n", ErrChanged},
		{"the code around", python, "class Stack:\n    def mean(self):\n        total = 0\n        for x in self.items:\n            total += x\n        return total / len(self.items)\n", ErrChanged},
		{"language by name", Request{Language: "Go", Selection: "func f() {}\n"}, "// F.\nfunc f() { panic(1) }\n", ErrChanged},
		{"language not known", Request{File: "a.zz", Selection: "f() -> 1\n"}, "%% F.\nf() -> 2\n", nil},
	} {
		b := &scripted{pieces: chunks("```\n"+c.answer+"```\n", 7)}
		a, err := function(t, "document").Run(context.Background(), b, c.request, Text, 0, nil)
		if !errors.Is(err, c.want) || (a.Edit == nil) != (c.want != nil) {
			t.Errorf("%s: found %v and edit %v, expected %v", c.name, err, a.Edit, c.want)
		}
	}
	// Other functions are for changes.
	b := &scripted{pieces: []string{"```\ndef pop(self): pass\n```"}}
	if a, err := function(t, "improve").Run(context.Background(), b, python, Text, 0, nil); err != nil || a.Edit == nil {
		t.Errorf("improve: found %v (%v), expected a change", a.Edit, err)
	}
}

// TestProseEnds: prose that goes round in circles is ended after the first round, and the model is not asked for more.
func TestProseEnds(t *testing.T) {
	const begun = "This function, named `add`, takes two arguments.\n\n"
	r := Request{File: "add.py", Selection: "def add(a, b):\n    return a + b\n"}
	sentences := []string{"The function does not include any return statements, which means it does not have any.", "It returns the sum of its two arguments, and that is all there is to say about it."}
	for _, round := range []string{strings.Join(sentences, "\n\n") + "\n\n", strings.Join(sentences, " ") + " "} {
		for _, size := range []int{1, 7, 64, 10000} {
			for _, format := range []Format{Text, HTML} {
				pieces := chunks(begun+strings.Repeat(round, 20), size)
				b := &counting{scripted: scripted{pieces: pieces}}
				a, err := function(t, "explain").Run(context.Background(), b, r, format, 0, nil)
				if err != nil || a.Reply.Finish != FinishLoop || strings.Count(a.Text, "any return statements") != 1 || strings.Count(a.Text, "sum of its two") != 1 {
					t.Errorf("pieces of %d, %s: found %q, %s (%v), expected one round and loop", size, format, a.Text, a.Reply.Finish, err)
				}
				if format == Text && !strings.HasPrefix(begun+round, a.Text) {
					t.Errorf("pieces of %d: found %q, expected the beginning of %q", size, a.Text, begun+round)
				}
				if size < 100 && b.sent > len(pieces)/3 {
					t.Errorf("pieces of %d: %d of %d were asked for, expected the model to be stopped", size, b.sent, len(pieces))
				}
			}
		}
		b := &scripted{pieces: []string{begun, round}}
		if a, err := function(t, "explain").Run(context.Background(), b, r, Text, 0, nil); err != nil || a.Text != begun+round || a.Reply.Finish != FinishStop {
			t.Errorf("without circles: found %q, %s (%v), expected all of it", a.Text, a.Reply.Finish, err)
		}
	}
}

// counting counts the pieces that were taken.
type counting struct {
	scripted
	sent int
}

func (c *counting) Answer(ctx context.Context, q Query, emit func(string) error) (Reply, error) {
	return c.scripted.Answer(ctx, q, func(s string) error {
		c.sent++
		return emit(s)
	})
}
