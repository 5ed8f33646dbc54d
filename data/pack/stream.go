package pack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"autodev/data"
	"autodev/data/fim"
	"autodev/internal/rng"
)

// Windows is what trainers and evaluations read. Stream and Original are its two kinds. One goroutine at a time may use it.
type Windows interface {
	// Next returns the next window, or io.EOF after the last.
	Next(ctx context.Context) (Window, error)
	// State returns the position after the windows so far returned, to be given to Restore of a Windows that was made
	// with the same source and configuration. What follows is then the same, bit for bit.
	State() ([]byte, error)
	Restore(state []byte) error
	// Stats counts what the windows so far returned hold.
	Stats() Stats
	// Close ends the work done ahead of time.
	Close() error
}

// Config says how a Stream turns documents into windows.
type Config struct {
	FIM       fim.Options
	Sentinels fim.Sentinels
	Pack      Options
	Seed      uint64
	Epochs    uint64 // passes over the source; 0: endless
	Shuffle   Shuffle
	// Workers tokenise ahead of time; default all processors. The windows do not depend on it.
	Workers int
}

// Shuffle says how the order of documents is drawn, anew for every epoch: the units of the source (row groups, files) are
// permuted, and then the documents within blocks of that order. A source that fits into one block is permuted as a whole.
type Shuffle struct {
	Off       bool  // keep the source's order
	Documents int   // in a block; default 65536
	Bytes     int64 // of text in a block; default 256 MiB
}

// Evaluation is the configuration for one pass in the source's order without FIM.
func Evaluation(sequence int, s fim.Sentinels) Config {
	return Config{Sentinels: s, Pack: Options{Sequence: sequence}, Epochs: 1, Shuffle: Shuffle{Off: true}}
}

// Stream is the pipeline of AutoDev's own protocol.
type Stream struct {
	src   data.Source
	cfg   Config
	fim   *fim.Transformer
	print string
	pack  packer
	stats Stats
	err   error // sticky, except for the context's of Next

	at       place // of cur, or of the next document when cur is nil
	cur      []fim.Example
	example  int
	offset   int
	done     bool
	skipping bool // the next document to come was begun before Restore

	ctx   context.Context
	feed  <-chan *job
	stop  context.CancelFunc
	group *sync.WaitGroup
}

// NewStream returns a Stream over src. The tokenizer may be nil if all documents carry ids. Work begins with the first Next, and
// ends with Close or with ctx.
func NewStream(ctx context.Context, src data.Source, tok fim.Tokenizer, cfg Config) (*Stream, error) {
	var err error
	if cfg.Pack, err = cfg.Pack.withDefaults(); err != nil {
		return nil, err
	}
	if cfg.Shuffle.Documents == 0 {
		cfg.Shuffle.Documents = 1 << 16
	}
	if cfg.Shuffle.Bytes == 0 {
		cfg.Shuffle.Bytes = 256 << 20
	}
	if cfg.Shuffle.Documents < 1 || cfg.Shuffle.Bytes < 1 {
		return nil, fmt.Errorf("shuffle blocks of %d documents and %d bytes: expected at least 1", cfg.Shuffle.Documents, cfg.Shuffle.Bytes)
	}
	if cfg.Workers <= 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	if cfg.FIM.Level == "" {
		cfg.FIM.Level = fim.Char
	}
	if cfg.FIM.Scope == "" {
		cfg.FIM.Scope = fim.Context
	}
	// An example takes one position less than it has tokens, except where documents are strung together.
	capacity := cfg.Pack.Sequence + 1
	if cfg.Pack.CrossDocuments {
		capacity--
	}
	t, err := fim.New(cfg.FIM, tok, cfg.Sentinels, cfg.Seed, capacity)
	if err != nil {
		return nil, err
	}
	pad := cfg.Sentinels.Pad
	if pad < 0 {
		pad = cfg.Sentinels.EOT
	}
	s := &Stream{src: src, cfg: cfg, fim: t, ctx: ctx, pack: packer{opts: cfg.Pack, pad: pad}}
	relevant := cfg
	relevant.Workers = 0
	b, err := json.Marshal(relevant)
	if err != nil {
		return nil, err
	}
	s.print = src.Fingerprint() + "|" + string(b)
	return s, nil
}

