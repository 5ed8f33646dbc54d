package configs

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const minimal = `
data:
  train: [{path: code}]
train:
  steps: 10
`

func TestDefaults(t *testing.T) {
	r, err := Parse("r.yaml", []byte(minimal), nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Model != "autodev-tiny" || r.Train.LR != 5e-5 || r.Train.WeightDecay != .05 || r.Data.FIM.Rate != .5 || r.Checkpoint.Keep != 2 {
		t.Errorf("full training: %+v", r)
	}
	if want := []Source{{Path: "code", Format: "auto", Column: "content"}}; !reflect.DeepEqual(r.Data.Train, want) {
		t.Errorf("sources %+v, expected %+v", r.Data.Train, want)
	}
	r, err = Parse("r.yaml", []byte(minimal), []string{"lora={}"})
	if err != nil {
		t.Fatal(err)
	}
	if r.Train.LR != 5e-4 || r.Train.WeightDecay != 0 || r.LoRA.Rank != 64 || r.LoRA.Alpha != 128 || r.LoRA.Targets[0] != AllLinear {
		t.Errorf("lora: %+v %+v", r.Train, r.LoRA)
	}
	r, err = Parse("r.yaml", []byte("init: {tokenizer: t, n_layer: 2, n_embd: 32, n_head: 4}\n"+minimal), nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Model != "" || r.Init.NInner != 128 || !r.Init.MultiQuery || r.Init.NPositions != 1024 {
		t.Errorf("init: %q %+v", r.Model, r.Init)
	}
}

func TestSet(t *testing.T) {
	r, err := Parse("r.yaml", []byte(minimal), []string{
		"train.lr=1e-3", "lora.rank=4", "lora.targets=[c_attn, mlp.c_proj]", "data.train.0.languages=go", "model=some/folder",
		"data.eval=[{path: held-out.jsonl}]", "train.decay_all=true", "seed=18446744073709551615",
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Train.LR != 1e-3 || r.LoRA.Rank != 4 || r.LoRA.Alpha != 8 || len(r.LoRA.Targets) != 2 || r.Data.Train[0].Languages[0] != "go" ||
		r.Model != "some/folder" || r.Data.Eval[0].Path != "held-out.jsonl" || !r.Train.DecayAll || r.Seed != 1<<64-1 {
		t.Errorf("%+v %+v", r, r.LoRA)
	}
	r, err = Parse("r.yaml", []byte("lora: {rank: 8}\n"+minimal), []string{"lora=null"})
	if err != nil || r.LoRA != nil || r.Train.LR != 5e-5 {
		t.Errorf("lora=null: %+v %v", r.LoRA, err)
	}
}

func TestBadRecipes(t *testing.T) {
	for name, c := range map[string]struct {
		yaml string
		sets []string
		want string
	}{
		"unknown key": {minimal + "  warmpu: 3\n", nil,
			`r.yaml:6: train: found unknown key "warmpu", expected one of steps, epochs, micro_batch, accumulation, lr, schedule, warmup_steps, warmup_ratio, min_lr_ratio, weight_decay, decay_all, beta1, beta2, epsilon, clip, dropout, gradient_checkpointing, memory_gb`},
		"unknown section": {"trian: {}\n", nil,
			`r.yaml:1: found unknown key "trian", expected one of model, init, lora, data, train, eval, checkpoint, seed, threads, device, precision, out`},
		"unknown key in a list": {"data:\n  train:\n  - path: x\n  - pth: y\n", nil,
			`r.yaml:4: data.train.1: found unknown key "pth", expected one of path, format, languages, column, max_documents`},
		"number expected":  {minimal + "  lr: fast\n", nil, `r.yaml:6: train.lr: found "fast", expected a finite number`},
		"quoted number":    {minimal + "  lr: \"0.1\"\n", nil, `r.yaml:6: train.lr: found "0.1", expected a finite number`},
		"not finite":       {minimal + "  lr: .inf\n", nil, `r.yaml:6: train.lr: found .inf, expected a finite number`},
		"whole number":     {minimal + "  micro_batch: 1.5\n", nil, `r.yaml:6: train.micro_batch: found 1.5, expected a whole number`},
		"too large":        {minimal + "  micro_batch: 99999999999999999999\n", nil, `r.yaml:6: train.micro_batch: found 99999999999999999999, expected a whole number`},
		"boolean":          {minimal + "  decay_all: 1\n", nil, `r.yaml:6: train.decay_all: found 1, expected true or false`},
		"list":             {"data:\n  train: {path: x}\n", nil, `r.yaml:2: data.train: found keys and values, expected a list`},
		"keys":             {"train: 7\n", nil, `r.yaml:1: train: found 7, expected keys and values`},
		"text":             {"model: [a]\n", nil, `r.yaml:1: model: found a list, expected text`},
		"top":              {"- a\n", nil, `r.yaml:1: found a list, expected keys and values`},
		"twice":            {"seed: 1\nseed: 2\n", nil, `r.yaml:2: seed: found the key a second time, expected it once`},
		"two documents":    {"seed: 1\n---\nseed: 2\n", nil, `r.yaml:2: found a second document, expected one`},
		"negative seed":    {"seed: -1\n", nil, `r.yaml:1: seed: found -1, expected a whole number from 0 to 18446744073709551615`},
		"no data":          {"train: {steps: 1}\n", nil, `r.yaml: data.train: found nothing, expected at least one source`},
		"no path":          {"data:\n  train:\n  - format: jsonl\n", nil, `r.yaml:3: data.train.0.path: found nothing, expected a file, folder, glob or address`},
		"format":           {"data:\n  train:\n  - path: x\n    format: csv\n", nil, `r.yaml:4: data.train.0.format: found "csv", expected one of auto, parquet, jsonl, folder`},
		"no length":        {"data:\n  train: [{path: x}]\n", nil, `r.yaml: train: found neither of steps and epochs, expected exactly one`},
		"two lengths":      {minimal + "  epochs: 1\n", nil, `r.yaml:4: train: found both of steps and epochs, expected exactly one`},
		"negative lr":      {minimal + "  lr: -1\n", nil, `r.yaml:6: train.lr: found -1, expected above 0`},
		"lr beyond f32":    {minimal + "  lr: 1e300\n", nil, `r.yaml:6: train.lr: found 1e+300, expected a number that float32 can hold`},
		"many in a step":   {minimal + "  accumulation: 1000000000000000000\n", nil, `r.yaml:6: train.accumulation: found 1000000000000000000, expected at most 4194304`},
		"many in memory":   {minimal + "  micro_batch: 4611686018427387904\n", nil, `r.yaml:6: train.micro_batch: found 4611686018427387904, expected at most 4194304`},
		"both":             {minimal + "  micro_batch: 4096\n  accumulation: 1025\n", nil, `r.yaml:7: train.accumulation: found 1025, expected at most 1024`},
		"epochs":           {minimal, []string{"train.steps=0", "train.epochs=9223372036854775807"}, `--set train.epochs=9223372036854775807: train.epochs: found 9223372036854775807, expected at most 1073741824`},
		"large rank":       {minimal, []string{"lora.rank=100000000000"}, `--set lora.rank=100000000000: lora.rank: found 100000000000, expected at most 65536`},
		"threads":          {minimal, []string{"threads=1000000000"}, `--set threads=1000000000: threads: found 1000000000, expected at most 16384`},
		"windows":          {minimal, []string{"data.shuffle_windows=9223372036854775807"}, `--set data.shuffle_windows=9223372036854775807: data.shuffle_windows: found 9223372036854775807, expected at most 16777216`},
		"schedule":         {minimal + "  schedule: step\n", nil, `r.yaml:6: train.schedule: found "step", expected one of cosine, linear, constant`},
		"beta":             {minimal + "  beta2: 1\n", nil, `r.yaml:6: train.beta2: found 1, expected at least 0 and below 1`},
		"two warm-ups":     {minimal + "  warmup_steps: 3\n  warmup_ratio: .1\n", nil, `r.yaml:6: train.warmup_steps: found both warmup_steps and warmup_ratio, expected one of them`},
		"fim":              {minimal + "# x\nseed: 3\n", []string{"data.fim.rate=1.5"}, `--set data.fim.rate=1.5: data.fim.rate: found 1.5, expected 0 to 1`},
		"device":           {"device: gpu\n" + minimal, nil, `r.yaml:1: device: found "gpu", expected auto, cpu, cuda or cuda:INDEX`},
		"card":             {"device: cuda:one\n" + minimal, nil, `r.yaml:1: device: found "cuda:one", expected auto, cpu, cuda or cuda:INDEX`},
		"no card":          {"device: \"cuda:\"\n" + minimal, nil, `r.yaml:1: device: found "cuda:", expected auto, cpu, cuda or cuda:INDEX`},
		"a card's CPU":     {"device: cpu:0\n" + minimal, nil, `r.yaml:1: device: found "cpu:0", expected auto, cpu, cuda or cuda:INDEX`},
		"precision":        {"precision: fp16\n" + minimal, nil, `r.yaml:1: precision: found "fp16", expected one of auto, float32, bf16, float16`},
		"model and init":   {"model: m\ninit: {}\n" + minimal, nil, `r.yaml:1: model: found "m", expected no model beside init, which describes a new one`},
		"init and lora":    {"init: {}\nlora: {}\n" + minimal, nil, `r.yaml:2: lora: found adapters on a new model, expected lora with model, or init without lora`},
		"heads":            {"init: {tokenizer: t, n_layer: 1, n_embd: 10, n_head: 4}\n" + minimal, nil, `r.yaml:1: init.n_embd: found 10, expected a multiple of n_head 4`},
		"rank":             {"lora: {rank: -2}\n" + minimal, nil, `r.yaml:1: lora.rank: found -2, expected at least 1`},
		"targets":          {"lora: {targets: []}\n" + minimal, nil, `r.yaml:1: lora.targets: found an empty list, expected all-linear or names of modules`},
		"mixed targets":    {"lora: {targets: [all-linear, c_attn]}\n" + minimal, nil, `r.yaml:1: lora.targets: found all-linear beside other names, expected all-linear alone or names of modules`},
		"split and eval":   {minimal, []string{"data.split={}", "data.eval=[{path: x}]"}, `--set data.split={}: data.split: found a split beside data.eval, expected one of the two`},
		"fraction":         {minimal, []string{"data.split.fraction=1"}, `--set data.split.fraction=1: data.split.fraction: found 1, expected above 0 and below 1`},
		"split files":      {minimal, []string{"data.split={by: files}"}, `--set data.split={by: files}: data.split.files: found nothing, expected at least one file or folder, with by: files`},
		"stray files":      {minimal, []string{"data.split.files=[a.py]"}, `--set data.split.files=[a.py]: data.split.files: found a list beside by: repository, expected by: files with it`},
		"files and seed":   {minimal, []string{"data.split={by: files, files: [a.py], seed: 1}"}, `--set data.split={by: files, files: [a.py], seed: 1}: data.split.by: found "files" beside a fraction or seed, expected one of the two`},
		"original files":   {minimal, []string{"data.protocol=original", "data.split={by: files, files: [a.py]}"}, `--set data.split={by: files, files: [a.py]}: data.split.by: found "files", expected a fraction with the original protocol, or data.eval`},
		"set without =":    {minimal, []string{"train.lr"}, `--set train.lr: found "train.lr", expected key.path=value`},
		"set unknown":      {minimal, []string{"train.rl=1"}, `--set train.rl=1: train: found unknown key "rl", expected one of steps, epochs, micro_batch, accumulation, lr, schedule, warmup_steps, warmup_ratio, min_lr_ratio, weight_decay, decay_all, beta1, beta2, epsilon, clip, dropout, gradient_checkpointing, memory_gb`},
		"memory":           {minimal, []string{"train.memory_gb=-2"}, `--set train.memory_gb=-2: train.memory_gb: found -2, expected 0 to 1e+06`},
		"set beyond list":  {minimal, []string{"data.train.1.path=x"}, `--set data.train.1.path=x: data.train.1: found "1", expected a number below the list's length 1`},
		"set into a value": {minimal, []string{"train.steps.x=1"}, `--set train.steps.x=1: train.steps: found 10, expected keys and values`},
		"set type":         {minimal, []string{"train.lr=abc"}, `--set train.lr=abc: train.lr: found "abc", expected a finite number`},
		"sequence":         {minimal, []string{"data.sequence=4"}, `--set data.sequence=4: data.sequence: found 4, expected at least 8`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("r.yaml", []byte(c.yaml), c.sets)
			if err == nil || err.Error() != c.want {
				t.Errorf("error\n%v\nexpected\n%v", err, c.want)
			}
		})
	}
	if _, err := Parse("r.yaml", []byte("a: [\n"), nil); err == nil || !strings.HasPrefix(err.Error(), "r.yaml: yaml: line ") {
		t.Errorf("no YAML: %v", err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml: no such file") {
		t.Errorf("missing file: %v", err)
	}
}

// Every recipe in this folder decodes.
func TestRecipesDecode(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, err := Load(f); err != nil {
			t.Error(err)
		}
	}
}

func TestValuesCoverEveryField(t *testing.T) {
	r, err := Parse("r.yaml", []byte(minimal), []string{"lora.targets=c_fc", "data.split.seed=3"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, v := range r.Values() {
		got[v.Key] = v.Text
	}
	for key, want := range map[string]string{
		"model": `"autodev-tiny"`, "lora.targets": `["c_fc"]`, "data.split.seed": "3", "data.train.0.path": `"code"`,
		"train.lr": "0.0005", "train.decay_all": "false", "data.train.0.languages": "[]",
	} {
		if got[key] != want {
			t.Errorf("%s is %q, expected %q", key, got[key], want)
		}
	}
	if _, ok := got["init.n_layer"]; ok {
		t.Error("an absent section is listed")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(minimal, "train.lr=1")
	f.Add("lora: {targets: [a]}\ndata: &x {train: [{path: p}]}\n", "data.train.0.path=q")
	f.Add("a: &a [*a]\n", "a.0.0=1")
	f.Fuzz(func(t *testing.T, text, set string) {
		r, err := Parse("f.yaml", []byte(text), []string{set})
		if err == nil && r.Train.Steps == 0 && r.Train.Epochs == 0 {
			t.Error("a recipe without a length was accepted")
		}
	})
}
