package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"autodev/infer/infertest"
	"autodev/lora"
)

// refused checks that a command line ends with the exit code and exactly one line, after the progress that a run may have
// shown: "autodev: " and the message.
func refused(t *testing.T, o outcome, code int, message string) {
	t.Helper()
	if o.code != code || o.out != "" || lastLine(o.err) != "autodev: "+message {
		t.Errorf("exit code %d, %q on standard output, message\n%s\nexpected exit code %d, nothing, message\nautodev: %s", o.code, o.out, o.err, code, message)
	}
}

// TestBadInput: what people get wrong is said in one line that names it, and the exit code tells misuse (2) from failure (1).
func TestBadInput(t *testing.T) {
	w := newWorkshop(t)
	small := smallModel(t)
	none := filepath.Join(w.dir, "none")
	in := func(name, text string) string { return writeText(t, filepath.Join(w.dir, name), text) }
	typo := in("typo.yaml", "data:\n  train: [{path: code}]\ntrain:\n  steps: 3\n  warmpu_steps: 1\n")
	noYAML := in("no.yaml", "data: [\n")
	prefix := in("prefix.py", "def f():\n")
	if err := os.MkdirAll(filepath.Join(w.dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(w.dir, "empty")
	truncated := in("truncated.parquet", "PAR1 this is no longer all of it")
	badLine := in("bad.jsonl", "{\"content\": \"x\"}\n{\"content\": }\n")

	// A model cut short, and one of another shape with an adapter.
	cut := filepath.Join(w.dir, "cut")
	for name, text := range tree(t, small) {
		if name == "model.safetensors" {
			text = text[:len(text)/2]
		}
		in(filepath.Join("cut", name), text)
	}
	c := infertest.Config(infertest.Tokenizer(t).VocabSize())
	c.Embed, c.Inner = 32, 64
	foreign, err := lora.New(c, lora.Spec{Rank: 2, Alpha: 4, Targets: []string{"c_attn"}, Init: lora.Kaiming}, 1)
	if err != nil {
		t.Fatal(err)
	}
	foreignDir := filepath.Join(w.dir, "foreign")
	if err := foreign.Save(foreignDir); err != nil {
		t.Fatal(err)
	}
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	out := filepath.Join(w.dir, "out")

	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"unknown command", []string{"trian"}, 2, `unknown command "trian"; autodev --help lists the commands`},
		{"unknown subcommand", []string{"eval", "perplexities"}, 2, `unknown command "perplexities"; autodev eval --help lists the commands`},
		{"unknown flag", []string{"train", "--confg", w.recipe}, 2, `flag provided but not defined: --confg`},
		{"unknown flag before a command", []string{"--verbose", "train"}, 2, `flag provided but not defined: --verbose`},
		{"flag without a value", []string{"train", "--config"}, 2, `flag needs an argument: --config`},
		{"no number", []string{"eval", "perplexity", "--window", "many"}, 2, `invalid value "many" for flag --window: parse error`},
		{"stray argument", []string{"train", w.recipe}, 2, `unexpected argument "DIR/recipe.yaml"; settings are given as --set KEY.PATH=VALUE`},

		{"no recipe", []string{"train"}, 2, `--config is missing: the recipe, a YAML file (configs/ has some to start from)`},
		{"missing recipe", []string{"train", "--config", none}, 1, `read recipe: open DIR/none: no such file or directory`},
		{"no YAML", []string{"train", "--config", noYAML}, 2, `DIR/no.yaml: yaml: line 1: did not find expected node content`},
		{"unknown key", []string{"train", "--config", typo, "--out", out}, 2, `DIR/typo.yaml:5: train: found unknown key "warmpu_steps", expected one of steps, epochs, micro_batch, accumulation, lr, schedule, warmup_steps, warmup_ratio, min_lr_ratio, weight_decay, decay_all, beta1, beta2, epsilon, clip, dropout, gradient_checkpointing, memory_gb`},
		{"unknown key in --set", []string{"train", "--config", w.recipe, "--set", "train.step=3", "--out", out}, 2, `--set train.step=3: train: found unknown key "step", expected one of steps, epochs, micro_batch, accumulation, lr, schedule, warmup_steps, warmup_ratio, min_lr_ratio, weight_decay, decay_all, beta1, beta2, epsilon, clip, dropout, gradient_checkpointing, memory_gb`},
		{"no output folder", []string{"train", "--config", w.recipe}, 2, `DIR/recipe.yaml: out: found nothing, expected a folder for the results, here or with --out`},
		{"resume", []string{"train", "--config", w.recipe, "--out", out, "--resume", "maybe"}, 2, `--resume: found "maybe", expected auto or never`},
		{"model typo", []string{"train", "--config", w.recipe, "--out", out, "--set", "model=autodev-tyni"}, 1, `model autodev-tyni: no such file or directory, expected a folder with config.json and weights (or "autodev-tiny")`},
		{"missing data", []string{"train", "--config", w.recipe, "--out", out, "--set", "model=" + small, "--set", "data.train.0.path=" + none}, 1, `data.train: data source: stat DIR/none: no such file or directory`},
		{"glob without a match", []string{"train", "--config", w.recipe, "--out", out, "--set", "model=" + small, "--set", "data.train.0.path=" + none + "/*.parquet"}, 1, `data.train: data source DIR/none/*.parquet: no file matches`},
		{"truncated parquet", []string{"train", "--config", w.recipe, "--out", out, "--set", "model=" + small, "--set", "data.train.0.path=" + truncated}, 1, `data.train: DIR/truncated.parquet: offset 28: found "f it", expected "PAR1": not a parquet file, or cut short`},
		{"sequence beyond the model", []string{"train", "--config", w.recipe, "--out", out, "--set", "model=" + small, "--set", "data.sequence=601"}, 1, `data.sequence: found 601, expected at most the model's 600 positions`},
		{"unknown LoRA target", []string{"train", "--config", w.recipe, "--out", out, "--set", "model=" + small, "--set", "lora.targets=[q_proj]"}, 1, `lora: target "q_proj" matches no linear module of the model, expected all-linear or some of attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj`},
		{"negative threads", []string{"train", "--config", w.recipe, "--out", out, "--threads", "-1"}, 2, `--threads -1: expected 0 or more`},
		{"out is a file", []string{"train", "--config", w.recipe, "--out", prefix, "--set", "model=" + small}, 1, `out: mkdir DIR/prefix.py: not a directory`},

		{"perplexity without data", []string{"eval", "perplexity"}, 2, `--data is missing: a parquet or JSON-lines file, a folder, a glob or an http(s) address`},
		{"format", []string{"eval", "perplexity", "--data", w.held, "--format", "html"}, 2, `--format html: expected one of table, markdown, csv, json`},
		{"protocol", []string{"eval", "perplexity", "--data", w.held, "--protocol", "fast"}, 2, `--protocol fast: expected one of exact, strided, original`},
		{"window beyond the model", []string{"eval", "perplexity", "--data", w.held, "--model", small, "--window", "601"}, 1, `window 601: SMALL reads at most 600 tokens`},
		{"evaluated model typo", []string{"eval", "perplexity", "--data", w.held, "--model", "autodev-tyni"}, 1, `model autodev-tyni: no such file or directory, expected a folder with config.json and weights (or "autodev-tiny")`},
		{"adapter of another model", []string{"eval", "perplexity", "--data", w.held, "--model", small, "--adapter", foreignDir}, 1, `DIR/foreign/adapter_model.safetensors: tensor base_model.model.transformer.h.0.attn.c_attn.lora_A.weight: shape [2 32], expected [2 48]: is this the adapter of another model?`},
		{"no adapter", []string{"eval", "perplexity", "--data", w.held, "--model", small, "--adapter", empty}, 1, `read adapter: DIR/empty/adapter_config.json: no such file or directory`},
		{"bad JSON line", []string{"eval", "perplexity", "--data", badLine, "--model", small}, 1, `DIR/bad.jsonl: line 2: byte 13: invalid character '}' looking for beginning of value`},
		{"per-token folder", []string{"eval", "perplexity", "--data", w.held, "--model", small, "--per-token", filepath.Join(none, "tokens.jsonl")}, 1, `--per-token: create DIR/none/tokens.jsonl: no such file or directory`},

		{"merge of a foreign adapter", []string{"lora", "merge", "--model", small, "--adapter", foreignDir, "--out", out}, 1, `DIR/foreign/adapter_model.safetensors: tensor base_model.model.transformer.h.0.attn.c_attn.lora_A.weight: shape [2 32], expected [2 48]: is this the adapter of another model?`},
		{"merge into the model", []string{"lora", "merge", "--model", small, "--adapter", foreignDir, "--out", small}, 2, `--out SMALL: exists already, expected a new or empty folder`},
		{"merge without adapter", []string{"lora", "merge", "--out", out}, 2, `--adapter is missing`},
		{"completion with a foreign adapter", []string{"complete", "--model", small, "--adapter", foreignDir, "--prefix-file", prefix}, 1, `DIR/foreign/adapter_model.safetensors: tensor base_model.model.transformer.h.0.attn.c_attn.lora_A.weight: shape [2 32], expected [2 48]: is this the adapter of another model?`},
		{"completion by no model", []string{"complete", "--model", none, "--prefix-file", prefix}, 1, `model DIR/none: no such file or directory, expected a folder with config.json and weights (or "autodev-tiny")`},
		{"completion by an empty folder", []string{"complete", "--model", empty, "--prefix-file", prefix}, 1, `DIR/empty/config.json: no such file or directory`},
		{"completion by a file", []string{"complete", "--model", prefix, "--prefix-file", prefix}, 1, `model DIR/prefix.py: found a file, expected a folder with config.json and weights (or "autodev-tiny")`},
		{"truncated model", []string{"complete", "--model", cut, "--prefix-file", prefix}, 1, `DIR/cut/model.safetensors: truncated: 173844 bytes, but tensor transformer.wpe.weight ends at 285864`},
		{"truncated model, its info", []string{"model", "info", cut}, 1, `DIR/cut/model.safetensors: truncated: 173844 bytes, but tensor transformer.wpe.weight ends at 285864`},
		{"missing prefix", []string{"complete", "--model", small, "--prefix-file", none}, 1, `--prefix-file: open DIR/none: no such file or directory`},

		{"port in use", []string{"serve", "--model", small, "--listen", busy.Addr().String()}, 1, `listen BUSY: the port is in use by another program, expected a free one`},
		{"no port", []string{"serve", "--listen", "localhost"}, 2, `--listen localhost: expected HOST:PORT or unix:PATH`},
		{"impossible port", []string{"serve", "--listen", "127.0.0.1:99999"}, 2, `--listen 127.0.0.1:99999: port "99999", expected 0 to 65535`},
		{"served with a foreign adapter", []string{"serve", "--model", small, "--adapter", foreignDir, "--listen", "127.0.0.1:0"}, 1, `DIR/foreign/adapter_model.safetensors: tensor base_model.model.transformer.h.0.attn.c_attn.lora_A.weight: shape [2 32], expected [2 48]: is this the adapter of another model?`},
		{"served model typo", []string{"serve", "--model", "autodev-tinny", "--listen", "127.0.0.1:0"}, 1, `model autodev-tinny: no such file or directory, expected a folder with config.json and weights (or "autodev-tiny")`},

		{"tokenizer", []string{"tokenize", "--tokenizer", none}, 1, `tokenizer DIR/none: no such file or directory`},
		{"ids", []string{"tokenize", "--decode", "--file", prefix}, 1, `DIR/prefix.py: token id 1: found "def", expected a number`},
		{"ids beyond the vocabulary", []string{"tokenize", "--decode", "--tokenizer", w.tokenizer, "--file", in("ids", "1 2 999")}, 1, `DIR/ids: token id 3: found 999, expected an id of the vocabulary (0 to 289)`},
		{"vocabulary too small", []string{"tokenizer", "train", "--quiet", "--out", out, "--vocab-size", "100", w.code}, 1, `train tokenizer: vocabulary size 100, expected at least 261 (5 specials and 256 bytes)`},
		{"vocabulary into a model", []string{"tokenizer", "train", "--quiet", "--out", small, "--vocab-size", "300", w.code}, 2, `--out SMALL: the folder of a model, whose tokenizer would be replaced, expected another`},
		{"documents", []string{"data", "cat", none}, 1, `data source: stat DIR/none: no such file or directory`},
		{"documents' format", []string{"data", "cat", w.code, "--input", "csv"}, 2, `--input csv: expected one of auto, parquet, jsonl, folder`},
		{"demo without Go", []string{"demo", "--goroot", none}, 1, `standard library: data source: stat DIR/none/src: no such file or directory`},
		{"demo on nothing", []string{"demo", "--goroot", empty, "--steps", "-1"}, 2, `demo: --steps and --threads expect 0 or more, --budget more than 0`},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := autodev(t, "", c.args...)
			want := strings.NewReplacer("DIR", w.dir, "SMALL", small, "BUSY", busy.Addr().String()).Replace(c.want)
			refused(t, o, c.code, want)
			if o.err != lastLine(o.err)+"\n" {
				t.Errorf("more than one line:\n%s", o.err)
			}
		})
	}
}

