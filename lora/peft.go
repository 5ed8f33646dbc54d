package lora

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"autodev/internal/atomicdir"
	"autodev/internal/jsonfields"
	"autodev/internal/sizedfile"
	"autodev/model"
	"autodev/model/dtype"
	"autodev/model/safetensors"
	"autodev/model/torchbin"
)

// Files of an adapter folder.
const (
	ConfigFile  = "adapter_config.json"
	WeightsFile = "adapter_model.safetensors"
	legacyFile  = "adapter_model.bin"
)

// prefix is what PEFT puts in front of a module's path.
const prefix = "base_model.model."

const maxConfigBytes = 16 << 20

// adapterConfig is the part of adapter_config.json (PEFT's LoraConfig) that decides what an adapter computes.
type adapterConfig struct {
	r            int
	alpha        float64
	dropout      float64
	rslora       bool
	base         string
	targets      matcher
	exclude      matcher
	layers       []int // nil: all
	rankPattern  []pattern
	alphaPattern []pattern
}

// matcher is a list of module names or a regular expression over whole names.
type matcher struct {
	names []string
	re    *regexp.Regexp
	all   bool
}

func (m matcher) match(name string) bool {
	if m.re != nil {
		return m.re.MatchString(name)
	}
	return m.all || slices.ContainsFunc(m.names, func(t string) bool { return hasSuffix(name, t) })
}

// pattern gives a value to the modules whose name ends in what re matches.
type pattern struct {
	re    *regexp.Regexp
	value float64
}

func lookUp(ps []pattern, name string, or float64) float64 {
	for _, p := range ps {
		if p.re.MatchString(name) {
			return p.value
		}
	}
	return or
}

// Load reads the PEFT adapter in folder dir for models of configuration c. What AutoDev does not compute (DoRA, trained
// biases or whole modules, adapted embeddings, …) is refused by name, and so is an adapter of another model.
func Load(dir string, c model.Config) (*Adapter, error) {
	cfg, err := readConfig(dir)
	if err != nil {
		return nil, err
	}
	file, err := openWeights(dir)
	if err != nil {
		return nil, err
	}
	a, err := load(cfg, file, c)
	return a, errors.Join(err, file.Close())
}

func readConfig(dir string) (*adapterConfig, error) {
	name := filepath.Join(dir, ConfigFile)
	b, err := sizedfile.ReadFS(os.DirFS(dir), ConfigFile, name, maxConfigBytes)
	if err != nil {
		return nil, fmt.Errorf("read adapter: %w", err)
	}
	cfg, err := parseConfig(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return cfg, nil
}

// parseConfig reads adapter_config.json and refuses what changes an adapter's mathematics in a way not known here.
func parseConfig(b []byte) (*adapterConfig, error) {
	raw := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, fmt.Errorf("expected a JSON object: %w", err)
	}
	if raw == nil {
		return nil, errors.New("found null, expected a JSON object")
	}
	f := fields{jsonfields.Object{Raw: raw}}
	if kind := jsonfields.Get(&f.Object, "peft_type", ""); kind != "LORA" && f.Err == nil {
		return nil, fmt.Errorf("peft_type: found %q, expected \"LORA\"", kind)
	}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		if err := f.refuse(key); err != nil {
			return nil, err
		}
	}
	cfg := &adapterConfig{
		r:       jsonfields.Get(&f.Object, "r", 8),
		alpha:   jsonfields.Get(&f.Object, "lora_alpha", 8.0),
		dropout: jsonfields.Get(&f.Object, "lora_dropout", 0.0),
		rslora:  jsonfields.Get(&f.Object, "use_rslora", false),
		base:    jsonfields.Get(&f.Object, "base_model_name_or_path", ""),
	}
	// The tensors have the same shapes either way.
	jsonfields.Get(&f.Object, "fan_in_fan_out", false)
	if layer, err := strconv.Atoi(string(raw["layers_to_transform"])); err == nil {
		cfg.layers = []int{layer}
	} else {
		cfg.layers = jsonfields.Get(&f.Object, "layers_to_transform", []int(nil))
	}
	cfg.targets = f.matcher("target_modules")
	cfg.exclude = f.matcher("exclude_modules")
	cfg.rankPattern = f.patterns("rank_pattern")
	cfg.alphaPattern = f.patterns("alpha_pattern")
	switch {
	case f.Err != nil:
		return nil, f.Err
	case f.Absent("target_modules"):
		return nil, errors.New("target_modules: missing, expected a list of modules, a regular expression or \"all-linear\"")
	case cfg.r < 1:
		return nil, fmt.Errorf("r: found %d, expected at least 1", cfg.r)
	case !(cfg.dropout >= 0 && cfg.dropout < 1):
		return nil, fmt.Errorf("lora_dropout: found %v, expected at least 0 and below 1", cfg.dropout)
	}
	for _, p := range cfg.rankPattern {
		if p.value < 1 || p.value != float64(int(p.value)) {
			return nil, fmt.Errorf("rank_pattern: found %v, expected whole numbers of at least 1", p.value)
		}
	}
	return cfg, nil
}

