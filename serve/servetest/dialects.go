package servetest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// Fill is a greedy fill-in as every protocol can ask for it.
type Fill struct {
	Model          string // "": the default
	Prefix, Suffix string
	Tokens         int // at most
}

// Dialect is how a protocol asks for a Fill and answers.
type Dialect struct {
	Name             string
	Path, StreamPath string // the second where streams have a path of their own
	ContentType      string
	Raw              bool // the request is a prompt in a model's own format, which the server has to translate
	Body             func(f Fill, stream bool) []byte
	Whole            func(answer []byte) (string, error)
	Stream           func(r io.Reader) (string, error) // nil: the protocol has none
}

// Ask returns the path, the type and the body of a request.
func (d Dialect) Ask(f Fill, stream bool) (path, contentType string, body []byte) {
	path = d.Path
	if stream && d.StreamPath != "" {
		path = d.StreamPath
	}
	return path, d.ContentType, d.Body(f, stream)
}

// Dialects returns the ways in which code is completed, of all protocols.
func Dialects() []Dialect {
	type object = map[string]any
	body := func(o func(f Fill, stream bool) object) func(Fill, bool) []byte {
		return func(f Fill, stream bool) []byte {
			b, err := json.Marshal(o(f, stream))
			if err != nil {
				panic(err) // texts and numbers
			}
			return b
		}
	}
	openai := func(f Fill, stream bool) object {
		return object{"model": f.Model, "prompt": f.Prefix, "suffix": f.Suffix, "max_tokens": f.Tokens, "stream": stream}
	}
	marked := func(pre, suf, mid string) func(f Fill, stream bool) object {
		return func(f Fill, stream bool) object {
			return object{"model": f.Model, "prompt": pre + f.Prefix + suf + f.Suffix + mid, "max_tokens": f.Tokens, "stream": stream}
		}
	}
	tgi := func(f Fill, stream bool) object {
		return object{
			"inputs": "<fim_prefix>" + f.Prefix + "<fim_suffix>" + f.Suffix + "<fim_middle>", "stream": stream,
			"parameters": object{"max_new_tokens": f.Tokens, "return_full_text": false, "adapter_id": f.Model},
		}
	}
	text := Text("choices", 0, "text")
	all := []Dialect{
		{Name: "openai", Path: "/v1/completions", Whole: text, Stream: SSE(text, "[DONE]"), Body: body(openai)},
		{Name: "deepseek", Path: "/beta/completions", Whole: text, Stream: SSE(text, "[DONE]"), Body: body(openai)},
		{Name: "lm studio", Path: "/api/v0/completions", Whole: text, Stream: SSE(text, "[DONE]"), Body: body(openai)},
		{Name: "openai, qwen's markers", Path: "/v1/completions", Raw: true, Whole: text, Stream: SSE(text, "[DONE]"),
			Body: body(marked("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"))},
		{Name: "openai, santacoder's markers", Path: "/completions", Raw: true, Whole: text, Stream: SSE(text, "[DONE]"),
			Body: body(marked("<fim-prefix>", "<fim-suffix>", "<fim-middle>"))},
		{Name: "mistral", Path: "/v1/fim/completions", Whole: Text("choices", 0, "message", "content"), Stream: SSE(Text("choices", 0, "delta", "content"), "[DONE]"), Body: body(openai)},
		{Name: "llama.cpp", Path: "/infill", Whole: Text("content"), Stream: SSE(Text("content"), ""),
			Body: body(func(f Fill, stream bool) object {
				// The line of the cursor is a field of its own.
				line := strings.LastIndexByte(f.Prefix, '\n') + 1
				return object{"model": f.Model, "input_prefix": f.Prefix[:line], "prompt": f.Prefix[line:], "input_suffix": f.Suffix, "n_predict": f.Tokens, "temperature": 0, "stream": stream}
			})},
		{Name: "llama.cpp, starcoder's markers", Path: "/completion", Raw: true, Whole: Text("content"), Stream: SSE(Text("content"), ""),
			Body: body(func(f Fill, stream bool) object {
				return object{"model": f.Model, "prompt": "<fim_prefix>" + f.Prefix + "<fim_suffix>" + f.Suffix + "<fim_middle>", "n_predict": f.Tokens, "temperature": 0, "stream": stream}
			})},
		{Name: "ollama", Path: "/api/generate", Whole: Text("response"), Stream: NDJSON(Text("response")),
			Body: body(func(f Fill, stream bool) object {
				return object{"model": f.Model, "prompt": f.Prefix, "suffix": f.Suffix, "stream": stream, "options": object{"num_predict": f.Tokens, "temperature": 0}}
			})},
		{Name: "tabby", Path: "/v1/completions", Whole: text,
			Body: body(func(f Fill, _ bool) object {
				return object{"model": f.Model, "language": "python", "segments": object{"prefix": f.Prefix, "suffix": f.Suffix}, "max_tokens": f.Tokens}
			})},
		{Name: "tgi", Path: "/generate", StreamPath: "/generate_stream", Raw: true, Whole: Text("generated_text"), Stream: SSE(Text("token", "text"), ""), Body: body(tgi)},
		{Name: "tgi at /", Path: "/", Raw: true, Whole: Text(0, "generated_text"), Stream: SSE(Text("token", "text"), ""), Body: body(tgi)},
		{Name: "autodev v1", Path: "/autocomplete", ContentType: "application/x-www-form-urlencoded", Whole: func(b []byte) (string, error) { return string(b), nil },
			Body: func(f Fill, _ bool) []byte {
				return []byte(url.Values{"model": {f.Model}, "prefix": {f.Prefix}, "suffix": {f.Suffix}, "max_tokens": {strconv.Itoa(f.Tokens)}}.Encode())
			}},
	}
	for i := range all {
		if all[i].ContentType == "" {
			all[i].ContentType = "application/json"
		}
	}
	return all
}

