package chat

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"autodev/tokenizer"
)

func TestLoad(t *testing.T) {
	const named = `{"chat_template":[{"name":"tool_use","template":"T"},{"name":"default","template":"{{ bos_token }}D{{ eos_token }}{{ sep_token }}"}],` +
		`"bos_token":{"content":"<s>","lstrip":false},"eos_token":"</s>","sep_token":null}`
	cases := []struct {
		name  string
		files map[string]string
		text  string // of a conversation; "" for no template
		err   string
	}{
		{name: "no files"},
		{name: "no template", files: map[string]string{"tokenizer_config.json": `{"bos_token":"<s>"}`}},
		{name: "null", files: map[string]string{"tokenizer_config.json": `{"chat_template":null}`}},
		{name: "text", files: map[string]string{"tokenizer_config.json": `{"chat_template":"{{ messages[0].content }}!"}`}, text: "q!"},
		{name: "order", files: map[string]string{"chat_template.jinja": "{{ messages | tojson }}"}, text: `[{"role": "user", "content": "q"}]`},
		{name: "named", files: map[string]string{"tokenizer_config.json": named}, text: "<s>D</s>"},
		{name: "special tokens beside", files: map[string]string{"tokenizer_config.json": `{"chat_template":"{{ bos_token }}{{ eos_token }}","eos_token":"E"}`,
			"special_tokens_map.json": `{"bos_token":"B","eos_token":"e"}`}, text: "BE"},
		{name: "file first", files: map[string]string{"tokenizer_config.json": named, "chat_template.jinja": "F{{ bos_token }}\n"}, text: "F<s>"},
		{name: "file alone", files: map[string]string{"chat_template.jinja": "F"}, text: "F"},
		{name: "no default", files: map[string]string{"tokenizer_config.json": `{"chat_template":[{"name":"rag","template":"T"}]}`}, err: "expected one called default"},
		{name: "wrong type", files: map[string]string{"tokenizer_config.json": `{"chat_template":7}`}, err: "chat_template: expected a text"},
		{name: "not JSON", files: map[string]string{"tokenizer_config.json": `{`}, err: "tokenizer_config.json"},
		{name: "bad template", files: map[string]string{"chat_template.jinja": "{% if %}"}, err: "chat_template.jinja: chat template: line 1"},
	}
	for _, c := range cases {
		fsys := fstest.MapFS{}
		for name, content := range c.files {
			fsys[name] = &fstest.MapFile{Data: []byte(content)}
		}
		tm, err := LoadFS(fsys, "folder")
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), "folder: ") {
				t.Errorf("%s: found error %v, expected %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if c.text == "" {
			if tm != nil {
				t.Errorf("%s: found a template, expected none", c.name)
			}
			continue
		}
		if text, err := tm.Render(nil, []Message{{"user", "q"}}, true); err != nil || text != c.text {
			t.Errorf("%s: found %q (%v), expected %q", c.name, text, err, c.text)
		}
	}
}

func TestFallback(t *testing.T) {
	tok := readTokenizer(t, "plain")
	bare, err := tokenizer.Parse(bareVocabulary(t), "bare")
	if err != nil {
		t.Fatal(err)
	}
	messages := []Message{{"system", " S "}, {"user", "q\n"}, {"assistant", "a"}, {"user", "r"}}
	cases := []struct {
		tok   *tokenizer.Tokenizer
		text  string
		stops []string
	}{
		{tok, "<|im_start|>system\n S <|im_end|>\n<|im_start|>user\nq\n<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n", []string{"<|im_end|>"}},
		{bare, "### Instruction:\nS\n\nq\n\n### Response:\na\n\n### Instruction:\nr\n\n### Response:\n", []string{"\n### Instruction:", "\n### Response:"}},
	}
	for _, c := range cases {
		p := NewPrompter(nil, c.tok)
		text, err := p.Render(messages)
		if err != nil || text != c.text {
			t.Errorf("found %q (%v), expected %q", text, err, c.text)
		}
		prompt, stops, err := p.Prompt(messages)
		if err != nil || c.tok.Decode(prompt.IDs) != c.text || !slices.Equal(stops, c.stops) {
			t.Errorf("found prompt %q, stops %q (%v)", c.tok.Decode(prompt.IDs), stops, err)
		}
		if p.Instruct() != (c.tok == tok) || p.Template() != "" {
			t.Error("the fallback calls itself a template")
		}
	}
}

// bareVocabulary is that of testdata/plain without its added tokens.
func bareVocabulary(t *testing.T) []byte {
	t.Helper()
	var file map[string]any
	content, err := os.ReadFile("testdata/plain/tokenizer.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	file["added_tokens"] = []any{}
	b, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStopIDs(t *testing.T) {
	tok := readTokenizer(t, "plain")
	for name, want := range map[string]string{"chatml": "<|im_end|>", "thinking": "<|im_end|>", "headers": "<|eot_id|>", "inst": "</s>", "bars": "<|end|>",
		"namespace": "</s>", "turns": "<end_of_turn>", "headings": "</s>"} {
		ids := NewPrompter(readTemplate(t, name+".jinja"), tok).StopIDs()
		if len(ids) != 1 || tok.Decode(ids) != want {
			t.Errorf("%s: found %q, expected %q", name, tok.Decode(ids), want)
		}
	}
}

func TestStrftime(t *testing.T) {
	at := time.Date(2026, 3, 5, 14, 7, 9, 1000, time.UTC)
	for format, want := range map[string]string{
		"%d %b %Y": "05 Mar 2026", "%Y-%m-%d": "2026-03-05", "%B %-d, %Y": "March 5, 2026", "%A %H:%M:%S %p %%": "Thursday 14:07:09 PM %",
		"%e|%j|%y|%I|%f|%w": " 5|064|26|02|000001|4", "100%": "100%", "%Q": "%Q", "2006 Jan": "2006 Jan",
	} {
		if got := strftime(format, at); got != want {
			t.Errorf("%q: found %q, expected %q", format, got, want)
		}
	}
}