// fields is adapter_config.json being read.
type fields struct{ jsonfields.Object }

func (f *fields) matcher(key string) matcher {
	if f.Err != nil || f.Absent(key) {
		return matcher{}
	}
	var list []string
	if json.Unmarshal(f.Raw[key], &list) == nil {
		return matcher{names: list}
	}
	text := jsonfields.Get(&f.Object, key, "")
	if f.Err != nil {
		f.Err = fmt.Errorf("%s: found %.60s, expected a list of names or a regular expression", key, f.Raw[key])
		return matcher{}
	}
	if text == AllLinear {
		return matcher{all: true}
	}
	re, err := regexp.Compile("^(?:" + text + ")$")
	if err != nil {
		f.Err = fmt.Errorf("%s: %w", key, err)
		return matcher{}
	}
	return matcher{re: re}
}

// patterns reads {regular expression: number} in the order of the file, in which PEFT tries them.
func (f *fields) patterns(key string) []pattern {
	values := jsonfields.Get(&f.Object, key, map[string]float64(nil))
	if f.Err != nil || len(values) == 0 {
		return nil
	}
	var ps []pattern
	dec := json.NewDecoder(bytes.NewReader(f.Raw[key]))
	for {
		tok, err := dec.Token()
		if err != nil {
			return ps
		}
		name, ok := tok.(string)
		if !ok {
			continue
		}
		re, err := regexp.Compile(`^(?:.*\.)?(?:` + name + ")$")
		if err != nil {
			f.Err = fmt.Errorf("%s: %w", key, err)
			return nil
		}
		ps = append(ps, pattern{re, values[name]})
	}
}

// known lists the fields that parseConfig reads or that change nothing after training.
var known = []string{
	"peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "base_model_name_or_path", "fan_in_fan_out",
	"layers_to_transform", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "revision", "inference_mode",
	"auto_mapping", "peft_version", "layers_pattern", "megatron_core", "loftq_config", "eva_config", "corda_config",
	"lora_ga_config", "qalora_group_size", "runtime_config", "ensure_weight_tying", "enable_lora", "merge_weights",
	"lora_weights_initialized",
}

// refuse reports a setting that changes what the adapter computes and is not supported here.
func (f *fields) refuse(key string) error {
	text := string(f.Raw[key])
	bad := func(want string) error {
		return fmt.Errorf("%s: found %.80s, expected %s: this kind of adapter is not supported", key, text, want)
	}
	switch key {
	case "bias":
		if text != `"none"` && text != "null" {
			return bad(`"none"`)
		}
		return nil
	case "init_lora_weights":
		// The others (PiSSA, OLoRA, LoftQ, CorDA, …) change the base model's weights, which the adapter's files do not hold.
		if !slices.Contains([]string{"true", "false", "null", `"gaussian"`, `"eva"`}, text) {
			return bad(`true, false, "gaussian" or "eva" (others change the base model's weights)`)
		}
		return nil
	}
	if slices.Contains(known, key) {
		return nil
	}
	// Anything else may stay as long as it is turned off.
	if !slices.Contains([]string{"null", "false", "{}", "[]", `""`}, text) {
		if strings.HasPrefix(key, "use_") || slices.Contains(features, key) {
			return bad("none")
		}
	}
	return nil
}

// features lists further fields that change what an adapter computes.
var features = []string{
	"modules_to_save", "lora_bias", "trainable_token_indices", "layer_replication", "megatron_config", "target_parameters",
	"alora_invocation_tokens", "velora_config", "monteclora_config", "arrow_config", "kasa_config",
}

// weights is a file of tensors of either format.
type weights interface {
	Name() string
	ReadFloat32(name string, dst []float32) error
	Close() error
	shapes() map[string][]int
}

type safetensorsFile struct{ *safetensors.File }