// Text returns what finds a text in JSON by names of members and numbers of elements.
func Text(path ...any) func(raw []byte) (string, error) {
	return func(raw []byte) (string, error) {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return "", fmt.Errorf("%w in %.200s", err, raw)
		}
		for _, p := range path {
			switch p := p.(type) {
			case string:
				o, _ := v.(map[string]any)
				v = o[p]
			case int:
				a, _ := v.([]any)
				if v = nil; p < len(a) {
					v = a[p]
				}
			}
		}
		text, ok := v.(string)
		if !ok {
			return "", fmt.Errorf("no text at %v of %.200s", path, raw)
		}
		return text, nil
	}
}

// SSE returns what joins the texts of a stream of server-sent events, which has to end with end, where that is not "".
func SSE(text func([]byte) (string, error), end string) func(io.Reader) (string, error) {
	return lines(func(line string) (data string, ok bool) {
		data, ok = strings.CutPrefix(line, "data:")
		return strings.TrimSpace(data), ok
	}, text, end)
}

// NDJSON returns what joins the texts of a stream of objects on lines.
func NDJSON(text func([]byte) (string, error)) func(io.Reader) (string, error) {
	return lines(func(line string) (string, bool) { return line, true }, text, "")
}

func lines(data func(line string) (string, bool), text func([]byte) (string, error), end string) func(io.Reader) (string, error) {
	return func(r io.Reader) (string, error) {
		all, ended := "", end == ""
		s := bufio.NewScanner(r)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			d, ok := data(s.Text())
			if !ok {
				continue
			}
			if d == end && end != "" {
				ended = true
				continue
			}
			part, err := text([]byte(d))
			if err != nil {
				return all, err
			}
			all += part
		}
		if !ended && s.Err() == nil {
			return all, fmt.Errorf("the stream broke off after %q", all)
		}
		return all, s.Err()
	}
}
