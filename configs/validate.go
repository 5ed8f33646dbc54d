package configs

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// validator checks a decoded recipe and remembers the first mistake.
type validator struct {
	*decoder
	err error
}

func (v *validator) fail(key, found, expected string) {
	if v.err != nil {
		return
	}
	// The nearest key that was given tells the line.
	where := v.name
	for k := key; ; {
		if w, ok := v.where[k]; ok {
			where = w
			break
		}
		i := strings.LastIndexByte(k, '.')
		if i < 0 {
			break
		}
		k = k[:i]
	}
	v.err = &Error{where, key, found, expected}
}

func (v *validator) given(key string) bool { _, ok := v.where[key]; return ok }

func (v *validator) choice(key, value string, choices ...string) {
	if !slices.Contains(choices, value) {
		v.fail(key, strconv.Quote(value), "one of "+strings.Join(choices, ", "))
	}
}

func (v *validator) atLeast(key string, value, least int) {
	if value < least {
		v.fail(key, strconv.Itoa(value), fmt.Sprintf("at least %d", least))
	}
}

func (v *validator) atMost(key string, value, most int) {
	if value > most {
		v.fail(key, strconv.Itoa(value), fmt.Sprintf("at most %d", most))
	}
}

// between checks low ≤ value ≤ high.
func (v *validator) between(key string, value, low, high float64) {
	if !(value >= low && value <= high) {
		v.fail(key, number(value), fmt.Sprintf("%s to %s", number(low), number(high)))
	}
}

// below checks 0 ≤ value < high.
func (v *validator) below(key string, value, high float64) {
	if !(value >= 0 && value < high) {
		v.fail(key, number(value), "at least 0 and below "+number(high))
	}
}

func (v *validator) positive(key string, value float64) {
	if !(value > 0) {
		v.fail(key, number(value), "above 0")
	}
}

func (v *validator) notNegative(key string, value float64) {
	if !(value >= 0) {
		v.fail(key, number(value), "at least 0")
	}
}

func (v *validator) float32(key string, value float64) {
	if value > math.MaxFloat32 || value != 0 && value < math.SmallestNonzeroFloat32 {
		v.fail(key, number(value), "a number that float32 can hold")
	}
}

// Limits far above what anybody needs, low enough that nothing made of so many overflows, or takes all memory before a model's own
// size is looked at.
const (
	maxThreads        = 1 << 14
	maxRank           = 1 << 16
	maxWindows        = 1 << 22 // in an optimiser step
	maxEpochs         = 1 << 30
	maxShuffleWindows = 1 << 24
)

