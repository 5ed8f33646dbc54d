package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"autodev/configs"
	"autodev/data"
	"autodev/internal/rng"
	"autodev/model"
	"autodev/tokenizer"
)

// text makes a document with structure to learn: few names, regular lines.
func text(i int) string {
	r := rng.New(1, "train test text", uint64(i))
	names := []string{"alpha", "beta", "gamma", "delta"}
	var b strings.Builder
	for range 3 + r.IntN(6) {
		n, m := names[r.IntN(4)], names[r.IntN(4)]
		fmt.Fprintf(&b, "def %s(%s):\n    return %s + %d\n\n", n, m, m, r.IntN(3))
	}
	return b.String()
}

// documents are in memory.
func documents(first, n int) data.Slice {
	var s data.Slice
	for i := range n {
		s = append(s, data.Document{Content: text(first + i), Repository: fmt.Sprintf("r%d", (first+i)/4), Path: fmt.Sprintf("%d.py", first+i)})
	}
	return s
}

// vocabulary writes a small tokenizer and returns its folder.
func vocabulary(t testing.TB) string {
	t.Helper()
	return vocabularyWith(t, "<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")
}

func vocabularyWith(t testing.TB, specials ...string) string {
	t.Helper()
	tok, err := tokenizer.Train(context.Background(), tokenizer.TrainConfig{
		VocabSize: 300, Specials: specials,
	}, iter.Seq2[string, error](func(yield func(string, error) bool) {
		for i := range 50 {
			if !yield(text(i), nil) {
				return
			}
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "tokenizer")
	if err := tok.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fullRecipe trains a new model of two blocks.
const fullRecipe = `
init: {n_layer: 2, n_embd: 16, n_head: 2, n_positions: 48, dropout: 0.1}
data:
  train: [{path: memory}]
train:
  steps: 12
  micro_batch: 2
  accumulation: 2
  lr: 1e-2
  warmup_steps: 2
  dropout: model
eval: {every: 4}
checkpoint: {every: 5}
seed: 3
`

func recipe(t testing.TB, yaml string, sets ...string) configs.Recipe {
	t.Helper()
	r, err := configs.Parse("test.yaml", []byte(yaml), sets)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func options() Options {
	return Options{
		Open: func(_ context.Context, name string) (*Base, error) {
			f, err := model.Open(name)
			if err != nil {
				return nil, err
			}
			tok, err := tokenizer.Load(name)
			return &Base{Config: f.Config, Weights: f, FS: f.FS, Tokenizer: tok, Close: f.Close}, err
		},
		Train: documents(0, 60), Eval: documents(100, 8),
		Logger: slog.New(slog.DiscardHandler),
	}
}

// mustRun runs a recipe in a new folder.
func mustRun(t testing.TB, o Options, yaml string, sets ...string) *Summary {
	t.Helper()
	s, err := Run(t.Context(), recipe(t, yaml, append(sets, "out="+filepath.Join(t.TempDir(), "out"))...), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// base trains a model for the LoRA tests and returns its folder and tokenizer's.
func base(t testing.TB) string {
	t.Helper()
	return mustRun(t, options(), fullRecipe, "init.tokenizer="+vocabulary(t)).Final
}

// loraRecipe trains adapters on a model.
const loraRecipe = `
data:
  train: [{path: memory}]
lora: {rank: 4, dropout: 0.1, targets: all-linear}
train:
  steps: 12
  micro_batch: 2
  accumulation: 2
  lr: 2e-2
  warmup_steps: 2
eval: {every: 4}
checkpoint: {every: 5}
seed: 5
`

// tree reads all files of a run's output but what depends on the clock: the record without times, and no TensorBoard events.
func tree(t testing.TB, out string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(out, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(out, p)
		if err != nil || strings.HasPrefix(rel, "tensorboard") {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if rel == RecordFile {
			var lines []string
			for _, e := range entries(t, b) {
				e.Time = nil
				line, err := json.Marshal(e)
				if err != nil {
					return err
				}
				lines = append(lines, string(line))
			}
			b = []byte(strings.Join(lines, "\n"))
		}
		files[rel] = string(b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func entries(t testing.TB, record []byte) []Entry {
	t.Helper()
	var es []Entry
	for line := range bytes.Lines(record) {
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("record: %v in %q", err, line)
		}
		es = append(es, e)
	}
	return es
}

// sameTree fails when two outputs differ.
func sameTree(t testing.TB, got, want string) {
	t.Helper()
	g, w := tree(t, got), tree(t, want)
	for name, b := range w {
		if g[name] != b {
			if name == RecordFile {
				t.Errorf("%s differs:\n%s\nexpected\n%s", name, g[name], b)
				continue
			}
			t.Errorf("%s differs (%d bytes, expected %d)", name, len(g[name]), len(b))
		}
	}
	for name := range g {
		if _, ok := w[name]; !ok {
			t.Errorf("%s is there, expected not", name)
		}
	}
}

func readRecord(t testing.TB, out string) []Entry {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(out, RecordFile))
	if err != nil {
		t.Fatal(err)
	}
	return entries(t, b)
}

func TestFullTraining(t *testing.T) {
	var lines strings.Builder
	o := options()
	o.Progress = &lines
	s := mustRun(t, o, fullRecipe, "train.steps=60", "checkpoint.every=25", "eval.every=20", "init.tokenizer="+vocabulary(t))
	if s.Steps != 60 || s.Tokens != 60*4*48 || s.Resumed != 0 || s.TokensPerSecond <= 0 || s.PlannedBytes <= 0 || s.Eval == nil {
		t.Errorf("summary %+v", s)
	}
	es := readRecord(t, filepath.Dir(s.Final))
	var losses []float64
	var evals []int
	for _, e := range es {
		if e.Train != nil {
			losses = append(losses, e.Train.Loss)
		}
		if e.Eval != nil {
			evals = append(evals, e.Step)
		}
	}
	if len(losses) != 60 || !slices.Equal(evals, []int{20, 40, 60}) {
		t.Fatalf("%d steps recorded, measurements after %v", len(losses), evals)
	}
	// A new model knows nothing: the loss is that of a guess among 300 tokens.
	if math.Abs(losses[0]-math.Log(300)) > .3 {
		t.Errorf("first loss %v, expected about %v", losses[0], math.Log(300))
	}
	if losses[59] > .6*losses[0] {
		t.Errorf("loss went from %v to %v only", losses[0], losses[59])
	}
	if es[0].Run == nil || es[0].Run.Trained != es[0].Run.Parameters || es[0].Run.Steps != 60 {
		t.Errorf("first entry %+v", es[0].Run)
	}
	out := filepath.Dir(s.Final)
	if got, err := checkpoints(out); err != nil || !slices.Equal(got, []int{60, 50}) {
		t.Errorf("checkpoints %v (%v), expected the newest two, 60 and 50", got, err)
	}
	// The finished model loads, with its tokenizer, and scores what the record says.
	if b, err := o.Open(t.Context(), s.Final); err != nil {
		t.Error(err)
	} else if _, err := b.Weights.Read("transformer.wte.weight"); err != nil {
		t.Error(err)
	} else if err := b.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(lines.String(), "step 60 of 60: loss ") || !strings.Contains(lines.String(), "step 40 of 60: perplexity ") {
		t.Errorf("progress:\n%s", &lines)
	}
}

func TestLoRATraining(t *testing.T) {
	m := mustRun(t, options(), fullRecipe, "train.steps=60", "init.tokenizer="+vocabulary(t)).Final
	// The language to learn has other words in the same places.
	o := options()
	train := documents(0, 60)
	words := strings.NewReplacer("def ", "func ", "return ", "yield ", "alpha", "sigma", "beta", "tau", "gamma", "phi", "delta", "omega")
	for i := range train {
		train[i].Content = words.Replace(train[i].Content)
	}
	o.Train = train
	s := mustRun(t, o, loraRecipe, "train.steps=60", "model="+m)
	out := filepath.Dir(s.Final)
	es := readRecord(t, out)
	var first, last float64
	for _, e := range es {
		if e.Train != nil {
			if first == 0 {
				first = e.Train.Loss
			}
			last = e.Train.Loss
		}
	}
	if !(last < first-.5) {
		t.Errorf("loss went from %v to %v", first, last)
	}
	// Two blocks of four modules: rank·(in+out) each.
	if want := int64(2 * 4 * ((16 + 32) + (16 + 16) + (16 + 64) + (64 + 16))); es[0].Run.Trained != want {
		t.Errorf("%d parameters trained, expected %d", es[0].Run.Trained, want)
	}
	for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
		if _, err := os.Stat(filepath.Join(s.Final, name)); err != nil {
			t.Error(err)
		}
	}
}

// Neither the number of threads nor gradient checkpointing changes a byte.
func TestSameBytesForAnyThreads(t *testing.T) {
	tok, m := "init.tokenizer="+vocabulary(t), "model="+base(t)
	for name, c := range map[string][]string{"full": {fullRecipe, tok}, "lora": {loraRecipe, m}} {
		t.Run(name, func(t *testing.T) {
			want := filepath.Dir(mustRun(t, options(), c[0], c[1], "threads=1").Final)
			for _, set := range []string{"threads=2", "threads=4", "train.gradient_checkpointing=true", "train.gradient_checkpointing=true train.memory_gb=0.0003"} {
				sameTree(t, filepath.Dir(mustRun(t, options(), c[0], append([]string{c[1]}, strings.Fields(set)...)...).Final), want)
			}
			other := tree(t, filepath.Dir(mustRun(t, options(), c[0], c[1], "seed=9").Final))
			if other[RecordFile] == tree(t, want)[RecordFile] {
				t.Error("another seed gives the same record")
			}
		})
	}
}

// cancelAt is a context that ends after n looks at it, so that a run is interrupted at every kind of place.
type cancelAt struct {
	context.Context
	left *int
	stop context.CancelFunc
}

func newCancelAt(t testing.TB, n int) context.Context {
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	return cancelAt{ctx, &n, stop}
}

func (c cancelAt) Err() error {
	if *c.left--; *c.left <= 0 {
		c.stop()
	}
	return c.Context.Err()
}

// Cancelled anywhere and called again, a run ends as if nothing had happened; cancelling says so and keeps the last step.
func TestInterruption(t *testing.T) {
	// Checkpoints on interruption leave folders that an undisturbed run lacks; keeping one makes the end the same.
	sets := []string{"init.tokenizer=" + vocabulary(t), "checkpoint.keep=1"}
	want := filepath.Dir(mustRun(t, options(), fullRecipe, sets...).Final)
	interrupted := 0
	for _, n := range []int{1, 60, 150, 333, 555, 900, 1400, 2100} {
		out := filepath.Join(t.TempDir(), "out")
		r := recipe(t, fullRecipe, append(sets, "out="+out, "threads=1")...)
		s, err := Run(newCancelAt(t, n), r, options())
		var stop *InterruptedError
		switch {
		case errors.As(err, &stop):
			interrupted++
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v is no cancellation", err)
			}
			if stop.Step > 0 {
				if st, err := readState(stop.Checkpoint); err != nil || st.Step != stop.Step {
					t.Errorf("after step %d: state %+v, %v", stop.Step, st, err)
				}
			}
		case errors.Is(err, context.Canceled): // before training began
			interrupted++
		case err != nil:
			t.Fatal(err)
		default:
			t.Logf("%d looks: finished %+v", n, s)
		}
		s, err = Run(t.Context(), r, options())
		if err != nil {
			t.Fatal(err)
		}
		if stop != nil && s.Resumed != stop.Step {
			t.Errorf("resumed after step %d, expected %d", s.Resumed, stop.Step)
		}
		sameTree(t, out, want)
	}
	if interrupted < 5 {
		t.Errorf("only %d interruptions", interrupted)
	}
}

// A finished run that is called again changes nothing.
func TestFinishedRunAgain(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	r := recipe(t, fullRecipe, "init.tokenizer="+vocabulary(t), "out="+out)
	if _, err := Run(t.Context(), r, options()); err != nil {
		t.Fatal(err)
	}
	before := tree(t, out)
	s, err := Run(t.Context(), r, options())
	if err != nil {
		t.Fatal(err)
	}
	if s.Resumed != 12 || s.Steps != 12 {
		t.Errorf("summary %+v", s)
	}
	after := tree(t, out)
	for name := range before {
		if before[name] != after[name] {
			t.Errorf("%s changed", name)
		}
	}
}

func TestResumeRefusals(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	tok := "init.tokenizer=" + vocabulary(t)
	sets := []string{tok, "out=" + out}
	if _, err := Run(t.Context(), recipe(t, fullRecipe, sets...), options()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		set  string
		want string
	}{
		{"train.lr=2e-2", "resume from " + out + "/checkpoint-12: train.lr: found 0.02, expected 0.01, with which the run began"},
		{"train.steps=13", "checkpoint-12: train.steps: found 13, expected 12, with which the run began"},
		{"data.fim.rate=0", "checkpoint-12: data.fim.rate: found 0, expected 0.5, with which the run began"},
		{"seed=4", "checkpoint-12: seed: found 4, expected 3, with which the run began"},
		{"data.split.fraction=0.5", "checkpoint-12: data.split.by: found \"repository\", expected absent, with which the run began"},
	} {
		_, err := Run(t.Context(), recipe(t, fullRecipe, append(sets, c.set)...), options())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, expected %s", c.set, err, c.want)
		}
	}
	o := options()
	o.Resume = ResumeNever
	if _, err := Run(t.Context(), recipe(t, fullRecipe, sets...), o); err == nil || !strings.Contains(err.Error(), "checkpoint-12 of an earlier run, expected a folder without checkpoints") {
		t.Errorf("never: %v", err)
	}
	o = options()
	o.Train = documents(1, 60)
	if _, err := Run(t.Context(), recipe(t, fullRecipe, sets...), o); err == nil || !strings.Contains(err.Error(), "belongs to other data") {
		t.Errorf("other data: %v", err)
	}
	// Damage from outside: the newest folder is passed over, and when none is left the run does not begin anew in silence.
	for _, n := range []string{"checkpoint-12", "checkpoint-10"} {
		if err := os.WriteFile(filepath.Join(out, n, stateFile), []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := Run(t.Context(), recipe(t, fullRecipe, append(sets, "checkpoint.every=100")...), options())
		if n == "checkpoint-12" {
			if err != nil || s.Resumed != 10 {
				t.Errorf("damaged %s: %+v, %v", n, s, err)
			}
			if err := os.WriteFile(filepath.Join(out, "checkpoint-12", stateFile), []byte("{"), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if err == nil || !strings.Contains(err.Error(), "checkpoint-12/trainer_state.json: unexpected end") {
			t.Errorf("all damaged: %v", err)
		}
	}
}

func TestResumeRefusesAnotherModel(t *testing.T) {
	m := base(t)
	out := filepath.Join(t.TempDir(), "out")
	r := recipe(t, loraRecipe, "model="+m, "out="+out)
	if _, err := Run(t.Context(), r, options()); err != nil {
		t.Fatal(err)
	}
	o := options()
	open := o.Open
	o.Open = func(ctx context.Context, name string) (*Base, error) {
		b, err := open(ctx, name)
		if err != nil {
			return nil, err
		}
		c, err := model.Load(ctx, name)
		if err == nil {
			c.Weights.Data("transformer.wte.weight")[0]++
			b.Weights = c.Weights
		}
		return b, err
	}
	if _, err := Run(t.Context(), r, o); err == nil || !strings.Contains(err.Error(), "the run began with another model or tokenizer") {
		t.Errorf("error %v", err)
	}
	// The same model under another name is the same.
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.CopyFS(moved, os.DirFS(m)); err != nil {
		t.Fatal(err)
	}
	r.Model = moved
	if _, err := Run(t.Context(), r, options()); err != nil {
		t.Error(err)
	}
}

// failing is a source whose unit bad cannot be read.
type failing struct {
	data.Slice
	bad int
}

func (f failing) OpenUnit(ctx context.Context, unit int, row int64) (data.Reader, error) {
	if unit == f.bad {
		return nil, errors.New("shard-3.parquet: page 7: checksum mismatch")
	}
	return f.Slice.OpenUnit(ctx, unit, row)
}

// An unreadable shard in the middle of a run: what was learnt is saved, and the run goes on when the shard is whole again.
func TestUnreadableShard(t *testing.T) {
	sets := []string{"init.tokenizer=" + vocabulary(t), "data.shuffle=false", "checkpoint.keep=1"}
	want := filepath.Dir(mustRun(t, options(), fullRecipe, sets...).Final)
	out := filepath.Join(t.TempDir(), "out")
	r := recipe(t, fullRecipe, append(sets, "out="+out)...)
	o := options()
	o.Train = failing{documents(0, 60), 30}
	_, err := Run(t.Context(), r, o)
	if err == nil || !strings.Contains(err.Error(), "shard-3.parquet: page 7: checksum mismatch; the last checkpoint is "+out+"/checkpoint-") {
		t.Fatalf("error %v", err)
	}
	s, err := Run(t.Context(), r, options())
	if err != nil {
		t.Fatal(err)
	}
	if s.Resumed == 0 || s.Resumed%5 == 0 {
		t.Errorf("resumed after step %d, expected the step before the shard", s.Resumed)
	}
	sameTree(t, out, want)
}

// An unreadable evaluation shard costs no step either.
func TestUnreadableEvaluationShard(t *testing.T) {
	sets := []string{"init.tokenizer=" + vocabulary(t), "checkpoint.keep=1", "eval.max_documents=0"}
	want := filepath.Dir(mustRun(t, options(), fullRecipe, sets...).Final)
	out := filepath.Join(t.TempDir(), "out")
	r := recipe(t, fullRecipe, append(sets, "out="+out)...)
	o := options()
	o.Eval = failing{documents(100, 8), 3}
	_, err := Run(t.Context(), r, o)
	if want := "step 4: evaluation: data: shard-3.parquet: page 7: checksum mismatch; the last checkpoint is " + out + "/checkpoint-4"; err == nil || err.Error() != want {
		t.Fatalf("error %v, expected %s", err, want)
	}
	s, err := Run(t.Context(), r, options())
	if err != nil {
		t.Fatal(err)
	}
	if s.Resumed != 4 {
		t.Errorf("resumed after step %d, expected 4", s.Resumed)
	}
	sameTree(t, out, want)
}

func TestDivergence(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	r := recipe(t, fullRecipe, "init.tokenizer="+vocabulary(t), "out="+out, "train.lr=1e38", "train.warmup_steps=0", "train.warmup_ratio=0", "train.clip=0", "checkpoint.every=1")
	_, err := Run(t.Context(), r, options())
	if err == nil || !strings.Contains(err.Error(), "training has diverged") {
		t.Fatalf("error %v", err)
	}
	t.Log(err)
	for _, n := range must(checkpoints(out)) {
		c, err := model.Load(t.Context(), checkpointFolder(out, n))
		if err != nil {
			t.Fatal(err)
		}
		for w := range c.Weights.All() {
			for _, v := range w.Data {
				if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
					t.Fatalf("checkpoint-%d: %s holds %v", n, w.Name, v)
				}
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestEpochs(t *testing.T) {
	s := mustRun(t, options(), fullRecipe, "init.tokenizer="+vocabulary(t), "train.steps=0", "train.epochs=2")
	es := readRecord(t, filepath.Dir(s.Final))
	last := es[len(es)-1]
	if s.Steps < 10 || last.Step != s.Steps {
		t.Errorf("%d steps, last entry %+v", s.Steps, last)
	}
	for _, e := range es {
		if e.Train != nil && e.Train.Epoch > 1 {
			t.Errorf("step %d is in epoch %d of 0 and 1", e.Step, e.Train.Epoch)
		}
	}
	one := mustRun(t, options(), fullRecipe, "init.tokenizer="+vocabulary(t), "train.steps=0", "train.epochs=1")
	if d := s.Steps - 2*one.Steps; d < -1 || d > 2 {
		t.Errorf("two epochs are %d steps, one is %d", s.Steps, one.Steps)
	}
}

// The original protocol's windows train, split and resume like the others.
func TestOriginalProtocol(t *testing.T) {
	o := options()
	o.Eval = nil
	sets := []string{"init.tokenizer=" + vocabulary(t), "data.protocol=original", "data.split.fraction=0.2", "checkpoint.keep=1", "train.steps=9"}
	want := filepath.Dir(mustRun(t, o, fullRecipe, sets...).Final)
	out := filepath.Join(t.TempDir(), "out")
	r := recipe(t, fullRecipe, append(sets, "out="+out)...)
	var stop *InterruptedError
	if _, err := Run(newCancelAt(t, 400), r, o); !errors.As(err, &stop) {
		t.Fatalf("error %v", err)
	}
	if _, err := Run(t.Context(), r, o); err != nil {
		t.Fatal(err)
	}
	sameTree(t, out, want)
	if es := readRecord(t, out); es[len(es)-1].Eval == nil || es[len(es)-1].Eval.Documents != 12 {
		t.Errorf("last entry %+v, expected a measurement on 12 documents", es[len(es)-1])
	}
}

func TestMistakes(t *testing.T) {
	tok := "init.tokenizer=" + vocabulary(t)
	for _, c := range []struct {
		name string
		sets []string
		edit func(*Options)
		want string
	}{
		{"no out", []string{tok}, nil, "out: found nothing, expected the folder for the results"},
		{"sequence", []string{tok, "out=$", "data.sequence=64"}, nil, "data.sequence: found 64, expected at most the model's 48 positions"},
		{"no tokenizer", []string{"init.tokenizer=nowhere", "out=$"}, nil, "nowhere"},
		{"no FIM tokens", []string{"init.tokenizer=" + vocabularyWith(t, "<|endoftext|>"), "out=$"}, nil, "fim rate 0.5, and the tokenizer lacks a FIM token"},
		{"no FIM tokens, original", []string{"init.tokenizer=" + vocabularyWith(t, "<|endoftext|>"), "out=$", "data.protocol=original"}, nil, "fim rate 0.5, and the tokenizer lacks a FIM token"},
		{"no end of text", []string{"init.tokenizer=" + vocabularyWith(t, "<x>"), "out=$", "data.fim.rate=0"}, nil, "end-of-text token -1: the tokenizer has none"},
		{"resume", []string{tok, "out=$"}, func(o *Options) { o.Resume = "maybe" }, `resume: found "maybe", expected auto or never`},
		{"no source", []string{tok, "out=$", "data.train=[{path: nowhere}]"}, func(o *Options) { o.Train = nil }, "data.train: data source: stat nowhere: no such file"},
		{"no eval source", []string{tok, "out=$", "data.eval=[{path: nowhere}]"}, func(o *Options) { o.Eval = nil }, "data.eval: data source: stat nowhere: no such file"},
		{"nothing held out", []string{tok, "out=$", "data.split.by=repository", "data.split.fraction=1e-9"}, func(o *Options) { o.Eval = nil }, "data.split: fraction 1e-09 by repository holds no document out to evaluate on"},
		{"everything held out", []string{tok, "out=$", "data.split.by=repository", "data.split.fraction=0.999999999"}, func(o *Options) { o.Eval = nil }, "data.train: found no document to train on"},
		{"nothing to divide", []string{tok, "out=$", "data.split.by=repository"}, func(o *Options) { o.Train, o.Eval = data.Slice{}, nil }, "data.train: found no document to train on"},
		{"nothing held out by files", []string{tok, "out=$", "data.split.by=files", "data.split.files=[nowhere]"}, func(o *Options) { o.Eval = nil }, "data.split: found none of the files to evaluate on in data.train"},
		{"no documents", []string{tok, "out=$"}, func(o *Options) { o.Train = data.Slice{} }, "the data source holds no document"},
		{"too little data", []string{tok, "out=$", "train.steps=0", "train.epochs=1"}, func(o *Options) { o.Train = documents(0, 1) }, "train.epochs: the data makes"},
		{"missing model", []string{"init=null", "out=$", "model=nowhere", "train.dropout=none"}, nil, "nowhere"},
		{"target", []string{"init=null", "out=$", "model=" + base(t), "lora.targets=q_proj"}, nil, `lora: target "q_proj" matches no linear module of the model`},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range c.sets {
				c.sets[i] = strings.ReplaceAll(c.sets[i], "$", t.TempDir())
			}
			o := options()
			if c.edit != nil {
				c.edit(&o)
			}
			_, err := Run(t.Context(), recipe(t, fullRecipe, c.sets...), o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, expected %s", err, c.want)
			}
		})
	}
}

// A split keeps repositories, or documents, on one side, and a run with one measures on what it holds out.
func TestSplit(t *testing.T) {
	for _, by := range []string{"repository", "document"} {
		r := recipe(t, fullRecipe, "data.split.by="+by, "data.split.fraction=0.3", "data.split.seed=2", "init.tokenizer=x")
		src := documents(0, 200)
		train, eval, err := divide(t.Context(), &r.Data, src)
		if err != nil {
			t.Fatal(err)
		}
		side := map[string]int{}
		counts := map[int]int{}
		for i, part := range []data.Source{train, eval} {
			for doc, err := range data.Documents(t.Context(), part) {
				if err != nil {
					t.Fatal(err)
				}
				counts[i]++
				side[doc.Repository] |= 1 << i
			}
		}
		split := 0
		for _, s := range side {
			if s == 3 {
				split++
			}
		}
		if counts[0]+counts[1] != 200 || counts[1] < 30 || counts[1] > 90 {
			t.Errorf("by %s: %d and %d documents of 200", by, counts[0], counts[1])
		}
		if (by == "repository") != (split == 0) {
			t.Errorf("by %s: %d repositories are on both sides", by, split)
		}
	}
	r := recipe(t, fullRecipe, "data.split={by: files, files: [3.py, r2/]}", "init.tokenizer=x")
	_, eval, err := divide(t.Context(), &r.Data, documents(0, 20))
	if err != nil {
		t.Fatal(err)
	}
	var held []string
	for doc, err := range data.Documents(t.Context(), eval) {
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, doc.Path)
	}
	if want := []string{"3.py", "8.py", "9.py", "10.py", "11.py"}; !slices.Equal(held, want) {
		t.Errorf("by files: held out %v, expected %v", held, want)
	}
	o := options()
	o.Eval = nil
	s := mustRun(t, o, fullRecipe, "init.tokenizer="+vocabulary(t), "data.split.by=document", "data.split.fraction=0.2", "eval.max_documents=5")
	if s.Eval == nil || s.Eval.Documents != 5 {
		t.Errorf("measured %+v, expected 5 documents", s.Eval)
	}
}

// What a source left out is said at the end of a run.
func TestSkippedDocumentsAreLogged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.jsonl")
	if err := os.WriteFile(path, []byte("{\"content\":\"x\"}\n{\"content\":null}\n{\"content\":null}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	j := &job{log: slog.New(slog.NewTextHandler(&out, nil))}
	src, err := j.openSources(t.Context(), []configs.Source{{Path: path}})
	if err != nil {
		t.Fatal(err)
	}
	docs, err := data.Load(t.Context(), src, 0)
	if err != nil || len(docs) != 1 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if want := `msg="documents skipped" count=2 reason="content is null"`; !strings.Contains(out.String(), want) {
		t.Errorf("logged %q, expected %s", out.String(), want)
	}
}
