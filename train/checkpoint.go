package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"autodev/configs"
	"autodev/internal/atomicdir"
	"autodev/lora"
	"autodev/model"
	"autodev/model/dtype"
	"autodev/model/safetensors"
)

// A checkpoint is a folder checkpoint-N in the run's output: the model as transformers loads it, or the adapter as PEFT does,
// and beside it what only AutoDev reads.
const (
	stateFile     = "trainer_state.json"
	optimizerFile = "optimizer.safetensors"
	finalFolder   = "final"
	stateVersion  = 1
)

var checkpointName = regexp.MustCompile(`^checkpoint-([1-9]\d{0,17})$`)

func checkpointFolder(out string, step int) string {
	return filepath.Join(out, fmt.Sprintf("checkpoint-%d", step))
}

// state is trainer_state.json.
type state struct {
	Version int               `json:"version"`
	Step    int               `json:"step"`
	Total   int               `json:"total_steps"`
	Plan    string            `json:"plan"` // hash of the computation
	Base    string            `json:"base"` // hash of the initial weights and the tokenizer
	Recipe  map[string]string `json:"recipe"`
	Data    json.RawMessage   `json:"data"` // position in the training data
	Scale   *lossScale        `json:"loss_scale,omitempty"`
}

// identityOf returns the settings that decide a run's bytes. Where things lie (paths, whose content is compared by hashes), how
// fast they go and what is reported may change between a run and its resumption.
func identityOf(r *configs.Recipe) map[string]string {
	m := map[string]string{}
	for _, v := range r.Values() {
		section, _, _ := strings.Cut(v.Key, ".")
		switch {
		case slices.Contains([]string{"out", "threads", "model", "eval", "checkpoint"}, section):
		case strings.HasPrefix(v.Key, "data.eval."), strings.HasPrefix(v.Key, "data.train.") && strings.HasSuffix(v.Key, ".path"):
		case v.Key == "init.tokenizer", v.Key == "train.gradient_checkpointing", v.Key == "train.memory_gb":
		default:
			m[v.Key] = v.Text
		}
	}
	return m
}

// compatible reports why a run with this recipe cannot go on from s.
func (s *state) compatible(r *configs.Recipe) error {
	now := identityOf(r)
	if s.Recipe["device"] == `"auto"` {
		// Of a version that knew no other device.
		s.Recipe["device"] = `"cpu"`
	}
	var keys []string
	for k := range now {
		keys = append(keys, k)
	}
	for k := range s.Recipe {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	show := func(v string) string {
		if v == "" {
			return "absent"
		}
		return v
	}
	for _, k := range keys {
		if now[k] != s.Recipe[k] {
			return fmt.Errorf("%s: found %s, expected %s, with which the run began (to begin anew, choose another --out)", k, show(now[k]), show(s.Recipe[k]))
		}
	}
	return nil
}

// checkpoints lists the steps of the checkpoint folders in out, newest first.
func checkpoints(out string) ([]int, error) {
	entries, err := os.ReadDir(out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for checkpoints: %w", err)
	}
	var steps []int
	for _, e := range entries {
		if m := checkpointName.FindStringSubmatch(e.Name()); m != nil && e.IsDir() {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				return nil, fmt.Errorf("checkpoint %s: %w", e.Name(), err)
			}
			steps = append(steps, n)
		}
	}
	slices.Sort(steps)
	slices.Reverse(steps)
	return steps, nil
}

// recoverFolders finishes or undoes what a kill left half done in out.
func recoverFolders(out string) error {
	entries, err := os.ReadDir(out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for leftovers: %w", err)
	}
	for _, e := range entries {
		name, hidden := strings.CutPrefix(e.Name(), ".")
		name, _, _ = strings.Cut(name, ".")
		if !hidden || name != finalFolder && !checkpointName.MatchString(name) {
			continue
		}
		if err := atomicdir.Recover(filepath.Join(out, name)); err != nil {
			return err
		}
	}
	return nil
}