// A folder from elsewhere may hold links to anything: none makes a command wait or read for ever.
func TestFoldersWithDevices(t *testing.T) {
	model, adapter := t.TempDir(), t.TempDir()
	if err := os.CopyFS(model, os.DirFS(smallModel(t))); err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(adapter, "adapter_config.json"), `{"peft_type": "LORA", "target_modules": "all-linear"}`)
	for _, c := range []struct{ dir, file, want string }{
		{model, "config.json", "%s: mode"},
		{model, "model.safetensors", "%s: mode"},
		{model, "tokenizer.json", "%s: mode"},
		{model, "tokenizer_config.json", "%s: mode"},
		{adapter, "adapter_config.json", "read adapter: %s: mode"},
		{adapter, "adapter_model.safetensors", "open %s: mode"},
	} {
		name := filepath.Join(c.dir, c.file)
		text, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if err := errors.Join(os.RemoveAll(name), os.Symlink("/dev/zero", name)); err != nil {
			t.Skip(err)
		}
		args := []string{"complete", "--model", model, "--prefix-file", filepath.Join(adapter, "adapter_config.json")}
		if c.dir == adapter {
			args = []string{"lora", "merge", "--model", model, "--adapter", adapter, "--out", filepath.Join(adapter, "out")}
		}
		if o := autodev(t, "", args...); o.code != exitFailure || !strings.HasPrefix(o.err, "autodev: "+fmt.Sprintf(c.want, name)) {
			t.Errorf("%s: exit code %d, %s", c.file, o.code, o.err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if text != nil {
			writeText(t, name, string(text))
		}
	}
}

// An interrupted command says what it was at and ends with a code of its own.
func TestInterrupted(t *testing.T) {
	w, small := newWorkshop(t), smallModel(t)
	ctx, interrupt := context.WithCancelCause(t.Context())
	interrupt(signalled{})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"train", "--config", w.recipe, "--out", filepath.Join(w.dir, "out"), "--set", "model=" + small}, "load " + small + ": interrupted"},
		{[]string{"eval", "perplexity", "--model", small, "--data", w.held}, "data source " + w.held + ": interrupted"},
		{[]string{"model", "convert", small, "--out", filepath.Join(w.dir, "converted")}, "load " + small + ": interrupted"},
		{[]string{"serve", "--model", small, "--listen", "127.0.0.1:0"}, "load " + small + ": interrupted"},
	} {
		var out, errs bytes.Buffer
		code := run(ctx, append([]string{"autodev"}, c.args...), streams{strings.NewReader(""), &out, &errs})
		refused(t, outcome{code, out.String(), errs.String()}, exitInterrupt, c.want)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "converted")); err == nil {
		t.Error("an interrupted conversion left its folder")
	}
	if _, err := os.Stat(filepath.Join(w.dir, "out")); err == nil {
		t.Error("training that was interrupted before its first step left its folder")
	}
}

