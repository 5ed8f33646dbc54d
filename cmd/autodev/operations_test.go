package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOperationsMisuse(t *testing.T) {
	dir, file, keys := smallModel(t), writeFile(t, "x"), filepath.Join(t.TempDir(), "keys.json")
	must(t, "keys", "add", "--file", keys, "--tokens-per-day", "5", "ann")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--listen", "unix:"}, 2, "--listen unix:: expected a path after unix:"},
		{[]string{"--listen", "127.0.0.1:0", "--listen", "x"}, 2, "--listen x: expected HOST:PORT or unix:PATH"},
		{[]string{"--listen", "0.0.0.0:8000"}, 2, "--listen 0.0.0.0:8000 can be reached from other machines"},
		{[]string{"--listen", ":8000", "--tls-cert", "a", "--tls-key", "b"}, 2, "--listen :8000 can be reached from other machines"},
		{[]string{"--tls-cert", "a"}, 2, "--tls-cert and --tls-key: found one of them, expected both or none"},
		{[]string{"--allow-host", "http://x"}, 2, `allowed host "http://x": expected a name`},
		{[]string{"--allow-origin", "x"}, 2, `allowed origin "x": expected SCHEME://HOST`},
		{[]string{"--max-body", "0"}, 2, "--max-body 0: expected 1 to 1024"},
		{[]string{"--max-connections", "0"}, 2, "--max-connections 0: expected 1 or more"},
		{[]string{"--announce", "-1s"}, 2, "--announce -1s: expected 0s or more"},
		{[]string{"--grace", "0s"}, 2, "--grace 0s: expected more than 0s"},
		{[]string{"--api-usage", file}, 2, "--api-usage: found without --api-keys"},
		{[]string{"--model", dir, "--api-keys", keys, "--api-usage", file}, 1, "expected what autodev serve keeps of the tokens"},
		{[]string{"--events-content"}, 2, "--events-content: found without --events"},
		{[]string{"--model", dir, "--api-keys", filepath.Join(dir, "none")}, 1, "no such file"},
		{[]string{"--model", dir, "--api-keys", file}, 1, "expected a file of keys"},
		{[]string{"--model", dir, "--tls-cert", file, "--tls-key", file}, 1, "TLS: "},
		{[]string{"--model", dir, "--listen", "127.0.0.1:0", "--events", file}, 1, "events: "},
	} {
		_, err := runWith(t.Context(), "", append([]string{"serve"}, c.args...)...)
		var message bytes.Buffer
		if code := report(t.Context(), &message, err); code != c.code || !strings.Contains(message.String(), c.want) || strings.Count(message.String(), "\n") != 1 {
			t.Errorf("%v: exit code %d, %q; expected %d, %q", c.args, code, message.String(), c.code, c.want)
		}
	}
	for args, want := range map[string]string{"": "no folder or file is given", t.TempDir(): "has no events-*.jsonl", filepath.Join(dir, "none"): "no such file", file: "line 1: expected an event"} {
		_, err := runWith(t.Context(), "", append([]string{"data", "from-events"}, strings.Fields(args)...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("from-events %s: %v, expected %q", args, err, want)
		}
	}
}

