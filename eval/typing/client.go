package typing

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// client asks a server for completions.
type client struct {
	http *http.Client
	url  string
}

func newClient(url string) *client {
	return &client{http: &http.Client{Transport: &http.Transport{DisableCompression: true, IdleConnTimeout: time.Minute}}, url: url}
}

// infill is a request as llama.cpp's editors send it, for the most probable tokens.
type infill struct {
	Prefix    string   `json:"input_prefix"`
	Suffix    string   `json:"input_suffix"`
	Prompt    string   `json:"prompt"`
	Tokens    int      `json:"n_predict"`
	Top       int      `json:"top_k"`
	Heat      float64  `json:"temperature"`
	Samplers  []string `json:"samplers"`
	Keep      bool     `json:"cache_prompt"`
	Stream    bool     `json:"stream"`
	IgnoreEOS bool     `json:"ignore_eos,omitempty"`
	Slot      int      `json:"id_slot"`
}

// answered is what is read of the answer, of the events of which the last has the timings.
type answered struct {
	Content string `json:"content"`
	Stop    bool   `json:"stop"`
	Timings struct {
		Cached    int `json:"cache_n"`
		Prompt    int `json:"prompt_n"`
		Predicted int `json:"predicted_n"`
	} `json:"timings"`
}

// ask sends a request and reads the answer, a stream, to its end. When ctx ends the connection is closed, by which a server sees that nobody waits
// any more: llama.cpp's server sees it with the next token that it sends, but only once a second where it has nothing to send.
func (c *client) ask(ctx context.Context, q infill) (a answered, err error) {
	q.Top, q.Samplers, q.Stream = 1, []string{"top_k"}, true
	body, err := json.Marshal(q)
	if err != nil {
		return a, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/infill", bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, err = io.ReadAll(io.LimitReader(resp.Body, 200))
		return a, errors.Join(fmt.Errorf("%s/infill: status %d: %s", c.url, resp.StatusCode, body), err)
	}
	text := ""
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			if e, ok := bytes.CutPrefix(lines.Bytes(), []byte("error: ")); ok {
				return a, fmt.Errorf("%s/infill: %s", c.url, e)
			}
			continue
		}
		event := struct {
			answered
			Error json.RawMessage `json:"error"`
		}{}
		if err := json.Unmarshal(data, &event); err != nil {
			return a, fmt.Errorf("%s/infill: %w", c.url, err)
		}
		if event.Error != nil {
			return a, fmt.Errorf("%s/infill: %s", c.url, event.Error)
		}
		text += event.Content
		if event.Stop {
			a = event.answered
			a.Content = text
			return a, nil
		}
	}
	if err := lines.Err(); err != nil {
		return a, err
	}
	return a, fmt.Errorf("%s/infill: the answer has no end: %w", c.url, io.ErrUnexpectedEOF)
}

// maxEvent bounds an event. llama.cpp's last one has the prompt in it.
const maxEvent = 16 << 20

// get reads a text.
func (c *client) get(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s%s: status %d", c.url, path, resp.StatusCode)
	}
	return string(body), err
}
