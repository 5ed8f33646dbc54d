package configs

// Recipe is everything that decides a training run. Together with the files it names it determines every byte of the
// result, on one kind of device. Each field's comment gives its default; Load and Parse fill them in, so a decoded
// Recipe shows every value in force.
type Recipe struct {
	// Model is the folder of the Hugging Face checkpoint to start from, or "autodev-tiny" for the one inside the binary.
	// Default autodev-tiny, unless init is given: then it must be absent.
	Model string `yaml:"model"`
	// Init describes a new model to train from random weights. Default: none.
	Init *Init `yaml:"init"`
	// LoRA trains adapters instead of the model's own weights. Default: none, which is full training.
	LoRA       *LoRA      `yaml:"lora"`
	Data       Data       `yaml:"data"`
	Train      Train      `yaml:"train"`
	Eval       Eval       `yaml:"eval"`
	Checkpoint Checkpoint `yaml:"checkpoint"`
	// Seed keys all randomness: initial weights, order of documents, FIM, dropout. Default 0.
	Seed uint64 `yaml:"seed"`
	// Threads is the number of processor threads; 0, the default, takes all. It never changes the result.
	Threads int `yaml:"threads"`
	// Device is auto (the default: CUDA if a usable card is found, else the CPU), cpu, cuda or, of several cards, cuda:INDEX. A run
	// goes on only on the kind of device that it began on.
	Device string `yaml:"device"`
	// Precision of training's matrix products: float32, bf16, float16 or auto (the default: bf16 on CUDA, on cards without it, before compute
	// capability 8.0 as V100 and T4 are, float16; float32 on the CPU). On the CPU bf16
	// rounds what enters them to bfloat16 and is faster on processors that have it (AVX512_BF16); others compute the same by
	// emulation, slower than float32; weights, gradients, the optimiser and evaluations are float32 with either. On CUDA bf16 keeps
	// weights and activations as bfloat16 too, beside float32 masters of the trained parameters. float16, on CUDA alone, does the same
	// with float16 and scales the loss as PyTorch's GradScaler does: from 65536, doubled after 2000 good steps; a step whose gradients
	// overflow changes nothing and halves the scale (train.jsonl: loss_scale, overflow, skipped_steps).
	Precision string `yaml:"precision"`
	// Out is the folder for checkpoints, records and the finished model or adapter. No default; the --out flag overrides it.
	Out string `yaml:"out"`
}

// Init describes a model with random weights (normal, standard deviation InitializerRange; output projections divided by
// √(2·NLayer), as GPT-2).
type Init struct {
	// Architecture is gpt_bigcode, the default.
	Architecture string `yaml:"architecture"`
	// Tokenizer is a folder with tokenizer.json or that file. Required; the vocabulary's size comes from it.
	Tokenizer string `yaml:"tokenizer"`
	// NLayer is the number of blocks. Required.
	NLayer int `yaml:"n_layer"`
	// NEmbd is the model's width. Required; a multiple of NHead.
	NEmbd int `yaml:"n_embd"`
	// NHead is the number of query heads. Required.
	NHead int `yaml:"n_head"`
	// NInner is the width of the MLP. Default 4·NEmbd.
	NInner int `yaml:"n_inner"`
	// NPositions is the longest sequence. Default 1024.
	NPositions int `yaml:"n_positions"`
	// MultiQuery gives all query heads one key and value head. Default true.
	MultiQuery bool `yaml:"multi_query"`
	// Activation is gelu_pytorch_tanh (the default), gelu or relu.
	Activation string `yaml:"activation"`
	// InitializerRange is the standard deviation of initial weights. Default 0.02.
	InitializerRange float64 `yaml:"initializer_range"`
	// Dropout is the probability of dropping embeddings, attention and residuals when train.dropout is model. Default 0.
	Dropout float64 `yaml:"dropout"`
}

// LoRA describes low-rank adapters (Hu et al. 2021).
type LoRA struct {
	// Preset fills the other fields' defaults: quick (rank 64, alpha 128), the default, or match (rank 256, alpha 512, for
	// results next to full training).
	Preset string `yaml:"preset"`
	// Rank of the adapters. Default by preset.
	Rank int `yaml:"rank"`
	// Alpha scales the adapters' output by alpha/rank. Default twice the rank.
	Alpha float64 `yaml:"alpha"`
	// RSLoRA scales by alpha/√rank instead (Kalajdzievski 2023). Default false.
	RSLoRA bool `yaml:"rslora"`
	// Dropout on the adapters' input. Default 0.
	Dropout float64 `yaml:"dropout"`
	// Targets is all-linear (the default) or module names by their last parts: [c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj].
	Targets []string `yaml:"targets"`
	// Init of A: kaiming (uniform ±1/√in, PEFT's default), the default, or gaussian (deviation 1/rank). B starts at zero.
	Init string `yaml:"init"`
}