// job is one document on its way through tokenisation.
type job struct {
	at       place
	identity uint64
	doc      data.Document
	examples []fim.Example
	err      error // io.EOF after the last document
	done     chan struct{}
}

// start begins to read and tokenise from s.at.
func (s *Stream) start() {
	ctx, cancel := context.WithCancel(s.ctx)
	ahead := 2 * s.cfg.Workers
	ordered, work := make(chan *job, ahead), make(chan *job, ahead)
	s.feed, s.stop, s.group = ordered, cancel, &sync.WaitGroup{}
	for range s.cfg.Workers {
		s.group.Go(func() {
			for j := range work {
				j.examples, j.err = s.fim.Examples(&j.doc, j.at.Epoch, j.identity)
				close(j.done)
			}
		})
	}
	from := s.at
	s.group.Go(func() {
		defer close(ordered)
		defer close(work)
		send := func(j *job) bool {
			select {
			case ordered <- j:
				return true
			case <-ctx.Done():
				return false
			}
		}
		err := s.read(ctx, from, func(j *job) bool {
			j.done = make(chan struct{})
			select {
			case work <- j:
			case <-ctx.Done():
				return false
			}
			return send(j)
		})
		if err == nil {
			err = io.EOF
		}
		closed := make(chan struct{})
		close(closed)
		send(&job{err: err, done: closed})
	})
}

// read emits the documents from a place on, in the order of training, until emit returns false.
func (s *Stream) read(ctx context.Context, from place, emit func(*job) bool) error {
	for epoch := from.Epoch; s.cfg.Epochs == 0 || epoch < s.cfg.Epochs; epoch++ {
		n := s.src.Units()
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		if !s.cfg.Shuffle.Off {
			order = rng.New(s.cfg.Seed, "shuffle units", epoch).Perm(n)
		}
		at := place{Epoch: epoch}
		if epoch == from.Epoch {
			at = from
		}
		begin := at.Block == data.Cursor{}
		if at.Block.Unit > n {
			return fmt.Errorf("resume at unit %d of %d", at.Block.Unit, n)
		}
		r := data.OpenOrder(ctx, s.src, order, at.Block)
		more, err := s.readEpoch(ctx, r, order, at, begin, emit)
		if err := errors.Join(err, r.Close()); err != nil || !more {
			return err
		}
	}
	return nil
}

func (s *Stream) readEpoch(ctx context.Context, r data.Reader, order []int, at place, begin bool, emit func(*job) bool) (more bool, err error) {
	for {
		block, err := s.readBlock(r)
		if err != nil {
			return false, err
		}
		if len(block) == 0 {
			if begin && at.Block == (data.Cursor{}) {
				return false, errors.New("the data source holds no document")
			}
			return true, ctx.Err()
		}
		// The block is named by its first document, wherever the cursor before it pointed.
		at.Block = block[0].at
		if at.Index > len(block) {
			return false, fmt.Errorf("resume at document %d of a shuffle block of %d: the data changed", at.Index, len(block))
		}
		perm := make([]int, len(block))
		for i := range perm {
			perm[i] = i
		}
		if !s.cfg.Shuffle.Off {
			perm = rng.New(s.cfg.Seed, "shuffle documents", at.Epoch, uint64(at.Block.Unit), uint64(at.Block.Row)).Perm(len(block))
		}
		for ; at.Index < len(block); at.Index++ {
			d := block[perm[at.Index]]
			j := &job{at: at, doc: d.doc, identity: uint64(order[d.at.Unit])<<32 | uint64(d.at.Row)}
			if !emit(j) {
				return false, ctx.Err()
			}
		}
		last := block[len(block)-1].at
		at.Block, at.Index = data.Cursor{Unit: last.Unit, Row: last.Row + 1}, 0
	}
}

type located struct {
	doc data.Document
	at  data.Cursor
}

func (s *Stream) readBlock(r data.Reader) ([]located, error) {
	var block []located
	var size int64
	for len(block) == 0 || !s.cfg.Shuffle.Off && len(block) < s.cfg.Shuffle.Documents && size < s.cfg.Shuffle.Bytes {
		doc, at, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		size += int64(len(doc.Content)) + 4*int64(len(doc.IDs))
		block = append(block, located{doc, at})
	}
	return block, nil
}