// signalled is like the cause of a context that signal.NotifyContext has ended.
type signalled struct{}

func (signalled) Error() string        { return "interrupt signal received" }
func (signalled) Is(target error) bool { return target == context.Canceled }

// TestReport: whatever an error holds, it is one line.
func TestReport(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		want string
	}{
		{nil, 0, ""},
		{errors.Join(errors.New("a"), fmt.Errorf("b:\n  c")), exitFailure, "autodev: a; b:; c\n"},
		{errors.New("tensor \x1b[2Jx\u202e: missing"), exitFailure, "autodev: tensor  [2Jx : missing\n"},
		{fmt.Errorf("x: %w", usageError("y")), exitMisuse, "autodev: x: y\n"},
		{fmt.Errorf("load m: %w", context.Canceled), exitInterrupt, "autodev: load m: interrupted\n"},
		{fmt.Errorf("pack m: %w", signalled{}), exitInterrupt, "autodev: pack m: interrupted\n"},
	} {
		var out bytes.Buffer
		ctx, interrupt := context.WithCancelCause(t.Context())
		interrupt(signalled{})
		if code := report(ctx, &out, c.err); code != c.code || out.String() != c.want {
			t.Errorf("%v: exit code %d, %q, expected %d, %q", c.err, code, out.String(), c.code, c.want)
		}
	}
}

