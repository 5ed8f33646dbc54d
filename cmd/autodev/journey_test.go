package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"autodev/infer/infertest"
	"autodev/internal/sharedtest"
	"autodev/train"
)

// processEnv makes this test binary behave as autodev, for tests that need a process of its own: signals, exit codes.
const processEnv = "AUTODEV_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(processEnv) != "" {
		main() // exits
	}
	// Where a test does not say otherwise it is about the processor, whatever the machine has: device auto finds no driver.
	if err := os.Setenv("AUTODEV_LIBCUDA", "none"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// process prepares autodev as a process.
func process(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signals")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), processEnv+"=1")
	return cmd
}

// outcome is what a command line came to.
type outcome struct {
	code     int
	out, err string
}

// autodev runs a command line in this process.
func autodev(t *testing.T, input string, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), append([]string{"autodev"}, args...), streams{strings.NewReader(input), &out, &errs})
	return outcome{code, out.String(), errs.String()}
}

// must runs a command line that is to succeed and returns what it printed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	o := autodev(t, "", args...)
	if o.code != 0 {
		t.Fatalf("autodev %s: exit code %d\n%s%s", strings.Join(args, " "), o.code, o.out, o.err)
	}
	return o.out
}

// lastLine returns the last line of text.
func lastLine(text string) string {
	text = strings.TrimSuffix(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// writeText writes a file and the folders above it.
func writeText(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// writeCode writes a folder of Python repositories with files numbered from first and returns its path.
func writeCode(t *testing.T, dir string, first, n int) string {
	t.Helper()
	names := []string{"alpha", "beta", "gamma", "delta", "epsilon"}
	for i := first; i < first+n; i++ {
		var b strings.Builder
		for k := range 4 {
			name, arg := names[(i+k)%5], names[(i*3+k)%5]
			fmt.Fprintf(&b, "def %s(%s):\n    return %s + %d\n\n", name, arg, arg, (i+k)%3)
		}
		writeText(t, filepath.Join(dir, fmt.Sprintf("repo%d", i/3), fmt.Sprintf("file%d.py", i)), b.String())
	}
	return dir
}

// workshop is what the training journeys start from.
type workshop struct{ dir, code, held, tokenizer, recipe string }

// initSets make a recipe train a new small model.
func (w workshop) initSets() []string {
	return []string{"--set", "init={n_layer: 2, n_embd: 32, n_head: 2, n_positions: 64, dropout: 0.1}", "--set", "init.tokenizer=" + w.tokenizer}
}

// newWorkshop writes documents and a recipe and trains a vocabulary.
func newWorkshop(t *testing.T) workshop {
	t.Helper()
	dir := t.TempDir()
	w := workshop{dir, writeCode(t, filepath.Join(dir, "code"), 0, 15), writeCode(t, filepath.Join(dir, "held"), 100, 6), filepath.Join(dir, "tokenizer"), ""}
	w.recipe = writeText(t, filepath.Join(dir, "recipe.yaml"), fmt.Sprintf(`data:
  train:
    - path: %q
      languages: [python]
  eval:
    - path: %q
train:
  steps: 6
  micro_batch: 1
  accumulation: 2
  lr: 1e-2
  warmup_steps: 2
eval: {every: 3}
checkpoint: {every: 3}
seed: 7
`, w.code, w.held))
	out := must(t, "tokenizer", "train", "--quiet", "--out", w.tokenizer, "--vocab-size", "290", w.code)
	if out != w.tokenizer+": 290 tokens\n" {
		t.Fatalf("tokenizer train prints %q", out)
	}
	return w
}

// perplexityReport is eval perplexity --format json as a program reads it.
type perplexityReport struct {
	Protocol string `json:"protocol"`
	Window   int    `json:"window"`
	Rows     []struct {
		Model       string                      `json:"model"`
		Perplexity  float64                     `json:"perplexity"`
		Percent     float64                     `json:"percent_of_first"`
		Interval    struct{ Low, High float64 } `json:"perplexity_95"`
		Tokens      int                         `json:"tokens"`
		Documents   int                         `json:"documents"`
		NLL         float64                     `json:"nll_sum"`
		BitsPerByte float64                     `json:"bits_per_byte"`
	} `json:"rows"`
}

func evaluate(t *testing.T, args ...string) (r perplexityReport) {
	t.Helper()
	out := must(t, append([]string{"eval", "perplexity", "--format", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return r
}

// TestPlatformEngineer: a folder of code becomes a model, a fully fine-tuned one and an adapter; a table compares them; the
// adapter is merged; the result is inspected and converted.
func TestPlatformEngineer(t *testing.T) {
	w := newWorkshop(t)
	base := lastLine(must(t, append([]string{"train", "--config", w.recipe, "--out", filepath.Join(w.dir, "base"), "--set", "train.steps=30", "--set", "eval.every=0"}, w.initSets()...)...))
	losses := trainLosses(t, filepath.Join(w.dir, "base"))
	if len(losses) != 30 || losses[29] > losses[0]-1 {
		t.Errorf("losses %v, expected 30 that fall by more than 1", losses)
	}
	// Both kinds of fine-tuning take the same recipe.
	full := lastLine(must(t, "train", "--config", w.recipe, "--out", filepath.Join(w.dir, "full"), "--set", "model="+base, "--set", "train.steps=12"))
	adapter := lastLine(must(t, "train", "--config", w.recipe, "--out", filepath.Join(w.dir, "lora"), "--set", "model="+base, "--set", "train.steps=12",
		"--set", "lora={rank: 4, targets: [c_attn, mlp.c_proj]}", "--set", "lora.dropout=0.1"))
	if want := filepath.Join(w.dir, "lora", "final"); adapter != want {
		t.Errorf("the adapter is said to be in %s, expected %s", adapter, want)
	}

	perToken := filepath.Join(w.dir, "tokens.jsonl")
	candidates := []string{"--data", w.held, "--model", base, "--model", full, "--adapter", adapter}
	r := evaluate(t, append(candidates, "--per-token", perToken)...)
	if len(r.Rows) != 3 || r.Rows[0].Model != base || r.Rows[1].Model != full || r.Rows[2].Model != base+" + "+adapter || r.Protocol != "exact" || r.Window != 64 {
		t.Fatalf("report %+v", r)
	}
	sums := perTokenSums(t, perToken)
	for i, row := range r.Rows {
		s := sums[row.Model]
		if row.Documents != 6 || s.documents != 6 || s.tokens != row.Tokens || math.Abs(s.nll-row.NLL) > 1e-9*row.NLL {
			t.Errorf("row %+v, the tokens' file says %+v", row, s)
		}
		if want := math.Exp(row.NLL / float64(row.Tokens)); math.Abs(row.Perplexity-want) > 1e-9*want || row.Interval.Low >= row.Perplexity || row.Perplexity >= row.Interval.High {
			t.Errorf("row %+v: expected perplexity %v", row, want)
		}
		if want := 100 * row.Perplexity / r.Rows[0].Perplexity; math.Abs(row.Percent-want) > 1e-9*want {
			t.Errorf("row %+v: expected %v percent", row, want)
		}
		if i > 0 && row.Perplexity >= r.Rows[0].Perplexity {
			t.Errorf("training on like documents made %s worse: %v, the base has %v", row.Model, row.Perplexity, r.Rows[0].Perplexity)
		}
	}
	for format, check := range map[string]func(string) bool{
		"table": func(s string) bool {
			return strings.HasPrefix(s, "Model ") && strings.Count(s, "\n") == 5 && strings.HasPrefix(lastLine(s), "exact protocol (window 64, stride 32), 6 documents, ")
		},
		"markdown": func(s string) bool {
			return strings.HasPrefix(s, "| Model | Perplexity | % of first | 95 % interval | Bits per byte |\n|---|---:|---:|---:|---:|\n| "+base+" | ") && strings.Contains(s, " | 100 % | ")
		},
		"csv": func(s string) bool {
			rows, err := csv.NewReader(strings.NewReader(s)).ReadAll()
			if err != nil || len(rows) != 4 || rows[0][0] != "model" || rows[3][0] != r.Rows[2].Model {
				return false
			}
			p, err := strconv.ParseFloat(rows[2][1], 64)
			return err == nil && p == r.Rows[1].Perplexity
		},
	} {
		if out := must(t, append([]string{"eval", "perplexity", "--format", format}, candidates...)...); !check(out) {
			t.Errorf("as %s:\n%s", format, out)
		}
	}

	// The other protocols score the documents as one stream: all but its first token, or all but what the window has before its
	// first stride.
	strided, original := evaluate(t, append(candidates, "--protocol", "strided")...), evaluate(t, append(candidates, "--protocol", "original")...)
	if strided.Rows[0].Tokens <= r.Rows[0].Tokens || original.Rows[0].Tokens != strided.Rows[0].Tokens+1-(64-32) {
		t.Errorf("tokens scored: exact %d, strided %d, original %d", r.Rows[0].Tokens, strided.Rows[0].Tokens, original.Rows[0].Tokens)
	}
	for protocol, s := range map[string]perplexityReport{"strided": strided, "original": original} {
		if s.Protocol != protocol || len(s.Rows) != 3 || !(s.Rows[1].Perplexity > 1 && s.Rows[1].Perplexity < s.Rows[0].Perplexity) {
			t.Errorf("%s: %+v", protocol, s)
		}
	}

	merged := filepath.Join(w.dir, "merged")
	if out := must(t, "lora", "merge", "--model", base, "--adapter", adapter, "--out", merged); out != merged+": 4 modules merged\n" {
		t.Errorf("merge prints %q", out)
	}
	if m := evaluate(t, "--data", w.held, "--model", merged).Rows[0]; m.NLL != r.Rows[2].NLL || m.Tokens != r.Rows[2].Tokens {
		t.Errorf("merged %+v, expected the adapter's %+v", m, r.Rows[2])
	}

	if out := must(t, "model", "info", merged); !strings.Contains(out, "2 layers, width 32") || !strings.Contains(out, "290 tokens; FIM prefix 1, middle 2, suffix 3") {
		t.Errorf("info:\n%s", out)
	}
	// bf16 and back loses nothing more the second time, and sharding changes no tensor.
	half, wide, again := filepath.Join(w.dir, "half"), filepath.Join(w.dir, "wide"), filepath.Join(w.dir, "again")
	must(t, "model", "convert", merged, "--out", half, "--dtype", "bf16")
	must(t, "model", "convert", half, "--out", wide, "--max-shard-size", "20KB")
	must(t, "model", "convert", wide, "--out", again, "--dtype", "bf16")
	if a, b := tree(t, half), tree(t, again); !sameFiles(a, b) || len(a["model.safetensors"]) == 0 {
		t.Errorf("bf16 → f32 in shards → bf16: files %v differ from %v", names(b), names(a))
	}
	if _, ok := tree(t, wide)["model.safetensors.index.json"]; !ok {
		t.Errorf("files %v, expected shards and an index", names(tree(t, wide)))
	}
}

// The embedded model is a model like any other.
func TestEmbeddedModel(t *testing.T) {
	dir := t.TempDir()
	if out := must(t, "model", "info", "autodev-tiny"); !strings.Contains(out, "gpt_bigcode") || !strings.Contains(out, "FIM prefix") {
		t.Errorf("info:\n%s", out)
	}
	direct, wide, again := filepath.Join(dir, "direct"), filepath.Join(dir, "wide"), filepath.Join(dir, "again")
	must(t, "model", "convert", "autodev-tiny", "--out", direct, "--dtype", "f16")
	must(t, "model", "convert", "autodev-tiny", "--out", wide)
	must(t, "model", "convert", wide, "--out", again, "--dtype", "f16")
	if !sameFiles(tree(t, direct), tree(t, again)) {
		t.Error("f32 → f16 differs from f16")
	}
	prefix := writeText(t, filepath.Join(dir, "prefix.py"), "def add(a, b):\n    return ")
	var inside, outside completeOutput
	for model, got := range map[string]*completeOutput{"": &inside, wide: &outside} {
		args := []string{"complete", "--prefix-file", prefix, "--max-tokens", "8", "--json"}
		if model != "" {
			args = append(args, "--model", model)
		}
		if err := json.Unmarshal([]byte(must(t, args...)), got); err != nil {
			t.Fatal(err)
		}
	}
	held := writeCode(t, filepath.Join(dir, "held"), 0, 1)
	if r := evaluate(t, "--data", held); len(r.Rows) != 1 || r.Rows[0].Model != "autodev-tiny" || r.Rows[0].NLL != evaluate(t, "--data", held, "--model", wide).Rows[0].NLL {
		t.Errorf("the default of eval perplexity: %+v", r)
	}
	if inside.Model != "autodev-tiny" || len(inside.IDs) == 0 || !slices.Equal(inside.IDs, outside.IDs) {
		t.Errorf("embedded %+v, converted %+v", inside, outside)
	}
}

// trainLosses reads the losses of a run's record.
func trainLosses(t *testing.T, out string) (losses []float64) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(out, train.RecordFile))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var e train.Entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.Train != nil {
			losses = append(losses, e.Train.Loss)
		}
	}
	return losses
}

type tokenSums struct {
	documents, tokens int
	nll               float64
}

// perTokenSums adds up a --per-token file by model.
func perTokenSums(t *testing.T, name string) map[string]tokenSums {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]tokenSums{}
	for line := range bytes.Lines(b) {
		var r struct {
			Model string
			IDs   []int32
			NLL   []float64
		}
		if err := json.Unmarshal(line, &r); err != nil || len(r.IDs) != len(r.NLL) {
			t.Fatalf("%v in %s", err, line)
		}
		s := sums[r.Model]
		s.documents++
		s.tokens += len(r.NLL)
		for _, x := range r.NLL {
			s.nll += x
		}
		sums[r.Model] = s
	}
	return sums
}

// tree reads all files below dir.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, p))
		files[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func sameFiles(a, b map[string]string) bool {
	for name, text := range a {
		if other, ok := b[name]; !ok || other != text {
			return false
		}
	}
	return len(a) == len(b)
}

func names(files map[string]string) (list []string) {
	for name := range files {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// TestResearcher: one recipe gives one result, however often it runs, on however many threads, interrupted or not.
func TestResearcher(t *testing.T) {
	w := newWorkshop(t)
	command := func(out, threads string) []string {
		return append([]string{"train", "--config", w.recipe, "--out", filepath.Join(w.dir, out), "--threads", threads,
			"--set", "train.steps=300", "--set", "checkpoint.every=50", "--set", "eval.every=0", "--set", "train.dropout=model"}, w.initSets()...)
	}
	want := tree(t, lastLine(must(t, command("first", "1")...)))
	if len(want["model.safetensors"]) == 0 || len(want["tokenizer.json"]) == 0 {
		t.Fatalf("final holds %v", names(want))
	}
	if !sameFiles(tree(t, lastLine(must(t, command("second", "1")...))), want) {
		t.Error("the same command a second time: other bytes")
	}
	if !sameFiles(tree(t, lastLine(must(t, command("threads", "2")...))), want) {
		t.Error("two threads: other bytes")
	}
	if !sameFiles(tree(t, filepath.Join(w.dir, "threads", "checkpoint-300")), tree(t, filepath.Join(w.dir, "first", "checkpoint-300"))) {
		t.Error("two threads: another checkpoint")
	}

	out := filepath.Join(w.dir, "interrupted")
	cmd := process(t, command("interrupted", "1")...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); time.Since(begun) < 30*time.Second; time.Sleep(2 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(out, train.RecordFile)); err == nil && bytes.Count(b, []byte("\n")) > 5 {
			break
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupt {
		t.Fatalf("interrupted: %v, expected exit code %d\n%s", err, exitInterrupt, &errs)
	}
	step := len(trainLosses(t, out))
	message := fmt.Sprintf("autodev: interrupted after step %d, which is saved in %s; the same command goes on from there", step, filepath.Join(out, fmt.Sprintf("checkpoint-%d", step)))
	if lastLine(errs.String()) != message {
		t.Errorf("interrupted: %q, expected %q", lastLine(errs.String()), message)
	}
	o := autodev(t, "", command("interrupted", "2")...)
	if o.code != 0 || !strings.Contains(o.err, fmt.Sprintf("resumed after step %d of 300\n", step)) {
		t.Fatalf("resumed: exit code %d\n%s", o.code, o.err)
	}
	if !sameFiles(tree(t, lastLine(o.out)), want) {
		t.Error("interrupted and resumed: other bytes")
	}
	a, b := trainLosses(t, out), trainLosses(t, filepath.Join(w.dir, "first"))
	if !slices.Equal(a, b) {
		t.Error("interrupted and resumed: another record")
	}
}

// server is autodev serve as a process.
type server struct {
	cmd  *exec.Cmd
	url  string // http://HOST:PORT
	errs *bytes.Buffer
}

// startServer starts autodev serve and waits until it says that it is ready.
func startServer(t *testing.T, id string, args ...string) *server {
	t.Helper()
	return startServerAt(t, id, "", args...)
}

// startServerAt is startServer for a server that also listens somewhere else.
func startServerAt(t *testing.T, id, also string, args ...string) *server {
	t.Helper()
	listen := []string{"serve", "--listen", "127.0.0.1:0"}
	if also != "" {
		listen = append(listen, "--listen", also)
	}
	s := &server{cmd: process(t, append(listen, args...)...), errs: &bytes.Buffer{}}
	s.cmd.Stderr = s.errs
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Process.Kill()
			_ = s.cmd.Wait()
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("no line of readiness: %v\n%s", err, s.errs)
	}
	var ok bool
	if also != "" {
		also = ", " + also
	}
	if s.url, ok = strings.CutPrefix(line, id+" is ready at "); !ok || !strings.HasSuffix(line, "/v1"+also+"\n") {
		t.Fatalf("line of readiness %q", line)
	}
	s.url = strings.TrimSuffix(s.url, "/v1"+also+"\n")
	return s
}

func (s *server) get(t *testing.T, path string) string {
	t.Helper()
	res, err := http.Get(s.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%s", path, res.Status, err, b)
	}
	return string(b)
}

// post asks for a completion; the caller closes the body.
func (s *server) post(t *testing.T, request map[string]any) *http.Response {
	t.Helper()
	b, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(s.url+"/v1/completions", "application/json", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// completion is an answer, or an event of one.
type completion struct {
	Model   string
	Choices []struct {
		Text         string
		FinishReason *string `json:"finish_reason"`
		Logprobs     *struct{ Tokens []string }
	}
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
	}
}

// events reads a stream of server-sent events up to [DONE].
func events(t *testing.T, r *bufio.Reader) (list []completion) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %d events: %v", len(list), err)
		}
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			return list
		}
		var c completion
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			t.Fatalf("%v in %s", err, data)
		}
		list = append(list, c)
	}
}

func text(list []completion) string {
	var b strings.Builder
	for _, c := range list {
		for _, x := range c.Choices {
			b.WriteString(x.Text)
		}
	}
	return b.String()
}

// TestDeveloper: the server answers an editor's request whole and streamed, the one-shot command gives the same tokens, and
// SIGTERM lets what is under way finish.
func TestDeveloper(t *testing.T) {
	dir := smallModel(t)
	s := startServer(t, "small", "--model", dir, "--log", "json", "--threads", "1")
	if got := s.get(t, "/healthz"); got != `{"status":"ok"}`+"\n" {
		t.Errorf("healthz: %s", got)
	}
	var list struct {
		Data []struct {
			ID      string
			Context int `json:"max_model_len"`
		}
	}
	if err := json.Unmarshal([]byte(s.get(t, "/v1/models")), &list); err != nil || len(list.Data) != 1 || list.Data[0].ID != "small" || list.Data[0].Context != 600 {
		t.Errorf("models: %+v, %v", list, err)
	}

	const prefix, suffix = "def secret_name(a, b):\n", "\n    return c\n"
	// As the one-shot command completes: the server would fit the completion into its place.
	request := map[string]any{"prompt": prefix, "suffix": suffix, "max_tokens": 12, "logprobs": 1, "heal": false, "lines": "all", "no_overlap": false, "no_loops": false}
	var whole completion
	res := s.post(t, request)
	err := json.NewDecoder(res.Body).Decode(&whole)
	res.Body.Close()
	if err != nil || res.StatusCode != http.StatusOK || len(whole.Choices) != 1 || whole.Usage == nil || whole.Usage.Completion == 0 {
		t.Fatalf("%s, %v: %+v", res.Status, err, whole)
	}
	request["stream"] = true
	res = s.post(t, request)
	streamed := events(t, bufio.NewReader(res.Body))
	res.Body.Close()
	if got := text(streamed); got != whole.Choices[0].Text || len(streamed) < 2 {
		t.Errorf("streamed %q in %d events, expected %q", got, len(streamed), whole.Choices[0].Text)
	}

	var once completeOutput
	out := must(t, "complete", "--model", dir, "--prefix-file", writeText(t, filepath.Join(t.TempDir(), "p"), prefix),
		"--suffix-file", writeText(t, filepath.Join(t.TempDir(), "s"), suffix), "--max-tokens", "12", "--json")
	if err := json.Unmarshal([]byte(out), &once); err != nil {
		t.Fatal(err)
	}
	tok := infertest.Tokenizer(t)
	var tokens []string
	for _, id := range once.IDs {
		tokens = append(tokens, string(tok.DecodeBytes([]int32{id})))
	}
	c := whole.Choices[0]
	if once.Text != c.Text || string(once.FinishReason) != *c.FinishReason || len(once.PromptIDs) != whole.Usage.Prompt || len(once.IDs) != whole.Usage.Completion {
		t.Errorf("complete: %+v\nserver: %+v %+v", once, c, whole.Usage)
	}
	if c.Logprobs == nil || len(c.Logprobs.Tokens) != len(tokens) {
		t.Fatalf("complete: tokens %q\nserver: %+v", tokens, c.Logprobs)
	}
	for i, token := range c.Logprobs.Tokens {
		// Half a character is spelled out in bytes.
		if token != tokens[i] && !strings.HasPrefix(token, "bytes:") {
			t.Errorf("token %d: server %q, complete %q", i, token, tokens[i])
		}
	}

	// A long completion is under way when the signal comes: a new connection is refused, the stream ends as it should.
	res = s.post(t, map[string]any{"prompt": prefix, "max_tokens": 500, "stream": true, "logit_bias": map[string]any{"0": -100, "1": -100, "2": -100, "3": -100, "4": -100, "5": -100}})
	r := bufio.NewReader(res.Body)
	if _, err := r.Peek(1); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest := events(t, r)
	res.Body.Close()
	if last := rest[len(rest)-1].Choices; len(last) != 1 || last[0].FinishReason == nil || *last[0].FinishReason != "length" {
		t.Errorf("the stream ends with %+v", last)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("terminated: %v\n%s", err, s.errs)
	}
	if log := s.errs.String(); strings.Count(log, `"msg":"request"`) != 4 || strings.Contains(log, "secret_name") {
		t.Errorf("log, expected four requests without their text, and none of the look at its health:\n%s", log)
	}
	if res, err := http.Get(s.url + "/healthz"); err == nil {
		res.Body.Close()
		t.Error("the server still answers")
	}
}

// A second signal ends a server that is still draining.
func TestSecondSignal(t *testing.T) {
	s := startServer(t, "small", "--model", smallModel(t), "--log", "off", "--threads", "1")
	// A request whose body never comes is under way until the server's grace ends.
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The server says when it waits for the body.
	if _, err := io.WriteString(conn, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	done := make(chan error, 1)
	go func() { done <- s.cmd.Wait() }()
	// However late the server gets to its first signal, the ones after it are second ones.
	begun := time.Now()
	for {
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			var exit *exec.ExitError
			if took := time.Since(begun); !errors.As(err, &exit) || exit.Success() || took > 5*time.Second {
				t.Errorf("after %v: %v, expected the end by a signal at once", took, err)
			}
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// TestTokenizerAndData: a vocabulary's ids turn back into the text, and documents come out of folders, JSON lines and parquet.
func TestTokenizerAndData(t *testing.T) {
	w := newWorkshop(t)
	in := "def alpha(beta):\r\n\treturn 'é' # <|endoftext|> \xff\x00"
	ids := autodev(t, in, "tokenize", "--tokenizer", w.tokenizer)
	back := autodev(t, ids.out, "tokenize", "--tokenizer", w.tokenizer, "--decode")
	if ids.code != 0 || back.code != 0 || back.out != in {
		t.Errorf("%q became %q (%s%s)", in, back.out, ids.err, back.err)
	}
	embedded := autodev(t, autodev(t, in, "tokenize").out, "tokenize", "--decode")
	if embedded.out != in {
		t.Errorf("with the embedded vocabulary %q became %q", in, embedded.out)
	}

	lines := writeText(t, filepath.Join(w.dir, "all.jsonl"), must(t, "data", "cat", w.code, "--format", "jsonl"))
	if out := must(t, "data", "cat", lines); strings.Count(out, "\n") != 15 || out != tree(t, w.dir)["all.jsonl"] {
		t.Errorf("cat of cat:\n%s", out)
	}
	of := func(args ...string) string {
		return strings.Join(strings.Fields(must(t, append([]string{"data", "stats"}, args...)...)), " ")
	}
	if a, b := of(w.code, "--tokenizer", w.tokenizer), of(lines, "--tokenizer", w.tokenizer); a != b || !strings.HasPrefix(a, "language documents bytes lines repositories tokens python 15 ") {
		t.Errorf("stats of the folder %q, of the JSON lines %q", a, b)
	}
}

func TestDataParquet(t *testing.T) {
	variants := sharedtest.Path(t, "parquet/variants")
	plain := must(t, "data", "cat", filepath.Join(variants, "codec-none.parquet"))
	if strings.Count(plain, "\n") == 0 || plain != must(t, "data", "cat", filepath.Join(variants, "codec-zstd.parquet")) {
		t.Error("the same rows under two codecs print differently")
	}
	var stats struct{ Languages []struct{ Documents int } }
	if err := json.Unmarshal([]byte(must(t, "data", "stats", "--format", "json", filepath.Join(variants, "codec-zstd.parquet"))), &stats); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, l := range stats.Languages {
		n += l.Documents
	}
	if n != strings.Count(plain, "\n") {
		t.Errorf("stats count %d documents, cat prints %d", n, strings.Count(plain, "\n"))
	}
}

// TestDemo: the whole demo on a standard library of a few packages.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("trains the embedded model for some steps")
	}
	root := t.TempDir()
	for i := range 100 {
		p := fmt.Sprintf("pkg%02d", i)
		writeText(t, filepath.Join(root, "src", p, p+".go"), fmt.Sprintf("package %s\n\n// Add returns the sum of a, b and %d.\nfunc Add(a, b int) int { return a + b + %d }\n", p, i, i))
	}
	kept := filepath.Join(t.TempDir(), "kept")
	o := autodev(t, "", "demo", "--steps", "2", "--goroot", root, "--dir", kept)
	if o.code != 0 {
		t.Fatalf("exit code %d\n%s%s", o.code, o.out, o.err)
	}
	at := 0
	for _, want := range []string{"1. Data: ", "100 packages", "2. Training: LoRA", "3. Training: full", "4. Perplexity", "Model ", "autodev-tiny ", "LoRA, 2 steps ", "full, 2 steps ", "5. The server answers at http://127.0.0.1:", "Done in "} {
		i := strings.Index(o.out[at:], want)
		if i < 0 {
			t.Fatalf("no %q after byte %d of\n%s", want, at, o.out)
		}
		at += i
	}
	if strings.Count(o.out, "⟦") != 3 {
		t.Errorf("expected three completions in\n%s", o.out)
	}
	// What it kept is a model and an adapter.
	must(t, "model", "info", filepath.Join(kept, "full", "final"))
	if _, err := os.Stat(filepath.Join(kept, "lora", "final", "adapter_config.json")); err != nil {
		t.Error(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"autodev", "demo", "--steps", "2", "--goroot", root}, streams{strings.NewReader(""), &out, &errs}); code != exitInterrupt {
		t.Errorf("interrupted: exit code %d\n%s", code, &errs)
	}
}
