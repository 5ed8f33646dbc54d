package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autodev/infer/infertest"
	"autodev/lora"
	"autodev/model"
)

// smallModel writes a folder with a random model and its tokenizer, and returns its path.
func smallModel(t *testing.T) string {
	t.Helper()
	tok := infertest.Tokenizer(t)
	ckpt := infertest.Checkpoint(infertest.Config(tok.VocabSize()))
	dir := filepath.Join(t.TempDir(), "small")
	if err := model.Save(t.Context(), dir, ckpt.Config, ckpt.Weights, model.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := tok.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// smallAdapter writes an adapter of smallModel that changes what it says.
func smallAdapter(t *testing.T, dir string) string {
	t.Helper()
	c, err := model.ReadConfig(os.DirFS(dir), dir)
	if err != nil {
		t.Fatal(err)
	}
	a, err := lora.New(c, lora.Spec{Rank: 4, Alpha: 400, Targets: []string{"c_proj"}, Init: lora.Kaiming}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range a.Modules {
		b := a.Data(m.B())
		for i := range b {
			b[i] = float32(i%7) - 3
		}
	}
	path := filepath.Join(t.TempDir(), "adapter")
	if err := a.Save(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func runWith(ctx context.Context, input string, args ...string) (string, error) {
	a := app()
	var out bytes.Buffer
	a.Reader, a.Writer, a.ErrWriter = strings.NewReader(input), &out, io.Discard
	err := a.RunContext(ctx, append([]string{"autodev"}, args...))
	return out.String(), err
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestComplete(t *testing.T) {
	dir := smallModel(t)
	prefix, suffix := writeFile(t, "def add(a, b):\n"), writeFile(t, "\n    return c\n")
	args := []string{"complete", "--model", dir, "--prefix-file", prefix, "--suffix-file", suffix, "--max-tokens", "12", "--temperature", "1", "--seed", "3"}
	out, err := runWith(t.Context(), "", append(args, "--json")...)
	if err != nil {
		t.Fatal(err)
	}
	var got completeOutput
	if err := json.Unmarshal([]byte(out), &got); err != nil || strings.Count(out, "\n") != 1 {
		t.Fatalf("%v in %q", err, out)
	}
	tok := infertest.Tokenizer(t)
	fim, _ := tok.FIM()
	prompt := slices.Concat([]int32{fim.Prefix, fim.Suffix}, tok.Encode("\n    return c\n"), []int32{fim.Middle}, tok.Encode("def add(a, b):\n"))
	if got.Model != "small" || !slices.Equal(got.PromptIDs, prompt) || len(got.IDs) == 0 || got.Text != tok.Decode(got.IDs) || got.FinishReason == "" {
		t.Errorf("%+v, expected a completion of %v", got, prompt)
	}
	text, err := runWith(t.Context(), "def add(a, b):\n", append(slices.Clone(args), "--prefix-file", "-")...)
	if err != nil || strings.TrimSuffix(text, "\n") != strings.TrimSuffix(got.Text, "\n") {
		t.Errorf("as text, from standard input: %q, %v; expected %q", text, err, got.Text)
	}
	merged, err := runWith(t.Context(), "", append(args, "--json", "--adapter", smallAdapter(t, dir))...)
	var other completeOutput
	if err != nil || json.Unmarshal([]byte(merged), &other) != nil || other.Model != "small+adapter" || slices.Equal(other.IDs, got.IDs) {
		t.Errorf("with an adapter: %s, %v; expected other tokens than %v", merged, err, got.IDs)
	}
}

func TestServeAndCompleteMisuse(t *testing.T) {
	dir, file := smallModel(t), writeFile(t, "x")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"serve", "x"}, 2, `serve: found argument "x", expected flags only`},
		{[]string{"serve", "--threads", "-1"}, 2, "--threads -1: expected 0 or more"},
		{[]string{"serve", "--queue", "0"}, 2, "--queue 0: expected 1 or more"},
		{[]string{"serve", "--log", "loud"}, 2, "--log loud: expected text, json or off"},
		{[]string{"serve", "--listen", "8000"}, 2, "--listen 8000: expected HOST:PORT"},
		{[]string{"serve", "--model", dir, "--listen", busy.Addr().String()}, 1, "listen " + busy.Addr().String() + ": the port is in use by another program, expected a free one"},
		{[]string{"serve", "--model", filepath.Join(dir, "none"), "--listen", "127.0.0.1:0"}, 1, "none"},
		{[]string{"complete"}, 2, "--prefix-file is missing, expected a file, or - for standard input"},
		{[]string{"complete", "--prefix-file", file, "y"}, 2, `complete: found argument "y", expected flags only`},
		{[]string{"complete", "--prefix-file", file, "--temperature", "-1"}, 2, "--temperature: found -1, expected 0 to 100"},
		{[]string{"complete", "--prefix-file", file, "--top-p", "2"}, 2, "--top-p: found 2, expected 0 to 1"},
		{[]string{"complete", "--prefix-file", file, "--max-tokens", "-1"}, 2, "--max-tokens -1: expected 0 or more"},
		{[]string{"complete", "--prefix-file", "-", "--suffix-file", "-"}, 2, "--prefix-file and --suffix-file are both standard input, expected one of them"},
		{[]string{"complete", "--prefix-file", file, "--fim", "maybe"}, 2, "--fim maybe: expected auto, always or never"},
		{[]string{"complete", "--prefix-file", file, "--fim-order", "mps"}, 2, "--fim-order mps: expected auto, psm or spm"},
		{[]string{"complete", "--prefix-file", file, "--speculate", "on"}, 2, "--speculate on: expected auto or off"},
		{[]string{"serve", "--fim-order", "mps"}, 2, "--fim-order mps: expected auto, psm or spm"},
		{[]string{"serve", "--speculate", "on"}, 2, "--speculate on: expected auto or off"},
		{[]string{"serve", "--prompt-cache", "-2"}, 2, "--prompt-cache -2: expected -1 or more"},
		{[]string{"complete", "--prefix-file", filepath.Join(dir, "none")}, 1, "--prefix-file: open"},
		{[]string{"complete", "--model", dir, "--prefix-file", file, "--suffix-file", file, "--fim", "never"}, 1, "suffix: found a suffix, expected none: fill-in-the-middle is switched off"},
	} {
		_, err := runWith(t.Context(), "", c.args...)
		var message bytes.Buffer
		if code := report(t.Context(), &message, err); code != c.code || !strings.Contains(message.String(), c.want) || strings.Count(message.String(), "\n") != 1 {
			t.Errorf("%v: exit code %d, %q; expected %d, %q", c.args, code, message.String(), c.code, c.want)
		}
	}
}

// TestServe: the address in the ready line answers, and an interrupt ends the command without an error.
func TestServe(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := serveModel(ctx, serveFlags{concurrency: 8, inference: inference{model: smallModel(t)}, operations: operations{listen: []string{"127.0.0.1:0"}}, queue: 1, promptCache: 1, log: "off"}, w, io.Discard)
		w.CloseWithError(err) // a server that cannot start must not keep the test waiting
		done <- err
	}()
	var line [200]byte
	n, err := r.Read(line[:])
	if err != nil {
		t.Fatal(err)
	}
	url, ok := strings.CutPrefix(string(line[:n]), "small is ready at ")
	if !ok || !strings.HasSuffix(url, "/v1\n") {
		t.Fatalf("ready line %q", line[:n])
	}
	resp, err := http.Post(strings.TrimSpace(url)+"/completions", "application/json", strings.NewReader(`{"prompt":"def f","max_tokens":3}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !strings.Contains(string(body), `"model":"small"`) {
		t.Errorf("%d %s, %v", resp.StatusCode, body, err)
	}
	interrupt()
	if err := <-done; err != nil {
		t.Errorf("interrupted: %v", err)
	}
}
