package pack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"autodev/data"
	"autodev/data/fim"
	"autodev/data/numpyrng"
)

// OriginalConfig configures the original protocol.
type OriginalConfig struct {
	FIMRate, SPMRate float64
	Sentinels        fim.Sentinels // EOT is the concat token
	Sequence         int
	Seed             uint32 // of the FIM decisions (numpy) and of the shuffling (Python)
	Endless          bool   // training; otherwise one pass
	// CharsPerToken is the ratio by which buffers are sized; 0: measured on the first documents of the source, as the original
	// measured it on the training documents, also for its validation set.
	CharsPerToken float64
}

// Constants of the original protocol.
const (
	originalSample    = 400  // documents over which characters per token are measured
	originalSequences = 1024 // windows' worth of characters in a buffer
)

// Original is ConstantLengthDataset of santacoder-finetuning and the original, bit for bit: a buffer of documents is
// tokenised, each document FIM-permuted at token level with a RandomState(seed) made anew for every buffer, end-of-text put behind each,
// all strung together and cut; the tail of the buffer is dropped, and the windows are shuffled with Python's random.
// The documents come in the source's order, as split.Original gives them.
type Original struct {
	src   data.Source
	tok   fim.Tokenizer
	cfg   OriginalConfig
	print string
	limit float64 // characters after which a buffer is full

	at      data.Cursor // of the next buffer, or of the current one when windows is not nil
	after   data.Cursor // behind the current buffer
	random  *numpyrng.Python
	before  []byte    // state of random before the current buffer was shuffled
	windows [][]int32 // current buffer
	index   int       // of the next window
	ended   bool      // the source ends with the current buffer
	done    bool
	skip    int // windows of the next buffer that were returned before Restore
	stats   Stats
	docs    int64
	err     error
}

// CharsPerToken is the original's ratio over the first 400 documents: all characters (Unicode code points) by all tokens.
func CharsPerToken(ctx context.Context, src data.Source, tok fim.Tokenizer) (float64, error) {
	chars, tokens, n := 0, 0, 0
	for doc, err := range data.Documents(ctx, src) {
		if err != nil {
			return 0, err
		}
		chars += utf8.RuneCountInString(doc.Content)
		tokens += len(tok.Encode(doc.Content))
		if n++; n == originalSample {
			break
		}
	}
	if tokens == 0 {
		return 0, errors.New("the data source holds no text to measure characters per token on")
	}
	return float64(chars) / float64(tokens), nil
}

// NewOriginal returns the original protocol's windows over src.
func NewOriginal(ctx context.Context, src data.Source, tok fim.Tokenizer, cfg OriginalConfig) (*Original, error) {
	// The FIM options are checked where they are for the other protocol.
	if _, err := fim.New(fim.Options{Rate: cfg.FIMRate, SPMRate: cfg.SPMRate, Level: fim.Token, Scope: fim.Document}, tok, cfg.Sentinels, 0, cfg.Sequence); err != nil {
		return nil, err
	}
	if _, err := (Options{Sequence: cfg.Sequence}).withDefaults(); err != nil {
		return nil, err
	}
	if cfg.CharsPerToken == 0 {
		var err error
		if cfg.CharsPerToken, err = CharsPerToken(ctx, src, tok); err != nil {
			return nil, fmt.Errorf("data: %w", err)
		}
	}
	if !(cfg.CharsPerToken > 0) || math.IsInf(cfg.CharsPerToken, 0) {
		return nil, fmt.Errorf("%v characters per token: expected more than 0", cfg.CharsPerToken)
	}
	b, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	return &Original{
		src: src, tok: tok, cfg: cfg, print: src.Fingerprint() + "|original " + string(b),
		limit:  float64(cfg.Sequence) * cfg.CharsPerToken * originalSequences,
		random: numpyrng.NewPython(uint64(cfg.Seed)),
	}, nil
}

// Next implements Windows.
func (o *Original) Next(ctx context.Context) (Window, error) {
	if o.err != nil {
		return Window{}, o.err
	}
	for o.windows == nil || o.index >= len(o.windows) {
		if o.windows != nil {
			o.at, o.done = o.after, o.ended
			o.windows, o.index = nil, 0
		}
		if o.done {
			return Window{}, io.EOF
		}
		if err := o.fill(ctx); err != nil {
			if ctx.Err() == nil {
				o.err = fmt.Errorf("data: %w", err)
			}
			return Window{}, err
		}
		if o.skip > len(o.windows) {
			o.err = fmt.Errorf("data: resume at window %d of a buffer of %d: the data changed", o.skip, len(o.windows))
			return Window{}, o.err
		}
		o.index, o.skip = o.skip, 0
	}
	ids := o.windows[o.index]
	o.index++
	n := len(ids)
	w := Window{IDs: ids, Targets: make([]int32, n), Positions: make([]int32, n), DocStart: make([]int32, n)}
	copy(w.Targets, ids[1:])
	w.Targets[n-1] = NotScored
	for i := range w.Positions {
		w.Positions[i] = int32(i)
	}
	o.stats.Windows++
	o.stats.Scored += int64(n - 1)
	o.stats.Documents = o.docs
	return w, nil
}

