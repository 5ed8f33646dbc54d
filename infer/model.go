package infer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/compute/cpu/par"
	"autodev/compute/cpu/quant"
	"autodev/compute/cuda"
	"autodev/compute/devices"
	"autodev/model"
	"autodev/model/packed"
	"autodev/tokenizer"
)

// Options of a Model.
type Options struct {
	// Device is what the model runs on: the CPU when empty. It must not be devices.Auto.
	Device  devices.Spec
	Threads int     // 0 is all processors; changes no result
	Weights Weights // how matrices are kept: when empty Float32, on CUDA BFloat16, or Float16 where the card does not multiply in that
	Cache   Cache   // how keys and values are kept: CacheAuto when empty; Settle says what cards know
	// HugePages says whether the weights of a packed folder are used where their file is mapped: HugePagesAuto when empty.
	// Changes no result.
	HugePages HugePages
	// Lost is told once that the card is lost: the process must start again. May be nil.
	Lost func(error)
}

// Info is what a client may want to know about a model.
type Info struct {
	Context    int   // longest sequence in tokens, prompt and completion together
	Vocab      int   // tokens that can be generated or scored
	Parameters int64 // a tied head counts once
	FIM        bool  // it can fill in the middle
	Weights    Weights
	Bytes      int64 // of the matrices in memory
	Cache      Cache // never CacheAuto
	Device     string
}

// Model is a checkpoint made ready for inference: immutable, safe for use by any number of goroutines.
type Model struct {
	config  model.Config
	tok     *tokenizer.Tokenizer // nil: token ids only
	program *program
	card    *card // what runs the program; nil: the processor
	pool    *par.Pool
	kernels cpu.Kernels
	weights Weights
	cache   cpu.CacheFormat
	kept    Cache   // keys and values: cache, or on a card its own
	rows    int     // of the head's weight
	chunk   int     // longest part of a prompt that is evaluated at once, in tokens
	pass    int     // most tokens of a speculative pass
	perLook float64 // what kernels compute between two looks at the contexts, in parts of the usual
	vocab   int     // rows that are tokens
	stops   []int32 // end a completion: end of text, fill-in-the-middle and separator tokens
	masked  []int32 // never generated: control tokens that do not end a text, ids without a token

	blockTokens int       // whose keys and values share a block of memory
	blockBytes  int64     // of a block
	spare       blockPool // the processor's
	adapters    adapters

	tokens tokenIndex  // for Prompt.Heal, built when it is needed
	drafts speculation // what speculative decoding has learnt

	mu     sync.Mutex
	idle   []*workspace
	users  int            // workspaces given out, and what else uses the model
	folder *packed.Folder // where the weights are, when they are mapped
	mover  *mover         // copies them; nil when that is not wanted
	closed bool
}

// maxIdle bounds the scratch memories kept for later sessions.
const maxIdle = 4

// New packs the weights of ckpt and traces its forward pass. tok may be nil for a model that is only given token ids; the
// model keeps no reference to matrices it has packed. Close ends its threads.
func New(ckpt *model.Checkpoint, tok *tokenizer.Tokenizer, o Options) (*Model, error) {
	if err := ckpt.Weights.Check(ckpt.Config); err != nil {
		return nil, fmt.Errorf("model %s: %w", ckpt.Dir, err)
	}
	return Load(context.Background(), ckpt.Dir, ckpt.Config, ckpt.Weights, tok, o)
}

// Load is New for parameters that are read one at a time, such as a *model.Folder's: beside the packed weights one matrix is
// in memory. name stands for the model in errors.
func Load(ctx context.Context, name string, c model.Config, src model.Source, tok *tokenizer.Tokenizer, o Options) (*Model, error) {
	o, err := o.Settle()
	if err != nil {
		return nil, err
	}
	w, err := ParseWeights(string(o.Weights))
	if err != nil {
		return nil, err
	}
	m, err := build(ctx, name, c, w, tok, o, func(p *par.Pool) weightSource {
		all := newPacker(ctx, p, c, src, w)
		if o.Device.Kind == devices.CUDA {
			return dimensions{all}
		}
		return all
	}, elements(ctx, src, c))
	// Whatever was being read then: loading was interrupted.
	if stop := context.Cause(ctx); err != nil && stop != nil && errors.Is(err, stop) {
		return nil, fmt.Errorf("load %s: %w", name, stop)
	}
	return m, err
}

// build traces the model whose weights source gives. data returns the elements of a matrix, for cards.
func build(ctx context.Context, name string, c model.Config, w Weights, tok *tokenizer.Tokenizer, o Options, source func(*par.Pool) weightSource, data func(*matrix) ([]float32, error)) (*Model, error) {
	if o.Threads < 0 {
		return nil, &OptionError{"threads", fmt.Sprintf("found %d, expected 0 or more", o.Threads)}
	}
	cache, err := ParseCache(string(o.Cache))
	if err != nil {
		return nil, err
	}
	kept, format := cache.For(w), cpu.CacheF32
	if kept != CacheFloat16 { // which the processor has not
		if format, err = cpu.ParseCacheFormat(string(kept)); err != nil {
			return nil, err
		}
	}
	if tok != nil {
		if c, err = c.WithVocab(tok.VocabSize()); err != nil {
			return nil, fmt.Errorf("model %s: %w", name, err)
		}
	}
	m := &Model{config: c, tok: tok, pool: par.New(o.Threads), rows: c.VocabSize, vocab: c.Vocab}
	m.kernels, m.weights, m.cache, m.kept = cpu.NewKernels(m.pool), w, format, kept
	t := &tracer{source: source(m.pool), block: -1}
	model.Forward[int](c, t)
	if m.program, err = t.program(); err != nil {
		m.pool.Close()
		return nil, fmt.Errorf("model %s: %w", name, err)
	}
	m.chunk, m.pass, m.perLook = m.program.chunkTokens(), headTokens, 1
	m.controls()
	if o.Device.Kind == devices.CUDA {
		if m.card, err = newCard(ctx, o, m, data); err != nil {
			m.pool.Close()
			return nil, fmt.Errorf("model %s: %w", name, err)
		}
		m.chunk, m.pass = m.card.chunk, cuda.FewRows
		m.blockTokens, m.blockBytes = cuda.PageTokens, m.card.pageBytes
		return m, nil
	}
	m.blockTokens, m.blockBytes = cpu.BlockTokens, 4*int64(newProcessor(m).words())
	m.spare.keep(m.blocksFor(m.Context()))
	return m, nil
}