// readState reads and checks the state of the checkpoint in dir.
func readState(dir string) (*state, error) {
	name := filepath.Join(dir, stateFile)
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("checkpoint: %s: %w", name, err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("checkpoint: %s: version: found %d, expected %d", name, s.Version, stateVersion)
	}
	if s.Step < 0 || s.Total < s.Step || filepath.Base(dir) != filepath.Base(checkpointFolder("", s.Step)) {
		return nil, fmt.Errorf("checkpoint: %s: step %d of %d in folder %s", name, s.Step, s.Total, filepath.Base(dir))
	}
	return &s, nil
}

// newestState returns the newest whole checkpoint's state and folder, nil when out has no checkpoint. Folders that
// are not whole, which only damage from outside can cause, are passed over with a warning as long as an older one is whole.
func newestState(out string, warn func(string, ...any)) (*state, string, error) {
	steps, err := checkpoints(out)
	if err != nil {
		return nil, "", err
	}
	var first error
	for _, n := range steps {
		dir := checkpointFolder(out, n)
		s, err := readState(dir)
		if err == nil {
			return s, dir, nil
		}
		if first == nil {
			first = err
		}
		warn("checkpoint passed over", "folder", dir, "error", err)
	}
	return nil, "", first
}

// gather checks the trained parameters, and copies them from the device to the host's adapter.
func (j *job) gather() error {
	for _, p := range j.plans.Params() {
		if !p.Trained {
			continue
		}
		data, err := j.weight(p.Name)
		if err != nil {
			return err
		}
		for i, v := range data {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return fmt.Errorf("tensor %s: element %d is %v: training has diverged", p.Name, i, v)
			}
		}
		if j.adapter != nil {
			copy(j.adapter.Data(p.Name), data)
		}
	}
	return nil
}

// weight returns a parameter's elements: where they lie if the host sees them there, else a copy.
func (j *job) weight(name string) ([]float32, error) {
	if data, _, _, ok := j.plans.View(name); ok {
		return data, nil
	}
	return j.plans.Param(name)
}

// Read gives the model as it is on the device (model.Source), so that it is saved without being in memory a second time.
func (j *job) Read(name string) (*model.Tensor, error) {
	p, ok := j.plans.Lookup(name)
	if !ok {
		return nil, fmt.Errorf("tensor %s: missing", name)
	}
	data, err := j.weight(name)
	return &model.Tensor{Name: name, Shape: p.Shape, Data: data}, err
}

// saveResult writes the model as it is on the device, or the adapter as it is on the host, into dir.
func (j *job) saveResult(ctx context.Context, dir string) error {
	if j.adapter != nil {
		return j.adapter.SaveInto(dir)
	}
	return model.SaveInto(ctx, dir, j.config, j, model.SaveOptions{Assets: j.assets})
}

// checkpoint writes the run's state after step n, whose position in the data is given, and removes old checkpoints.
func (j *job) checkpoint(ctx context.Context, n int, position []byte) error {
	dir := checkpointFolder(j.recipe.Out, n)
	err := j.gather()
	if err == nil {
		err = atomicdir.Write(dir, func(tmp string) error {
			if err := j.saveResult(ctx, tmp); err != nil {
				return err
			}
			if err := j.saveMoments(filepath.Join(tmp, optimizerFile)); err != nil {
				return err
			}
			b, err := json.MarshalIndent(state{
				Version: stateVersion, Step: n, Total: j.total, Plan: j.plans.Hash(), Base: j.origin, Recipe: identityOf(&j.recipe), Data: position, Scale: j.scale,
			}, "", " ")
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(tmp, stateFile), append(b, '\n'), 0o644)
		})
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", dir, err)
	}
	return j.rotate(n)
}

// rotate removes all but the newest checkpoints up to step n, the run's last. Newer ones are damaged, or it would have gone on
// from them, and do not stand in for whole ones.
func (j *job) rotate(n int) error {
	keep := j.recipe.Checkpoint.Keep
	steps, err := checkpoints(j.recipe.Out)
	steps = slices.DeleteFunc(steps, func(step int) bool { return step > n })
	if err != nil || keep == 0 || len(steps) <= keep {
		return err
	}
	for _, n := range steps[keep:] {
		if err := atomicdir.Remove(checkpointFolder(j.recipe.Out, n)); err != nil {
			return fmt.Errorf("remove old checkpoint: %w", err)
		}
	}
	return nil
}

