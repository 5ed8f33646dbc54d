package assist

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestCircles: code that repeats itself without end is ended and changes nothing, at the same byte however it arrives; code that repeats
// itself on purpose is an edit.
func TestCircles(t *testing.T) {
	row := "        [" + strings.Repeat("0, ", 15) + "0],\n"
	step := "    stack.push(stack.pop() + stack.pop())\n    assert stack.size() == before\n"
	var different strings.Builder
	for i := range 400 {
		fmt.Fprintf(&different, "    assert add(%d, %d) == %d\n", i, i, 2*i)
	}
	for _, c := range []struct {
		name, selection, code string
		want                  error
	}{
		{"signs of comments", "def f():\n    pass\n", "def f():\n" + strings.Repeat("    #\n", 300), ErrCircles},
		{"empty lines", "x = 1\n", "x = 1\n" + strings.Repeat("\n", 300), ErrCircles},
		{"a sentence", "x = 1\n", strings.Repeat("# This function returns the sum of the two arguments that it takes, which are numbers.\n", 30), ErrCircles},
		{"several lines", "x = 1\n", strings.Repeat("def f(x):\n    return x\n\n\n", 30), ErrCircles},
		{"within a line", "x = 1\n", "x = " + strings.Repeat("(a + ", 200), ErrCircles},
		{"within a line that has no end", "x = 1\n", "#" + strings.Repeat("#", 1000), ErrCircles},
		{"a table of zeros", "table = 0\n", "table = [\n" + strings.Repeat(row, 32) + "]\n", nil},
		{"equal tests", "x = 1\n", "def test():\n" + strings.Repeat(step, 9), nil},
		{"different tests", "x = 1\n", "def test():\n" + different.String(), nil},
		{"a ruler", "x = 1\n", "#" + strings.Repeat("=", 300) + "\nx = 1\n", nil},
		{"as in the selection", "rows = [\n" + strings.Repeat(row, 200) + "]\n", "rows = [\n" + strings.Repeat(row, 210) + "]\n", nil},
		{"a long line as in the selection", "s = '" + strings.Repeat("A", 4000) + "'\n", "t = '" + strings.Repeat("A", 4000) + "'\n", nil},
	} {
		for _, base := range []bool{false, true} {
			answer := c.code
			if !base {
				answer = "Here it is:\n\n```python\n" + c.code + "```\n"
			}
			text := ""
			for i, size := range []int{1, 7, 100000} {
				b := &counting{scripted: scripted{pieces: chunks(answer, size), base: base}}
				a, err := function(t, "improve").Run(context.Background(), b, Request{File: "a.py", Selection: c.selection}, Text, 0, nil)
				if !errors.Is(err, c.want) || (a.Edit == nil) != (c.want != nil) || (a.Reply.Finish == FinishLoop) != (c.want != nil) {
					t.Errorf("%s, base %v, pieces of %d: found %v, %s and edit %v, expected %v", c.name, base, size, err, a.Reply.Finish, a.Edit, c.want)
				}
				if i > 0 && a.Text != text {
					t.Errorf("%s, base %v, pieces of %d: found %d bytes, %d in smaller pieces", c.name, base, size, len(a.Text), len(text))
				}
				text = a.Text
				if c.want != nil && size < 10 && b.sent == len(b.pieces) {
					t.Errorf("%s: the model was not stopped", c.name)
				}
			}
		}
	}
	// What comes behind the code does not spoil it.
	b := &scripted{pieces: []string{"```\ny = 1\n```\n" + strings.Repeat("That is all.\n", 300)}}
	if a, err := function(t, "improve").Run(context.Background(), b, Request{File: "a.py", Selection: "x = 1\n"}, Text, 0, nil); err != nil || a.Edit == nil {
		t.Errorf("circles behind the code: found %v and edit %v, expected an edit", err, a.Edit)
	}
}
