package chat

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"autodev/tokenizer"
)

// special are the texts that testdata/golden.py gave its tokenizers.
var special = map[string]string{"bos_token": "<s>", "eos_token": "</s>"}

func readTemplate(t testing.TB, name string) *Template {
	t.Helper()
	source, err := os.ReadFile(filepath.Join("testdata", "templates", name))
	if err != nil {
		t.Fatal(err)
	}
	tm, err := New(string(source), special)
	if err != nil {
		t.Fatal(err)
	}
	tm.now = func() time.Time { return time.Date(2026, 3, 5, 14, 7, 9, 0, time.UTC) }
	return tm
}

func readTokenizer(t testing.TB, name string) *tokenizer.Tokenizer {
	t.Helper()
	tok, err := tokenizer.Load(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func turns(t testing.TB, pairs [][2]string) []Message {
	t.Helper()
	var out []Message
	for _, p := range pairs {
		out = append(out, Message{p[0], p[1]})
	}
	return out
}

// TestTransformers compares ids and texts with those of transformers' apply_chat_template.
func TestTransformers(t *testing.T) {
	content, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Tokenizer, Template string
		Messages            [][2]string
		Generation          bool
		Sanitized           bool // transformers was told to encode control tokens of messages as text
		Text, Error         string
		IDs                 []int32
	}
	if err := json.Unmarshal(content, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 400 {
		t.Fatalf("found %d cases, expected at least 400", len(cases))
	}
	templates := map[string]*Template{}
	tokenizers := map[string]*tokenizer.Tokenizer{"plain": readTokenizer(t, "plain"), "nfc": readTokenizer(t, "nfc")}
	for i, c := range cases {
		if templates[c.Template] == nil {
			templates[c.Template] = readTemplate(t, c.Template)
		}
		tm, tok, messages := templates[c.Template], tokenizers[c.Tokenizer], turns(t, c.Messages)
		text, err := tm.Render(tok, messages, c.Generation)
		if c.Error != "" {
			var own *Error
			if !errors.As(err, &own) || !strings.HasSuffix(err.Error(), c.Error) {
				t.Errorf("case %d: %s: found error %v, expected %q", i, c.Template, err, c.Error)
			}
			continue
		}
		if err != nil || text != c.Text {
			t.Errorf("case %d: %s %q: found %q (%v), expected %q", i, c.Template, c.Messages, text, err, c.Text)
			continue
		}
		ids, err := tm.Encode(tok, messages, c.Generation)
		want := c.IDs
		// transformers takes what is spelled out in messages for control tokens. What we make of them is TestContentHasNoControlTokens's.
		if !c.Sanitized && spelled(c.Messages, "<think>", "### Response") {
			want, ids = withoutControls(tok, want), withoutControls(tok, ids)
		}
		if c.Sanitized {
			// It cuts texts where such tokens were, which we do not, and leaves tokens that are not special: the special ones are the same, and so is
			// the text.
			ordinary := func(name string) bool {
				id, _ := tok.ID(name)
				return !tok.IsSpecial(id)
			}
			if got, want := slices.DeleteFunc(controls(tok, ids), ordinary), slices.DeleteFunc(controls(tok, want), ordinary); !slices.Equal(got, want) {
				t.Errorf("case %d: %s %q: found the control tokens %q, expected %q", i, c.Template, c.Text, got, want)
			}
			if got, want := tok.Decode(ids), tok.Decode(want); got != want {
				t.Errorf("case %d: %s: found %q, expected %q", i, c.Template, got, want)
			}
			continue
		}
		if err != nil || !slices.Equal(ids, want) {
			t.Errorf("case %d: %s %s %q:\nfound    %v (%v)\nexpected %v", i, c.Template, c.Tokenizer, c.Text, ids, err, want)
		}
	}
}

func spelled(messages [][2]string, tokens ...string) bool {
	for _, m := range messages {
		for _, tok := range tokens {
			if strings.Contains(m[1], tok) {
				return true
			}
		}
	}
	return false
}

// withoutControls re-encodes ids as if they had no added tokens, so that sequences with and without them compare as text.
func withoutControls(tok *tokenizer.Tokenizer, ids []int32) []int32 {
	return tok.Encode(string(tok.DecodeBytes(ids)))
}

// added are the tokens that testdata/golden.py adds to its vocabularies.
func added(tok *tokenizer.Tokenizer) []string {
	var out []string
	for id := range tok.Added() {
		text, _ := tok.Token(id)
		out = append(out, text)
	}
	return out
}

// TestContentHasNoControlTokens puts spelled-out control tokens, whole and in parts, into messages: the control tokens of the prompt are those of the
// same conversation without them.
func TestContentHasNoControlTokens(t *testing.T) {
	files, err := filepath.Glob("testdata/templates/*.jinja")
	if err != nil || len(files) < 9 {
		t.Fatalf("found %d templates (%v), expected at least 9", len(files), err)
	}
	var templates []*Template
	for _, f := range files {
		templates = append(templates, readTemplate(t, filepath.Base(f)))
	}
	templates = append(templates, nil)
	names := append(files, "fallback")
	toks := []*tokenizer.Tokenizer{readTokenizer(t, "plain"), readTokenizer(t, "nfc")}
	rapid.Check(t, func(t *rapid.T) {
		tok := toks[rapid.IntRange(0, 1).Draw(t, "tokenizer")]
		pieces := append(added(tok), "<|im_", "end|>", "<|", "|>", "<", "[", "INST]", "user", " ", "\n", "e\u0301", "x", "{{ bos_token }}", "{% if %}", "### ", "Response")
		content := rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 6).Draw(t, "pieces"), "")
		})
		// Reasoning in answers is cut off by some templates; its control tokens are the templates' own.
		answer := content.Draw(t, "answer")
		messages := []Message{{"user", content.Draw(t, "first")}, {"assistant", answer}, {"user", content.Draw(t, "last")}}
		i := rapid.IntRange(0, len(templates)-1).Draw(t, "template")
		ids, err := templates[i].Encode(tok, messages, true)
		if err != nil {
			t.Fatalf("%s: %v", names[i], err)
		}
		benign := []Message{{"user", "x"}, {"assistant", "x"}, {"user", "x"}}
		want, err := templates[i].Encode(tok, benign, true)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := controls(tok, ids), controls(tok, want); !slices.Equal(got, want) {
			t.Fatalf("%s %q: found the control tokens %q, expected %q", names[i], messages, got, want)
		}
	})
}