// Data says what is read and how it becomes windows of tokens.
type Data struct {
	// Train lists the sources to learn from. At least one.
	Train []Source `yaml:"train"`
	// Eval lists the sources to measure on. Default: none, or a part of Train when Split is given or the protocol is original.
	Eval []Source `yaml:"eval"`
	// Split takes a part of the training documents out for evaluation. Default: none; with the original protocol its own, by
	// document. Excludes Eval.
	Split *Split `yaml:"split"`
	FIM   FIM    `yaml:"fim"`
	// Sequence is the number of tokens in a window. Default 0: the model's longest.
	Sequence int `yaml:"sequence"`
	// CrossDocuments lets attention cross from one document to the next in a window. Default false; the original protocol
	// always does.
	CrossDocuments bool `yaml:"cross_documents"`
	// Shuffle reads the documents in an order drawn anew for each epoch. Default true.
	Shuffle bool `yaml:"shuffle"`
	// ShuffleBuffer is the number of documents that are permuted together; files and row groups are permuted as a whole. Default
	// 65536.
	ShuffleBuffer int `yaml:"shuffle_buffer"`
	// ShuffleWindows is the number of windows that are permuted together, so that consecutive steps do not learn from one long
	// document. They are made before the first of them is learnt from. Default 1024; 1, or shuffle: false, keeps their order.
	ShuffleWindows int `yaml:"shuffle_windows"`
	// Protocol is default, or original: the windows, FIM decisions and order of appliedAI-Initiative/autodev, bit for bit.
	Protocol string `yaml:"protocol"`
}

// Source names documents.
type Source struct {
	// Path is a parquet or JSON-lines file, a folder of source files, a glob, or the http(s) address of a file.
	Path string `yaml:"path"`
	// Format is auto (the default: by name and kind), parquet, jsonl or folder.
	Format string `yaml:"format"`
	// Languages keeps documents of these languages only, by the names of the-stack: [python, c-sharp]. Default: all.
	Languages []string `yaml:"languages"`
	// Column is the text's column or key. Default content.
	Column string `yaml:"column"`
	// MaxDocuments stops after that many documents. Default 0: no limit.
	MaxDocuments int `yaml:"max_documents"`
}

// Split takes documents out of training for evaluation.
type Split struct {
	// By keeps all documents of a repository together (repository, the default), looks at each alone (document), or takes the
	// files that are listed (files).
	By string `yaml:"by"`
	// Files to evaluate on, with by: files: "path" or "repository/path"; one that ends in a slash stands for everything below it.
	Files []string `yaml:"files"`
	// Fraction of repositories or documents to evaluate on. Default 0.005. Not with by: files, nor is the seed.
	Fraction float64 `yaml:"fraction"`
	// Seed of the draw. Default 0.
	Seed uint64 `yaml:"seed"`
}

// FIM rearranges documents for fill-in-the-middle (Bavarian et al. 2022).
type FIM struct {
	// Rate is the share of documents rearranged. Default 0.5. 0 turns FIM off.
	Rate float64 `yaml:"rate"`
	// SPMRate is the share of those that put the suffix first. Default 0.5.
	SPMRate float64 `yaml:"spm_rate"`
	// Level cuts at characters (char, the default) or tokens (token).
	Level string `yaml:"level"`
	// Scope rearranges what fits a window (context, the default), so that every example is whole, or entire documents (document).
	Scope string `yaml:"scope"`
	// LossOn scores every token (all, the default) or only the middles of rearranged documents (middle).
	LossOn string `yaml:"loss_on"`
}