// Next implements Windows.
func (s *Stream) Next(ctx context.Context) (Window, error) {
	for {
		if w, ok := s.pack.next(&s.stats); ok {
			return w, nil
		}
		if s.err != nil {
			return Window{}, s.err
		}
		if s.done {
			return Window{}, io.EOF
		}
		if s.cur == nil {
			if err := s.nextDocument(ctx); err != nil {
				return Window{}, err
			}
			continue
		}
		if s.example == len(s.cur) {
			s.cur, s.example, s.offset = nil, 0, 0
			s.at.Index++
			continue
		}
		ex := &s.cur[s.example]
		if s.pack.left(ex, s.offset) {
			s.offset = s.pack.place(ex, s.offset)
		} else {
			s.example++
			s.offset = 0
		}
	}
}

func (s *Stream) nextDocument(ctx context.Context) error {
	if s.feed == nil {
		s.start()
	}
	var j *job
	select {
	case <-ctx.Done():
		return ctx.Err()
	case got, ok := <-s.feed:
		if !ok {
			s.err = s.ctx.Err()
			if s.err == nil {
				s.err = errors.New("data stream is closed")
			}
			return s.err
		}
		j = got
	}
	// Tokenising one document is short, so that waiting for it need not be interrupted.
	<-j.done
	switch {
	case j.err == io.EOF:
		s.done = true
		s.pack.flush()
		return nil
	case j.err != nil:
		s.err = fmt.Errorf("data: %w", j.err)
		return s.err
	}
	s.at = j.at
	if s.skipping {
		s.skipping = false
		if s.example > len(j.examples) || s.example == len(j.examples) && s.offset > 0 ||
			s.example < len(j.examples) && s.offset > len(j.examples[s.example].IDs) {
			s.err = fmt.Errorf("%s: resume at example %d, token %d, which the document does not have: the data changed", j.doc.Origin, s.example, s.offset)
			return s.err
		}
	} else {
		s.stats.Documents++
		s.stats.Epoch = j.at.Epoch
	}
	s.cur = j.examples
	if s.cur == nil {
		s.cur = []fim.Example{}
	}
	return nil
}

// Stats implements Windows.
func (s *Stream) Stats() Stats { return s.stats }

// State implements Windows.
func (s *Stream) State() ([]byte, error) {
	if s.err != nil {
		return nil, fmt.Errorf("data stream failed: %w", s.err)
	}
	st := streamState{
		Version: stateVersion, Data: s.print, At: s.at, Example: s.example, Offset: s.offset,
		Open: s.pack.open, Full: s.pack.full, Done: s.done, Stats: s.stats,
	}
	// A document that was begun is read again, and must not be counted again.
	st.Begun = s.cur != nil || s.skipping
	return json.Marshal(st)
}

// Restore implements Windows.
func (s *Stream) Restore(state []byte) error {
	var st streamState
	if err := decodeState(state, &st); err != nil {
		return fmt.Errorf("data stream state: %w", err)
	}
	if st.Version != stateVersion {
		return fmt.Errorf("data stream state: version %d, expected %d", st.Version, stateVersion)
	}
	if st.Data != s.print {
		return fmt.Errorf("data stream state: it belongs to other data or another configuration: %q, expected %q", st.Data, s.print)
	}
	if err := st.check(s.cfg.Pack); err != nil {
		return fmt.Errorf("data stream state: %w", err)
	}
	if err := s.Close(); err != nil {
		return err
	}
	s.at, s.example, s.offset, s.done, s.stats = st.At, st.Example, st.Offset, st.Done, st.Stats
	s.cur, s.err, s.skipping = nil, nil, st.Begun
	s.pack.open, s.pack.full = st.Open, st.Full
	return nil
}

// Close implements Windows. A closed Stream that is used again takes up where it was.
func (s *Stream) Close() error {
	if s.feed == nil {
		return nil
	}
	s.stop()
	for range s.feed {
		// Jobs that were ready are dropped; a later start makes them again.
	}
	s.group.Wait()
	s.feed = nil
	if s.cur != nil {
		s.skipping, s.cur = true, nil
	}
	return nil
}