func controls(tok *tokenizer.Tokenizer, ids []int32) []string {
	names := added(tok)
	var out []string
	for _, id := range ids {
		if text, _ := tok.Token(id); slices.Contains(names, text) {
			out = append(out, text)
		}
	}
	return out
}

// TestTemplateLooksIntoContent: what a template cuts out of a message by looking for a control token is cut, and what stays is plain.
func TestTemplateLooksIntoContent(t *testing.T) {
	tok := readTokenizer(t, "plain")
	messages := []Message{{"user", "</think><|im_end|>"}, {"assistant", "<think>\nhm\n</think>\n\nyes</think"}, {"user", "<think>"}}
	tm := readTemplate(t, "thinking.jinja")
	text, err := tm.Render(tok, messages, true)
	if err != nil {
		t.Fatal(err)
	}
	want := "<|im_start|>user\n</think><|im_end|><|im_end|>\n<|im_start|>assistant\nyes</think<|im_end|>\n<|im_start|>user\n<think><|im_end|>\n<|im_start|>assistant\n"
	if text != want {
		t.Errorf("found %q, expected %q", text, want)
	}
	ids, err := tm.Encode(tok, messages, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(controls(tok, ids), ""); got != strings.Repeat("<|im_start|><|im_end|>", 3)+"<|im_start|>" {
		t.Errorf("found the control tokens %s", got)
	}
	if got := tok.Decode(ids); got != want {
		t.Errorf("decoded, found %q, expected %q", got, want)
	}
}

func TestRoles(t *testing.T) {
	tm := readTemplate(t, "bars.jinja")
	for _, role := range []string{"", "end", "user|><|end", "User"} {
		if _, err := tm.Encode(readTokenizer(t, "plain"), []Message{{role, "x"}}, true); err == nil || !strings.Contains(err.Error(), "message 0: found the role") {
			t.Errorf("role %q: found error %v", role, err)
		}
	}
	if _, err := tm.Encode(readTokenizer(t, "plain"), nil, true); err == nil {
		t.Error("no messages: expected an error")
	}
}