// Train describes the optimisation.
type Train struct {
	// Steps is the number of optimiser steps. Exactly one of steps and epochs.
	Steps int `yaml:"steps"`
	// Epochs is the number of passes over the training data, counted in windows before the run begins.
	Epochs int `yaml:"epochs"`
	// MicroBatch is the number of windows in memory at once. Default 1.
	MicroBatch int `yaml:"micro_batch"`
	// Accumulation is the number of micro-batches in a step. Default 8.
	Accumulation int `yaml:"accumulation"`
	// LR is the peak learning rate. Default 5e-5; with lora 5e-4.
	LR float64 `yaml:"lr"`
	// Schedule after the warm-up: cosine (the default), linear or constant.
	Schedule string `yaml:"schedule"`
	// WarmupSteps is the number of steps of linear warm-up. Default 0: by WarmupRatio.
	WarmupSteps int `yaml:"warmup_steps"`
	// WarmupRatio is the warm-up as a share of all steps, rounded up. Default 0.03.
	WarmupRatio float64 `yaml:"warmup_ratio"`
	// MinLRRatio is the learning rate at the end, as a share of the peak. Default 0.
	MinLRRatio float64 `yaml:"min_lr_ratio"`
	// WeightDecay of AdamW. Default 0.05; with lora 0.
	WeightDecay float64 `yaml:"weight_decay"`
	// DecayAll decays biases and norms too. Default false.
	DecayAll bool `yaml:"decay_all"`
	// Beta1, Beta2 and Epsilon of AdamW. Defaults 0.9, 0.95, 1e-8.
	Beta1   float64 `yaml:"beta1"`
	Beta2   float64 `yaml:"beta2"`
	Epsilon float64 `yaml:"epsilon"`
	// Clip is the largest norm of the gradient; larger ones are scaled down to it. Default 1. 0 turns clipping off.
	Clip float64 `yaml:"clip"`
	// Dropout is none (the default) or model: the probabilities of the model's own configuration.
	Dropout string `yaml:"dropout"`
	// GradientCheckpointing computes each block's activations again in the backward pass to save memory. Default false.
	GradientCheckpointing bool `yaml:"gradient_checkpointing"`
	// MemoryGB is how many gigabytes (10⁹ bytes) weights, optimiser and activations may take to save time: of what is computed again in the
	// backward pass (with GradientCheckpointing blocks, without it norms and activation functions) as much is kept as fits, what saves most
	// for its size first. Default 0: as little as can be.
	MemoryGB float64 `yaml:"memory_gb"`
}

// Eval describes the measurements during a run.
type Eval struct {
	// Every is the number of steps between measurements; one more is made at the end. Default 0: at the end only.
	Every int `yaml:"every"`
	// MaxDocuments bounds the documents measured. Default 200. 0: all.
	MaxDocuments int `yaml:"max_documents"`
}

// Checkpoint describes what is kept while a run is under way.
type Checkpoint struct {
	// Every is the number of steps between checkpoints; one more is made at the end. Default 500. 0: at the end only.
	Every int `yaml:"every"`
	// Keep is the number of newest checkpoints kept. Default 2. 0: all.
	Keep int `yaml:"keep"`
}

// DefaultModel is the name of the model inside the binary.
const DefaultModel = "autodev-tiny"

// defaults returns the recipe before the file is read. An optional section's own defaults apply when it is present.
func defaults(withLoRA bool) Recipe {
	r := Recipe{
		Data: Data{
			FIM:            FIM{Rate: .5, SPMRate: .5, Level: "char", Scope: "context", LossOn: "all"},
			Shuffle:        true,
			ShuffleBuffer:  1 << 16,
			ShuffleWindows: 1024,
			Protocol:       "default",
		},
		Train: Train{
			MicroBatch: 1, Accumulation: 8, LR: 5e-5, Schedule: "cosine", WarmupRatio: .03, WeightDecay: .05,
			Beta1: .9, Beta2: .95, Epsilon: 1e-8, Clip: 1, Dropout: "none",
		},
		Eval:       Eval{MaxDocuments: 200},
		Checkpoint: Checkpoint{Every: 500, Keep: 2},
		Device:     "auto",
		Precision:  "auto",
	}
	if withLoRA {
		r.Train.LR = 5e-4
		r.Train.WeightDecay = 0
	}
	return r
}

func (i *Init) setDefaults() {
	*i = Init{Architecture: "gpt_bigcode", NPositions: 1024, MultiQuery: true, Activation: "gelu_pytorch_tanh", InitializerRange: .02}
}

func (l *LoRA) setDefaults() {
	*l = LoRA{Preset: "quick", Targets: []string{AllLinear}, Init: "kaiming"}
}

func (s *Source) setDefaults() { *s = Source{Format: "auto", Column: "content"} }

func (s *Split) setDefaults() { *s = Split{By: "repository", Fraction: .005} }

// AllLinear as a LoRA target stands for every linear module of the blocks.
const AllLinear = "all-linear"

// derive fills in the defaults that depend on other fields.
func (r *Recipe) derive() {
	if r.Init == nil && r.Model == "" {
		r.Model = DefaultModel
	}
	if r.Init != nil && r.Init.NInner == 0 {
		r.Init.NInner = 4 * r.Init.NEmbd
	}
	if l := r.LoRA; l != nil {
		rank := map[string]int{"quick": 64, "match": 256}[l.Preset]
		if l.Rank == 0 {
			l.Rank = rank
		}
		if l.Alpha == 0 {
			l.Alpha = 2 * float64(l.Rank)
		}
	}
	if r.Data.Protocol == "original" {
		r.Data.CrossDocuments = true
		r.Data.FIM.Level, r.Data.FIM.Scope = "token", "document"
	}
}
