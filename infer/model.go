package infer

import (
	"fmt"
	"slices"
	"sync"

	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/compute/cpu/gemm"
	"autodev/compute/cpu/par"
	"autodev/model"
	"autodev/tokenizer"
)

// Options of a Model.
type Options struct {
	Threads int // 0 is all processors; changes no result
}

// Info is what a client may want to know about a model.
type Info struct {
	Context    int   // longest sequence in tokens, prompt and completion together
	Vocab      int   // tokens that can be generated or scored
	Parameters int64 // a tied head counts once
	FIM        bool  // it can fill in the middle
}

// Model is a checkpoint made ready for inference: immutable, safe for use by any number of goroutines.
type Model struct {
	config  model.Config
	tok     *tokenizer.Tokenizer // nil: token ids only
	program *program
	pool    *par.Pool
	kernels cpu.Kernels
	rows    int     // of the head's weight
	vocab   int     // rows that are tokens
	stops   []int32 // end a completion: end of text, fill-in-the-middle and separator tokens
	masked  []int32 // never generated: control tokens that do not end a text, ids without a token

	drafts speculation // what speculative decoding has learnt

	mu   sync.Mutex
	idle []*workspace
}

// maxIdle bounds the scratch memories kept for later sessions.
const maxIdle = 4

// New packs the weights of ckpt and traces its forward pass. tok may be nil for a model that is only given token ids; the
// model keeps no reference to matrices it has packed. Close ends its threads.
func New(ckpt *model.Checkpoint, tok *tokenizer.Tokenizer, o Options) (*Model, error) {
	if o.Threads < 0 {
		return nil, &OptionError{"threads", fmt.Sprintf("found %d, expected 0 or more", o.Threads)}
	}
	c := ckpt.Config
	if tok != nil {
		var err error
		if c, err = c.WithVocab(tok.VocabSize()); err != nil {
			return nil, fmt.Errorf("model %s: %w", ckpt.Dir, err)
		}
	}
	if err := ckpt.Weights.Check(c); err != nil {
		return nil, fmt.Errorf("model %s: %w", ckpt.Dir, err)
	}
	m := &Model{config: c, tok: tok, pool: par.New(o.Threads), rows: c.VocabSize, vocab: c.Vocab}
	m.kernels = cpu.NewKernels(m.pool)
	t := &tracer{source: &packer{m.pool, ckpt.Weights}, block: -1}
	model.Forward[int](c, t)
	var err error
	if m.program, err = t.program(); err != nil {
		m.pool.Close()
		return nil, fmt.Errorf("model %s: %w", ckpt.Dir, err)
	}
	m.controls()
	return m, nil
}

// Close ends the model's threads. What runs completes.
func (m *Model) Close() { m.pool.Close() }

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
	i := Info{Context: m.config.Positions, Vocab: m.vocab, Parameters: m.config.NumParams()}
	if m.tok != nil {
		_, i.FIM = m.tok.FIM()
	}
	return i
}

// matrix is a linear weight [out, in], packed for products with few rows of activations.
type matrix struct {
	in, out int
	packed  *gemm.Packed
}

// packer gives the tracer the weights of a checkpoint.
type packer struct {
	pool    *par.Pool
	weights *model.Weights
}

func (p *packer) has(name string) bool { return p.weights.Get(name) != nil }

func (p *packer) get(name string, dims int) (*model.Tensor, error) {
	t := p.weights.Get(name)
	if t == nil {
		return nil, fmt.Errorf("tensor %s: missing", name)
	}
	if len(t.Shape) != dims {
		return nil, fmt.Errorf("tensor %s: shape %v, expected %d dimensions", name, t.Shape, dims)
	}
	return t, nil
}

func (p *packer) vector(name string, n int) ([]float32, error) {
	t, err := p.get(name, 1)
	if err != nil {
		return nil, err
	}
	if t.Shape[0] != n {
		return nil, fmt.Errorf("tensor %s: shape %v, expected [%d]", name, t.Shape, n)
	}
	return t.Data, nil
}

func (p *packer) table(name string) ([]float32, int, error) {
	t, err := p.get(name, 2)
	if err != nil {
		return nil, 0, err
	}
	return t.Data, t.Shape[1], nil
}

func (p *packer) matrix(name string) (*matrix, error) {
	t, err := p.get(name, 2)
	if err != nil {
		return nil, err
	}
	out, in := t.Shape[0], t.Shape[1]
	return &matrix{in: in, out: out, packed: gemm.Pack(p.pool, gemm.Dense(t.Data, out, in).Transposed())}, nil
}

// workspace is the scratch memory of one forward pass at a time.
type workspace struct {
	tokens    int
	registers [][]float32 // [tokens, program.widths[i]]
	positions []int32
	attention []float32
	logits    []float32 // [headTokens, Model.rows], or less
	sequence  [1]cpu.Cached
}

func (m *Model) workspace() *workspace {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.idle); n > 0 {
		w := m.idle[n-1]
		m.idle = m.idle[:n-1]
		return w
	}
	return &workspace{registers: make([][]float32, len(m.program.widths))}
}

func (m *Model) release(w *workspace) {
	w.sequence = [1]cpu.Cached{}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.idle) < maxIdle {
		m.idle = append(m.idle, w)
	}
}

// grow makes room for n tokens.
func (w *workspace) grow(p *program, n int) {
	if n <= w.tokens {
		return
	}
	w.tokens = n
	for i, width := range p.widths {
		w.registers[i] = make([]float32, n*width)
	}
	w.positions = make([]int32, n)
}

func attributes(spec model.AttentionSpec) compute.Attr {
	return compute.Attr{Heads: spec.Heads, KVHeads: spec.KVHeads, HeadDim: spec.HeadDim, Scale: spec.Scale}
}

func (m *Model) linear(y, x []float32, n int, w *matrix, bias []float32) {
	gemm.MulPacked(m.pool, gemm.Dense(y, n, w.out), 1, gemm.Dense(x, n, w.in), w.packed, gemm.Options{Bias: bias})
}