// changeBytes flips bits in a part of a file, from and to in hundredths of its length; a second call undoes it.
func changeBytes(t *testing.T, name string, from, to int) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(b) * from / 100; i < len(b)*to/100; i++ {
		b[i] ^= 0xa5
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A shard that cannot be read ends a run where it is: the error names the file, what was learnt is kept, and once the shard is
// whole again the same command goes on to the result of an undisturbed run.
func TestUnreadableShard(t *testing.T) {
	w := newWorkshop(t)
	type row struct {
		Content string `parquet:"content,zstd"`
	}
	write := func(name string, first int) string {
		code := tree(t, writeCode(t, t.TempDir(), first, 40))
		var b bytes.Buffer
		pw := parquet.NewGenericWriter[row](&b)
		for i, name := range names(code) {
			if _, err := pw.Write([]row{{code[name]}}); err != nil {
				t.Fatal(err)
			}
			if i%10 == 9 {
				if err := pw.Flush(); err != nil { // ends a row group
					t.Fatal(err)
				}
			}
		}
		if err := pw.Close(); err != nil {
			t.Fatal(err)
		}
		return writeText(t, filepath.Join(w.dir, name), b.String())
	}
	whole, damaged := write("1.parquet", 0), write("2.parquet", 40)
	command := func(out string) []string {
		return append([]string{"train", "--config", w.recipe, "--out", filepath.Join(w.dir, out), "--set", "data.train=[{path: " + whole + "}, {path: " + damaged + "}]",
			"--set", "data.shuffle=false", "--set", "train.steps=200", "--set", "checkpoint.every=20", "--set", "checkpoint.keep=0", "--set", "eval.every=0"}, w.initSets()...)
	}
	want := tree(t, lastLine(must(t, command("undisturbed")...)))

	// The footer stays as it is, so that the damage shows when the row groups are read.
	changeBytes(t, damaged, 30, 60)
	disturbed := filepath.Join(w.dir, "disturbed")
	o := autodev(t, "", command("disturbed")...)
	steps := len(trainLosses(t, disturbed))
	checkpoint := filepath.Join(disturbed, fmt.Sprintf("checkpoint-%d", steps))
	message := lastLine(o.err)
	t.Log(message)
	if o.code != exitFailure || o.out != "" || !strings.HasPrefix(message, "autodev: ") || !strings.Contains(message, damaged+": ") || !strings.HasSuffix(message, "; the last checkpoint is "+checkpoint) {
		t.Errorf("exit code %d\n%s%s\nexpected the names of %s and %s", o.code, o.out, o.err, damaged, checkpoint)
	}
	for _, dir := range []string{checkpoint, filepath.Join(disturbed, "checkpoint-20")} {
		if _, err := os.Stat(filepath.Join(dir, "model.safetensors")); err != nil || steps < 20 || steps >= 200 {
			t.Errorf("after %d steps: %v", steps, err)
		}
	}
	if _, err := os.Stat(filepath.Join(disturbed, "final")); err == nil {
		t.Error("a run without an end left a final model")
	}

	// A shard cut short is noticed before the run goes on, and costs no checkpoint.
	changeBytes(t, damaged, 30, 60)
	b, err := os.ReadFile(damaged)
	if err != nil {
		t.Fatal(err)
	}
	before := tree(t, disturbed)
	if err := os.Truncate(damaged, int64(len(b)/2)); err != nil {
		t.Fatal(err)
	}
	if o := autodev(t, "", command("disturbed")...); o.code != exitFailure || !strings.HasPrefix(o.err, "autodev: data.train: "+damaged+": offset ") || !strings.HasSuffix(o.err, ": not a parquet file, or cut short\n") {
		t.Errorf("cut short: exit code %d\n%s%s", o.code, o.out, o.err)
	}
	if !sameFiles(before, tree(t, disturbed)) {
		t.Error("cut short: the run's folder has changed")
	}

	writeText(t, damaged, string(b))
	if got := tree(t, lastLine(must(t, command("disturbed")...))); !sameFiles(got, want) {
		t.Error("with the shard whole again: other bytes than those of an undisturbed run")
	}
}

// A run goes on only as it began.
func TestResumeMisfits(t *testing.T) {
	w := newWorkshop(t)
	out := filepath.Join(w.dir, "out")
	command := append([]string{"train", "--config", w.recipe, "--out", out}, w.initSets()...)
	must(t, command...)
	before := tree(t, out)
	last := filepath.Join(out, "checkpoint-6")
	other := filepath.Join(w.dir, "other")
	must(t, "tokenizer", "train", "--quiet", "--out", other, "--vocab-size", "290", "--min-frequency", "3", w.held)
	began := ", with which the run began (to begin anew, choose another --out)"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--set", "train.lr=0.02"}, "resume from " + last + ": train.lr: found 0.02, expected 0.01" + began},
		{[]string{"--set", "train.steps=8"}, "resume from " + last + ": train.steps: found 8, expected 6" + began},
		{[]string{"--set", "seed=8"}, "resume from " + last + ": seed: found 8, expected 7" + began},
		{[]string{"--set", "init.n_layer=1"}, "resume from " + last + ": init.n_layer: found 1, expected 2" + began},
		{[]string{"--set", "init.tokenizer=" + other}, "resume from " + last + ": the run began with another model or tokenizer than the recipe names now"},
		{[]string{"--resume", "never"}, "out: found " + last + " of an earlier run, expected a folder without checkpoints when not resuming"},
	} {
		refused(t, autodev(t, "", slices.Concat(command, c.args)...), exitFailure, c.want)
	}
	if !sameFiles(before, tree(t, out)) {
		t.Error("a refused command changed the run's folder")
	}
	// Threads and checkpoints are no part of a run's identity, and a finished run is still finished.
	if got := lastLine(must(t, append(command, "--threads", "1", "--set", "checkpoint.every=2")...)); got != filepath.Join(out, "final") {
		t.Errorf("the finished run again prints %q", got)
	}
}