// fill makes the windows of the next buffer.
func (o *Original) fill(ctx context.Context) error {
	var texts []data.Document
	chars := 0
	r := data.Open(ctx, o.src, o.at)
	after, ended := o.at, false
	passFrom, passChars := o.at, 0 // where this pass over the source began, and the characters by then
	for float64(chars) < o.limit {
		doc, at, err := r.Next()
		if err == io.EOF {
			if !o.cfg.Endless {
				ended = true
				break
			}
			if err := r.Close(); err != nil {
				return err
			}
			if passFrom == (data.Cursor{}) && chars == passChars {
				return errors.New("the data source holds no text")
			}
			passFrom, passChars = data.Cursor{}, chars
			r = data.Open(ctx, o.src, passFrom)
			continue
		}
		if err != nil {
			return errors.Join(err, r.Close())
		}
		if doc.IDs != nil {
			return errors.Join(fmt.Errorf("%s: the document has ready input_ids, and the original protocol needs text", doc.Origin), r.Close())
		}
		texts = append(texts, doc)
		chars += utf8.RuneCountInString(doc.Content)
		after = data.Cursor{Unit: at.Unit, Row: at.Row + 1}
	}
	if err := r.Close(); err != nil {
		return err
	}
	encoded := make([][]int32, len(texts))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range texts {
		g.Go(func() error {
			encoded[i] = o.tok.Encode(texts[i].Content)
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	random := numpyrng.NewRandomState(o.cfg.Seed)
	var all []int32
	for _, ids := range encoded {
		if o.cfg.FIMRate > 0 {
			ids = fim.Permute(ids, random, o.cfg.FIMRate, o.cfg.SPMRate, o.cfg.Sentinels).IDs
		}
		all = append(append(all, ids...), o.cfg.Sentinels.EOT)
	}
	windows := make([][]int32, 0, len(all)/o.cfg.Sequence)
	for ; len(all) >= o.cfg.Sequence; all = all[o.cfg.Sequence:] {
		windows = append(windows, all[:o.cfg.Sequence:o.cfg.Sequence])
	}
	if len(windows) == 0 && o.cfg.Endless {
		return fmt.Errorf("a buffer of %d documents gives no window of %d tokens", len(texts), o.cfg.Sequence)
	}
	before, err := o.random.MarshalBinary()
	if err != nil {
		return err
	}
	o.random.Shuffle(len(windows), func(i, j int) { windows[i], windows[j] = windows[j], windows[i] })
	o.before, o.windows, o.index, o.after, o.ended = before, windows, 0, after, ended
	if o.skip == 0 {
		o.docs += int64(len(texts))
	}
	return nil
}

// originalState is what Original.State writes.
type originalState struct {
	Version int         `json:"version"`
	Data    string      `json:"data"`
	At      data.Cursor `json:"at"`    // first document of the buffer
	Index   int         `json:"index"` // of the next window in it
	Random  []byte      `json:"random"`
	Done    bool        `json:"done"`
	Stats   Stats       `json:"stats"`
	Docs    int64       `json:"docs"`
}

// State implements Windows.
func (o *Original) State() ([]byte, error) {
	if o.err != nil {
		return nil, fmt.Errorf("data stream failed: %w", o.err)
	}
	st := originalState{Version: stateVersion, Data: o.print, At: o.at, Index: o.index, Done: o.done, Stats: o.stats, Docs: o.docs}
	if o.windows == nil {
		st.Index = o.skip
		b, err := o.random.MarshalBinary()
		if err != nil {
			return nil, err
		}
		st.Random = b
	} else {
		st.Random = o.before
	}
	return json.Marshal(st)
}

// Restore implements Windows.
func (o *Original) Restore(state []byte) error {
	var st originalState
	if err := decodeState(state, &st); err != nil {
		return fmt.Errorf("data stream state: %w", err)
	}
	switch {
	case st.Version != stateVersion:
		return fmt.Errorf("data stream state: version %d, expected %d", st.Version, stateVersion)
	case st.Data != o.print:
		return fmt.Errorf("data stream state: it belongs to other data or another configuration: %q, expected %q", st.Data, o.print)
	case st.At.Unit < 0 || st.At.Row < 0 || st.Index < 0:
		return errors.New("data stream state: a negative position")
	}
	random := &numpyrng.Python{}
	if err := random.UnmarshalBinary(st.Random); err != nil {
		return fmt.Errorf("data stream state: %w", err)
	}
	o.random, o.at, o.skip, o.done, o.stats, o.docs = random, st.At, st.Index, st.Done, st.Stats, st.Docs
	o.windows, o.index, o.err = nil, 0, nil
	return nil
}

// Stats implements Windows.
func (o *Original) Stats() Stats { return o.stats }

// Close implements Windows. Original does nothing ahead of time.
func (o *Original) Close() error { return nil }