// saveMoments writes AdamW's moments: tensors m.NAME and v.NAME of each trained parameter.
func (j *job) saveMoments(name string) error {
	var ts []safetensors.Tensor
	for _, p := range j.plans.Params() {
		if !p.Trained {
			continue
		}
		_, m, v, ok := j.plans.View(p.Name)
		if !ok {
			var err error
			if m, v, err = j.plans.Moments(p.Name); err != nil {
				return err
			}
		}
		ts = append(ts, safetensors.Float32("m."+p.Name, p.Shape, m, dtype.F32), safetensors.Float32("v."+p.Name, p.Shape, v, dtype.F32))
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(safetensors.Write(f, ts, nil), f.Close())
}

// restore puts the checkpoint in dir in force.
func (j *job) restore(ctx context.Context, s *state, dir string) error {
	fail := func(err error) error { return fmt.Errorf("resume from %s: %w", dir, err) }
	switch {
	case s.Base != j.origin:
		return fail(errors.New("the run began with another model or tokenizer than the recipe names now"))
	case s.Plan != j.plans.Hash():
		return fail(fmt.Errorf("plan: found %.12s, expected %.12s: this version of AutoDev computes differently from the one that began the run", j.plans.Hash(), s.Plan))
	case s.Total != j.total:
		return fail(fmt.Errorf("steps: found %d, expected %d, with which the run began", j.total, s.Total))
	}
	if err := j.windows.Restore(s.Data); err != nil {
		return fail(err)
	}
	if j.scale != nil {
		if s.Scale == nil || !s.Scale.valid() || s.Scale.Skipped > s.Step {
			return fail(fmt.Errorf("%s: loss_scale: found %+v, expected that of a run in float16", stateFile, s.Scale))
		}
		j.scale = s.Scale
	}
	// trained returns the trained parameters of the checkpoint.
	var trained func(name string) []float32
	if j.adapter != nil {
		a, err := lora.Load(dir, j.config)
		if err != nil {
			return fail(err)
		}
		if !slices.Equal(a.Modules, j.adapter.Modules) {
			return fail(fmt.Errorf("%s: other modules or ranks than the recipe's", lora.ConfigFile))
		}
		trained = a.Data
	} else {
		c, err := model.Load(ctx, dir)
		if err == nil {
			err = c.Weights.Check(j.config)
		}
		if err != nil {
			return fail(err)
		}
		trained = c.Weights.Data
	}
	for _, p := range j.plans.Params() {
		if !p.Trained {
			continue
		}
		if err := j.plans.SetParam(p.Name, trained(p.Name)); err != nil {
			return fail(err)
		}
	}
	if err := j.loadMoments(filepath.Join(dir, optimizerFile)); err != nil {
		return fail(err)
	}
	return nil
}

func (j *job) loadMoments(name string) (err error) {
	f, err := safetensors.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	read := func(tensor string, shape []int) ([]float32, error) {
		info, ok := f.Lookup(tensor)
		if !ok {
			return nil, fmt.Errorf("%s: tensor %s: missing, expected shape %v", name, tensor, shape)
		}
		if !slices.Equal(info.Shape, shape) {
			return nil, fmt.Errorf("%s: tensor %s: shape %v, expected %v", name, tensor, info.Shape, shape)
		}
		return f.Float32s(tensor)
	}
	for _, p := range j.plans.Params() {
		if !p.Trained {
			continue
		}
		m, err := read("m."+p.Name, p.Shape)
		if err != nil {
			return err
		}
		v, err := read("v."+p.Name, p.Shape)
		if err != nil {
			return err
		}
		if err := j.plans.SetMoments(p.Name, m, v); err != nil {
			return err
		}
	}
	return nil
}