// TestKeptServer: a server with keys on two addresses, one of them a socket, answers those who have one, its page included.
func TestKeptServer(t *testing.T) {
	keys, socket := filepath.Join(t.TempDir(), "keys.json"), filepath.Join(t.TempDir(), "s")
	secret := strings.TrimSpace(must(t, "keys", "add", "--file", keys, "ann"))
	s := startServerAt(t, "small", "unix:"+socket, "--model", smallModel(t), "--api-keys", keys, "--threads", "1", "--log", "json")
	ask := func(client *http.Client, url, key string) int {
		t.Helper()
		req, err := http.NewRequest("GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/html")
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	bySocket := &http.Client{Transport: &http.Transport{Dial: func(string, string) (net.Conn, error) { return net.Dial("unix", socket) }}}
	for _, client := range []*http.Client{http.DefaultClient, bySocket} {
		for path, want := range map[string][2]int{"/v1/models": {401, 200}, "/v1/status": {401, 200}, "/metrics": {401, 200}, "/": {200, 200}, "/readyz": {200, 200}} {
			if without, with := ask(client, s.url+path, ""), ask(client, s.url+path, secret); without != want[0] || with != want[1] {
				t.Errorf("%s: %d without a key and %d with it, expected %v", path, without, with, want)
			}
		}
	}
	must(t, "keys", "revoke", "--file", keys, "ann")
	stop(t, s)
	if strings.Contains(s.errs.String(), secret) {
		t.Error("the key is in the log")
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
}

// TestTokensOfADay: what a key has used is not forgotten when the server starts again.
func TestTokensOfADay(t *testing.T) {
	keys, model := filepath.Join(t.TempDir(), "keys.json"), smallModel(t)
	secret := strings.TrimSpace(must(t, "keys", "add", "--file", keys, "--tokens-per-day", "5", "ann"))
	for run, want := range []int{200, 429} {
		s := startServer(t, "small", "--model", model, "--api-keys", keys, "--threads", "1", "--log", "off")
		req, err := http.NewRequest("POST", s.url+"/v1/completions", strings.NewReader(`{"prompt":"def f(a, b):","max_tokens":6,"min_tokens":6}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("run %d: %s, expected %d", run, resp.Status, want)
		}
		stop(t, s)
	}
}

// stop asks a server to end, and waits until it has.
func stop(t *testing.T, s *server) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, s.errs)
	}
}

// TestLearningFromEvents: suggestions are served and taken, and a training run learns from them.
func TestLearningFromEvents(t *testing.T) {
	model, dir := smallModel(t), filepath.Join(t.TempDir(), "events")
	s := startServer(t, "small", "--model", model, "--events", dir, "--events-content", "--threads", "1", "--log", "off")
	var taken []string
	for i := range 6 {
		prefix, suffix := fmt.Sprintf("def f%d(a, b):\n    c = ", i), "\n    return c\n"
		res := s.post(t, map[string]any{"prompt": prefix, "suffix": suffix, "max_tokens": 8, "seed": i, "temperature": 1, "filename": fmt.Sprintf("f%d.py", i)})
		var c struct {
			ID      string
			Choices []struct{ Text string }
		}
		err := json.NewDecoder(res.Body).Decode(&c)
		res.Body.Close()
		if err != nil || len(c.Choices) != 1 {
			t.Fatalf("%s %v %+v", res.Status, err, c)
		}
		kind := "select"
		if i == 5 {
			kind = "dismiss"
		} else if strings.TrimSpace(c.Choices[0].Text) != "" {
			taken = append(taken, prefix+c.Choices[0].Text+suffix)
		}
		event, err := http.Post(s.url+"/v1/events", "application/json", strings.NewReader(fmt.Sprintf(`{"type":%q,"completion_id":%q,"choice_index":0}`, kind, c.ID)))
		if err != nil {
			t.Fatal(err)
		}
		event.Body.Close()
		if event.StatusCode != http.StatusOK {
			t.Errorf("event: %s", event.Status)
		}
	}
	stop(t, s)
	if len(taken) < 3 {
		t.Fatalf("only %d suggestions have text", len(taken))
	}
	var got []string
	for line := range strings.Lines(must(t, "data", "from-events", dir)) {
		var d struct{ Path, Content string }
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			t.Fatal(err)
		}
		got = append(got, d.Content)
	}
	if strings.Join(got, "|") != strings.Join(taken, "|") {
		t.Errorf("documents %q, expected %q", got, taken)
	}
	work := t.TempDir()
	recipe := writeText(t, filepath.Join(work, "recipe.yaml"), fmt.Sprintf(`model: %q
lora: {rank: 2, targets: [c_attn]}
data:
  train:
    - path: %q
  eval:
    - path: %q
  sequence: 64
train: {steps: 1, micro_batch: 1, accumulation: 1, lr: 1e-2}
eval: {every: 0}
checkpoint: {every: 1}
`, model, dir, writeCode(t, filepath.Join(work, "held"), 0, 3)))
	must(t, "train", "--config", recipe, "--out", filepath.Join(work, "run"))
	if losses := trainLosses(t, filepath.Join(work, "run")); len(losses) != 1 || losses[0] <= 0 {
		t.Errorf("losses %v, expected one", losses)
	}
}