func (f safetensorsFile) shapes() map[string][]int {
	m := map[string][]int{}
	for _, t := range f.Tensors() {
		m[t.Name] = t.Shape
	}
	return m
}

type torchFile struct{ *torchbin.File }

func (f torchFile) shapes() map[string][]int {
	m := map[string][]int{}
	for _, t := range f.Tensors() {
		m[t.Name] = t.Shape
	}
	return m
}

func openWeights(dir string) (weights, error) {
	f, err := safetensors.Open(filepath.Join(dir, WeightsFile))
	if err == nil {
		return safetensorsFile{f}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	t, err := torchbin.Open(filepath.Join(dir, legacyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: found neither %s nor %s, expected one of them: %w", dir, WeightsFile, legacyFile, fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	return torchFile{t}, nil
}

// load matches the file's tensors with the model's modules.
func load(cfg *adapterConfig, file weights, c model.Config) (*Adapter, error) {
	all := linears(c)
	shapes := file.shapes()
	for name := range shapes {
		if strings.Contains(name, qAttn+".") || strings.Contains(name, kvAttn+".") {
			split, ok := splitModules(c)
			if !ok {
				return nil, fmt.Errorf("%s: tensor %s: the model has no module q_attn or kv_attn: is this the adapter of another model?", file.Name(), name)
			}
			all = split
			break
		}
	}
	var found []factors
	used := map[string]bool{}
	for _, l := range all {
		if !cfg.adapts(l.name) {
			continue
		}
		rank := int(lookUp(cfg.rankPattern, l.name, float64(cfg.r)))
		alpha := lookUp(cfg.alphaPattern, l.name, cfg.alpha)
		f := factors{module: Module{l.name, l.in, l.out, rank, alpha, scale(alpha, rank, cfg.rslora)}}
		for _, p := range []struct {
			suffix string
			shape  []int
			dst    *[]float32
		}{{".lora_A.weight", []int{rank, l.in}, &f.a}, {".lora_B.weight", []int{l.out, rank}, &f.b}} {
			name := prefix + l.name + p.suffix
			shape, ok := shapes[name]
			if !ok {
				return nil, fmt.Errorf("%s: tensor %s: missing, expected shape %v", file.Name(), name, p.shape)
			}
			if !slices.Equal(shape, p.shape) {
				return nil, fmt.Errorf("%s: tensor %s: shape %v, expected %v: is this the adapter of another model?", file.Name(), name, shape, p.shape)
			}
			used[name] = true
			*p.dst = make([]float32, p.shape[0]*p.shape[1])
			if err := file.ReadFloat32(name, *p.dst); err != nil {
				return nil, err
			}
		}
		found = append(found, f)
	}
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		if !used[name] {
			return nil, fmt.Errorf("%s: tensor %s: found, but target_modules and the model have no such module: is this the adapter of another model?", file.Name(), name)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: the adapter's target_modules match no module of the model, expected some of %s", file.Name(), strings.Join(kinds(all), ", "))
	}
	a := &Adapter{Dropout: cfg.dropout, RSLoRA: cfg.rslora, Base: cfg.base, config: c, tensors: map[string][]float32{}}
	byName := map[string]*factors{}
	for i := range found {
		byName[found[i].module.Name] = &found[i]
	}
	for _, l := range linears(c) {
		f := byName[l.name]
		if h, ok := strings.CutSuffix(l.name, cAttn); ok && f == nil {
			if q, kv := byName[h+qAttn], byName[h+kvAttn]; q != nil || kv != nil {
				fused := fuse(l, q, kv)
				fused.module.Alpha = alphaOf(fused.module, cfg.rslora)
				f = &fused
			}
		}
		if f == nil {
			continue
		}
		if groupedByHead(c, l.name) {
			f.b = regroup(c, f.b, f.module.Rank, false)
		}
		a.Modules = append(a.Modules, f.module)
		a.tensors[f.module.A()], a.tensors[f.module.B()] = f.a, f.b
	}
	a.targets = targetsOf(a.Modules)
	return a, nil
}

// alphaOf inverts scale.
func alphaOf(m Module, rslora bool) float64 { return m.Scale / scale(1, m.Rank, rslora) }

func targetsOf(ms []Module) []string {
	var ls []linear
	for _, m := range ms {
		ls = append(ls, linear{name: m.Name})
	}
	return kinds(ls)
}

var blockIndex = regexp.MustCompile(`\.h\.(\d+)\.`)

func (cfg *adapterConfig) adapts(name string) bool {
	if !cfg.targets.match(name) || cfg.exclude.match(name) {
		return false
	}
	if cfg.layers == nil {
		return true
	}
	m := blockIndex.FindStringSubmatch(name)
	if m == nil {
		return false
	}
	i, err := strconv.Atoi(m[1])
	return err == nil && slices.Contains(cfg.layers, i)
}

// Save writes the adapter as a folder that PEFT loads: it appears whole or not at all, and an adapter already at dir is
// replaced. A folder of anything else is not: it is an error. Same adapter, same bytes.
func (a *Adapter) Save(dir string) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, ConfigFile)); err != nil {
			return fmt.Errorf("write adapter: %s holds other files and no %s, expected an adapter or no folder", dir, ConfigFile)
		}
	}
	return atomicdir.Write(dir, a.SaveInto)
}

