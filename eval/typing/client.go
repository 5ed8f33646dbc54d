package typing

import (
	"bytes"
	"context"
	"encoding/json"
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

// answered is what is read of the answer.
type answered struct {
	Content string `json:"content"`
	Timings struct {
		Cached    int `json:"cache_n"`
		Prompt    int `json:"prompt_n"`
		Predicted int `json:"predicted_n"`
	} `json:"timings"`
}

// ask sends a request and reads the whole answer. When ctx ends the connection is closed, by which a server sees that nobody waits any more.
func (c *client) ask(ctx context.Context, q infill) (a answered, err error) {
	q.Top, q.Samplers = 1, []string{"top_k"}
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
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%s/infill: status %d: %.200s", c.url, resp.StatusCode, body)
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return a, fmt.Errorf("%s/infill: %w", c.url, err)
	}
	return a, nil
}

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