// TestBadRequests: the server answers what it cannot use with the place of the mistake, and goes on serving.
func TestBadRequests(t *testing.T) {
	s := startServer(t, "small", "--model", smallModel(t), "--log", "off", "--threads", "1")
	for _, c := range []struct {
		name string
		body any // a string is sent as it is
		code string
		want string
	}{
		{"malformed JSON", `{"prompt": "x",}`, "invalid_json", "body: malformed JSON at byte 16 of 16: invalid character '}' looking for beginning of object key string"},
		{"half of it", `{"prompt": "x`, "invalid_json", "body: malformed JSON at byte 13 of 13: unexpected end of JSON input"},
		{"nothing", ``, "invalid_json", "body: malformed JSON at byte 0 of 0: unexpected end of JSON input"},
		{"no object", `[1]`, "invalid_json", "body: found an array, expected an object"},
		{"no prompt", `{}`, "missing_required_parameter", "prompt: missing, expected a string, an array of strings or an array of token ids"},
		{"wrong type", `{"prompt":"x","max_tokens":"many"}`, "invalid_value", "max_tokens: found a string, expected a whole number from 0 to 2147483647"},
		{"ids beyond the context", map[string]any{"prompt": slices.Repeat([]int{7}, 601)}, "context_length_exceeded",
			"prompt: found 601 tokens, expected at most 599: the model's context is 600 and at least 1 is left for the completion"},
		{"text beyond the context", map[string]any{"prompt": strings.Repeat("\x01", 700), "truncate": false}, "context_length_exceeded",
			"prompt: found 700 tokens, expected at most 599: the model's context is 600 and at least 1 is left for the completion"},
		{"no such token", `{"prompt":[1,99999]}`, "invalid_value", "prompt: token 1: found id 99999, expected 0 to 321"},
	} {
		body, ok := c.body.(string)
		if !ok {
			b, err := json.Marshal(c.body)
			if err != nil {
				t.Fatal(err)
			}
			body = string(b)
		}
		res, err := http.Post(s.url+"/v1/completions", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		var got struct {
			Error struct{ Message, Type, Code string }
		}
		if err := errors.Join(err, json.Unmarshal(b, &got)); err != nil {
			t.Fatalf("%s: %v in %s", c.name, err, b)
		}
		if res.StatusCode != http.StatusBadRequest || got.Error.Code != c.code || got.Error.Message != c.want || got.Error.Type != "invalid_request_error" {
			t.Errorf("%s: status %d, %s\nexpected 400, code %s, message %s", c.name, res.StatusCode, b, c.code, c.want)
		}
	}
	if got := s.get(t, "/healthz"); got != `{"status":"ok"}`+"\n" {
		t.Errorf("afterwards: %s", got)
	}
}

// A prompt longer than the context is cut at the ends away from the cursor: what is left fits, together with the completion.
func TestLongPrompt(t *testing.T) {
	dir := smallModel(t)
	prefix := strings.Repeat("for i in range(10):\n    print(i)\n", 200) + "LAST"
	suffix := "FIRST" + strings.Repeat("\nreturn a + b", 200)
	out := must(t, "complete", "--model", dir, "--prefix-file", writeText(t, filepath.Join(t.TempDir(), "p"), prefix),
		"--suffix-file", writeText(t, filepath.Join(t.TempDir(), "s"), suffix), "--max-tokens", "20", "--fim-order", "psm", "--json")
	var got completeOutput
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	ids := got.PromptIDs
	if !got.Shortened || len(ids) > 600-20 || len(ids) < 500 {
		t.Errorf("shortened %v to %d tokens, expected at most 580", got.Shortened, len(ids))
	}
	tok := infertest.Tokenizer(t)
	fim, _ := tok.FIM()
	at := slices.Index(ids, fim.Suffix)
	if ids[0] != fim.Prefix || at < 0 || ids[len(ids)-1] != fim.Middle {
		t.Fatalf("no template in %v", ids)
	}
	if p, s := tok.Decode(ids[1:at]), tok.Decode(ids[at+1:len(ids)-1]); !strings.HasSuffix(prefix, p) || p == "" || !strings.HasPrefix(suffix, s) || s == "" {
		t.Errorf("kept %q and %q", p, s)
	}
}