// Close ends the model's threads, and gives its weights back when nothing runs any more. What runs completes; what begins later
// fails.
func (m *Model) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.mover.stop()
	m.pool.Close()
	m.unmap()
}

// unmap gives back the weights of a packed folder, or the card, once the model is closed and not in use.
func (m *Model) unmap() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed || m.users > 0 {
		return
	}
	if m.folder != nil {
		if err := m.folder.Close(); err != nil {
			slog.Warn("the weights stay in memory", "error", err)
		}
		m.folder = nil
	}
	if err := m.card.close(); err != nil {
		slog.Warn("the device was not given back", "error", err)
	}
}

// separators are the control tokens between files, repositories and turns, as the families spell them.
var separators = []string{"<file_sep>", "<|file_sep|>", "<filename>", "<repo_name>", "<|repo_name|>", "<reponame>", "<|im_end|>"}

// controls sorts the vocabulary's control tokens into those that end a completion and those that never occur in one.
func (m *Model) controls() {
	stop := func(id int32) {
		if id >= 0 && int(id) < m.vocab && !slices.Contains(m.stops, id) {
			m.stops = append(m.stops, id)
		}
	}
	for _, id := range m.config.EOS {
		stop(int32(id))
	}
	if m.tok == nil {
		return
	}
	if id, ok := m.tok.EOS(); ok {
		stop(id)
	}
	// A fill-in-the-middle or separator token in a completion begins the next training example, file or turn: it is over.
	for _, name := range separators {
		if id, ok := m.tok.ID(name); ok && m.tok.IsSpecial(id) {
			stop(id)
		}
	}
	if f, ok := m.tok.FIM(); ok {
		for _, id := range []int32{f.EndOfText, f.Prefix, f.Middle, f.Suffix, f.Pad} {
			stop(id)
		}
	}
	for id := range int32(m.vocab) {
		if (m.tok.IsSpecial(id) || m.tok.TokenBytes(id) == nil) && !slices.Contains(m.stops, id) {
			m.masked = append(m.masked, id)
		}
	}
}

// Context returns the longest sequence in tokens.
func (m *Model) Context() int { return m.config.Positions }

// Info describes the model.
func (m *Model) Info() Info {
	i := Info{Context: m.config.Positions, Vocab: m.vocab, Parameters: m.config.NumParams(), Weights: m.weights, Bytes: m.program.bytes(), Cache: m.kept, Device: "cpu"}
	if m.card != nil {
		i.Bytes, i.Device = m.card.bytes, m.card.d.Name()
	}
	if m.tok != nil {
		_, i.FIM = m.tok.FIM()
	}
	return i
}

// workspace is the scratch memory of one forward pass at a time.
type workspace struct {
	tokens    int
	registers [][]float32 // [tokens, program.widths[i]]
	rows      quant.Rows  // what the last product read, or the next one will, quantised
	next      quant.Rows
	norm      normRows
	attention []float32
	logits    []float32 // [tokens whose logits are wanted, Model.rows]
	spans     []*span
	cached    []cpu.Cached
}

// errClosed says that a closed model was used.
var errClosed = errors.New("the model is closed")

// begin notes a use of the model, for which the weights stay where they are until end.
func (m *Model) begin() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	m.users++
	return nil
}

func (m *Model) end() {
	m.mu.Lock()
	m.users--
	m.mu.Unlock()
	m.unmap()
}

// workspace lends scratch memory, which release takes back.
func (m *Model) workspace() (*workspace, error) {
	if err := m.begin(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.idle); n > 0 {
		w := m.idle[n-1]
		m.idle = m.idle[:n-1]
		return w, nil
	}
	return &workspace{registers: make([][]float32, len(m.program.widths))}, nil
}

func (m *Model) release(w *workspace) {
	clear(w.spans[:cap(w.spans)])
	clear(w.cached[:cap(w.cached)])
	w.spans, w.cached = w.spans[:0], w.cached[:0]
	m.mu.Lock()
	if len(m.idle) < maxIdle {
		m.idle = append(m.idle, w)
	}
	m.mu.Unlock()
	m.end()
}

// grow makes room for n tokens: a few, as one token with its draft needs, or a chunk. What is not written to takes no memory.
func (w *workspace) grow(m *Model, n int) {
	if n <= w.tokens {
		return
	}
	w.tokens = headTokens
	if n > headTokens {
		w.tokens = max((n+headTokens-1)/headTokens*headTokens, m.chunk)
	}
	for i, width := range m.program.widths {
		w.registers[i] = nil
		w.registers[i] = make([]float32, w.tokens*width)
	}
}

func attributes(spec model.AttentionSpec) compute.Attr {
	return compute.Attr{Heads: spec.Heads, KVHeads: spec.KVHeads, HeadDim: spec.HeadDim, Scale: spec.Scale}
}