func number(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

func (v *validator) recipe(r *Recipe) error {
	if r.Init != nil {
		if r.Model != "" {
			v.fail("model", strconv.Quote(r.Model), "no model beside init, which describes a new one")
		}
		if r.LoRA != nil {
			v.fail("lora", "adapters on a new model", "lora with model, or init without lora")
		}
		v.init(r.Init)
	}
	if r.LoRA != nil {
		v.lora(r.LoRA)
	}
	v.data(&r.Data)
	v.train(&r.Train)
	v.atLeast("eval.every", r.Eval.Every, 0)
	v.atLeast("eval.max_documents", r.Eval.MaxDocuments, 0)
	v.atLeast("checkpoint.every", r.Checkpoint.Every, 0)
	v.atLeast("checkpoint.keep", r.Checkpoint.Keep, 0)
	v.atLeast("threads", r.Threads, 0)
	v.atMost("threads", r.Threads, maxThreads)
	v.device("device", r.Device)
	v.choice("precision", r.Precision, "auto", "float32", "bf16", "float16")
	return v.err
}

// device checks the form of a device; whether it is there is for whoever opens it to find out.
func (v *validator) device(key, value string) {
	kind, index, numbered := strings.Cut(value, ":")
	n, err := strconv.ParseUint(index, 10, 8)
	switch {
	case !numbered && slices.Contains([]string{"auto", "cpu", "cuda"}, kind):
	case numbered && kind == "cuda" && err == nil && strconv.FormatUint(n, 10) == index:
	default:
		v.fail(key, strconv.Quote(value), "auto, cpu, cuda or cuda:INDEX")
	}
}

func (v *validator) init(i *Init) {
	v.choice("init.architecture", i.Architecture, "gpt_bigcode")
	if i.Tokenizer == "" {
		v.fail("init.tokenizer", "nothing", "a folder with tokenizer.json or that file")
	}
	v.atLeast("init.n_layer", i.NLayer, 1)
	v.atLeast("init.n_embd", i.NEmbd, 1)
	v.atLeast("init.n_head", i.NHead, 1)
	if i.NHead > 0 && i.NEmbd%i.NHead != 0 {
		v.fail("init.n_embd", strconv.Itoa(i.NEmbd), fmt.Sprintf("a multiple of n_head %d", i.NHead))
	}
	v.atLeast("init.n_inner", i.NInner, 1)
	v.atLeast("init.n_positions", i.NPositions, 1)
	v.choice("init.activation", i.Activation, "gelu_pytorch_tanh", "gelu", "relu")
	v.positive("init.initializer_range", i.InitializerRange)
	v.below("init.dropout", i.Dropout, 1)
}

func (v *validator) lora(l *LoRA) {
	v.choice("lora.preset", l.Preset, "quick", "match")
	v.atLeast("lora.rank", l.Rank, 1)
	v.atMost("lora.rank", l.Rank, maxRank)
	v.positive("lora.alpha", l.Alpha)
	v.below("lora.dropout", l.Dropout, 1)
	v.choice("lora.init", l.Init, "kaiming", "gaussian")
	if len(l.Targets) == 0 {
		v.fail("lora.targets", "an empty list", "all-linear or names of modules")
	}
	if len(l.Targets) > 1 && slices.Contains(l.Targets, AllLinear) {
		v.fail("lora.targets", "all-linear beside other names", "all-linear alone or names of modules")
	}
	for i, t := range l.Targets {
		if t == "" {
			v.fail(fmt.Sprintf("lora.targets.%d", i), `""`, "the name of a module")
		}
	}
}

func (v *validator) data(d *Data) {
	if len(d.Train) == 0 {
		v.fail("data.train", "nothing", "at least one source")
	}
	v.sources("data.train", d.Train)
	v.sources("data.eval", d.Eval)
	if s := d.Split; s != nil {
		if len(d.Eval) > 0 {
			v.fail("data.split", "a split beside data.eval", "one of the two")
		}
		v.choice("data.split.by", s.By, "repository", "document", "files")
		switch {
		case s.By != "files" && len(s.Files) > 0:
			v.fail("data.split.files", "a list beside by: "+s.By, "by: files with it")
		case s.By != "files":
		case len(s.Files) == 0:
			v.fail("data.split.files", "nothing", "at least one file or folder, with by: files")
		case d.Protocol == "original":
			v.fail("data.split.by", `"files"`, "a fraction with the original protocol, or data.eval")
		case v.given("data.split.fraction"), v.given("data.split.seed"):
			v.fail("data.split.by", `"files" beside a fraction or seed`, "one of the two")
		}
		if !(s.Fraction > 0 && s.Fraction < 1) {
			v.fail("data.split.fraction", number(s.Fraction), "above 0 and below 1")
		}
	}
	v.between("data.fim.rate", d.FIM.Rate, 0, 1)
	v.between("data.fim.spm_rate", d.FIM.SPMRate, 0, 1)
	v.choice("data.fim.level", d.FIM.Level, "char", "token")
	v.choice("data.fim.scope", d.FIM.Scope, "context", "document")
	v.choice("data.fim.loss_on", d.FIM.LossOn, "all", "middle")
	if d.Sequence != 0 {
		v.atLeast("data.sequence", d.Sequence, 8)
	}
	v.atLeast("data.shuffle_buffer", d.ShuffleBuffer, 1)
	v.atLeast("data.shuffle_windows", d.ShuffleWindows, 1)
	v.atMost("data.shuffle_windows", d.ShuffleWindows, maxShuffleWindows)
	v.choice("data.protocol", d.Protocol, "default", "original")
}

func (v *validator) sources(key string, list []Source) {
	for i, s := range list {
		k := fmt.Sprintf("%s.%d", key, i)
		if s.Path == "" {
			v.fail(k+".path", "nothing", "a file, folder, glob or address")
		}
		v.choice(k+".format", s.Format, "auto", "parquet", "jsonl", "folder")
		if s.Column == "" {
			v.fail(k+".column", `""`, "the name of a column")
		}
		v.atLeast(k+".max_documents", s.MaxDocuments, 0)
	}
}

func (v *validator) train(t *Train) {
	v.atLeast("train.steps", t.Steps, 0)
	v.atLeast("train.epochs", t.Epochs, 0)
	v.atMost("train.epochs", t.Epochs, maxEpochs)
	if (t.Steps == 0) == (t.Epochs == 0) {
		found := "neither"
		if t.Steps > 0 {
			found = "both"
		}
		v.fail("train", found+" of steps and epochs", "exactly one")
	}
	v.atLeast("train.micro_batch", t.MicroBatch, 1)
	v.atLeast("train.accumulation", t.Accumulation, 1)
	v.atMost("train.micro_batch", t.MicroBatch, maxWindows)
	v.atMost("train.accumulation", t.Accumulation, maxWindows/max(1, t.MicroBatch))
	v.positive("train.lr", t.LR)
	v.choice("train.schedule", t.Schedule, "cosine", "linear", "constant")
	v.atLeast("train.warmup_steps", t.WarmupSteps, 0)
	v.between("train.warmup_ratio", t.WarmupRatio, 0, 1)
	if t.WarmupSteps > 0 && v.given("train.warmup_ratio") && t.WarmupRatio > 0 {
		v.fail("train.warmup_steps", "both warmup_steps and warmup_ratio", "one of them")
	}
	v.between("train.min_lr_ratio", t.MinLRRatio, 0, 1)
	v.notNegative("train.weight_decay", t.WeightDecay)
	v.below("train.beta1", t.Beta1, 1)
	v.below("train.beta2", t.Beta2, 1)
	v.positive("train.epsilon", t.Epsilon)
	v.notNegative("train.clip", t.Clip)
	v.choice("train.dropout", t.Dropout, "none", "model")
	v.between("train.memory_gb", t.MemoryGB, 0, 1e6)
	v.float32("train.lr", t.LR)
	v.float32("train.epsilon", t.Epsilon)
	v.float32("train.weight_decay", t.WeightDecay)
	v.float32("train.clip", t.Clip)
}
