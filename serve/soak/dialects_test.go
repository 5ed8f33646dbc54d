package soak

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// dialects are the protocols that complete code.
func dialects() []dialect {
	text := func(path ...any) func([]byte) (string, error) {
		return func(b []byte) (string, error) { return field(b, path...) }
	}
	return []dialect{
		{path: "/v1/completions", whole: text("choices", 0, "text"), stream: sse(text("choices", 0, "text"), "[DONE]"),
			body: func(q question, stream bool) map[string]any {
				return map[string]any{"prompt": q.prefix, "suffix": q.suffix, "max_tokens": q.tokens, "stream": stream}
			}},
		{path: "/v1/fim/completions", whole: text("choices", 0, "message", "content"), stream: sse(delta, "[DONE]"),
			body: func(q question, stream bool) map[string]any {
				return map[string]any{"model": "soak", "prompt": q.prefix, "suffix": q.suffix, "max_tokens": q.tokens, "temperature": 0, "stream": stream}
			}},
		{path: "/infill", whole: text("content"), stream: sse(text("content"), ""),
			body: func(q question, stream bool) map[string]any {
				return map[string]any{"input_prefix": q.prefix, "input_suffix": q.suffix, "n_predict": q.tokens, "temperature": 0, "stream": stream}
			}},
		{path: "/api/generate", whole: text("response"), stream: lines(func(line string) (string, bool) { return line, true }, text("response"), ""),
			body: func(q question, stream bool) map[string]any {
				return map[string]any{"model": "soak", "prompt": q.prefix, "suffix": q.suffix, "stream": stream, "options": map[string]any{"num_predict": q.tokens, "temperature": 0}}
			}},
	}
}

// delta is the text of an event in the manner of OpenAI's chat.
func delta(b []byte) (string, error) {
	if !strings.Contains(string(b), `"content"`) {
		return "", nil // the first names a role, the last a reason
	}
	return field(b, "choices", 0, "delta", "content")
}

// sse joins the texts of a stream of server-sent events, which has to end with end, where there is one.
func sse(text func([]byte) (string, error), end string) func(io.Reader) (string, error) {
	return lines(func(line string) (data string, ok bool) {
		data, ok = strings.CutPrefix(line, "data:")
		return strings.TrimSpace(data), ok
	}, text, end)
}

// lines joins the texts of a stream whose lines hold JSON.
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