// SaveInto writes the files of Save into the existing folder dir; the caller sees to it that dir appears whole.
func (a *Adapter) SaveInto(dir string) error {
	b, err := a.configJSON()
	if err != nil {
		return fmt.Errorf("write %s: %w", ConfigFile, err)
	}
	if err := os.WriteFile(filepath.Join(dir, ConfigFile), b, 0o644); err != nil {
		return fmt.Errorf("write adapter: %w", err)
	}
	var ts []safetensors.Tensor
	for _, m := range a.Modules {
		b := a.tensors[m.B()]
		if groupedByHead(a.config, m.Name) {
			b = regroup(a.config, b, m.Rank, true)
		}
		ts = append(ts,
			safetensors.Float32(prefix+m.Name+".lora_A.weight", []int{m.Rank, m.In}, a.tensors[m.A()], dtype.F32),
			safetensors.Float32(prefix+m.Name+".lora_B.weight", []int{m.Out, m.Rank}, b, dtype.F32))
	}
	name := filepath.Join(dir, WeightsFile)
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write adapter: %w", err)
	}
	// The metadata is what transformers and PEFT write and look for.
	err = safetensors.Write(f, ts, map[string]string{"format": "pt"})
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// configJSON returns adapter_config.json with keys in alphabetical order, as PEFT writes it. Modules of another rank or alpha
// than most go into the patterns; a set of targets that is not the same in every block lists full names.
func (a *Adapter) configJSON() ([]byte, error) {
	rank, alpha := common(a.Modules)
	rankPattern, alphaPattern := map[string]int{}, map[string]float64{}
	for _, m := range a.Modules {
		if m.Rank != rank {
			rankPattern[regexp.QuoteMeta(m.Name)] = m.Rank
		}
		if m.Alpha != alpha {
			alphaPattern[regexp.QuoteMeta(m.Name)] = m.Alpha
		}
	}
	targets := a.targets
	n := 0
	for _, l := range linears(a.config) {
		if slices.ContainsFunc(targets, func(t string) bool { return hasSuffix(l.name, t) }) {
			n++
		}
	}
	if n != len(a.Modules) {
		targets = nil
		for _, m := range a.Modules {
			targets = append(targets, m.Name)
		}
	}
	targets = slices.Sorted(slices.Values(targets))
	var base any
	if a.Base != "" {
		base = a.Base
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(map[string]any{
		"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "revision": nil, "inference_mode": true,
		"auto_mapping": nil, "r": rank, "lora_alpha": alpha, "lora_dropout": a.Dropout, "target_modules": targets,
		"exclude_modules": nil, "bias": "none", "use_rslora": a.RSLoRA, "use_dora": false, "modules_to_save": nil,
		"init_lora_weights": true, "layers_to_transform": nil, "layers_pattern": nil, "rank_pattern": rankPattern,
		"alpha_pattern": alphaPattern,
		// GPT-2's linear modules are transformers' Conv1D, which keep their weight transposed.
		"fan_in_fan_out": a.config.Architecture == model.GPT2,
	})
	return out.Bytes(), err
}

// common returns the rank and alpha that most modules have, the smaller of equals.
func common(ms []Module) (rank int, alpha float64) {
	ranks, alphas := map[int]int{}, map[float64]int{}
	for _, m := range ms {
		ranks[m.Rank]++
		alphas[m.Alpha]++
	}
	for _, r := range slices.Sorted(maps.Keys(ranks)) {
		if ranks[r] > ranks[rank] {
			rank = r
		}
	}
	for _, v := range slices.Sorted(maps.Keys(alphas)) {
		if alphas[v] > alphas[alpha] {
			alpha = v
		}
	}
	return rank, alpha
}
