package eval

import (
	"context"
	"fmt"
	"math"
	"strings"
)

// Protocol is a way to turn documents and a model into a perplexity. Perplexities of different protocols must not be
// compared.
type Protocol string

const (
	// Exact scores every token of every document but its first. Each document is alone in its context; one longer than the
	// window is covered by overlapping windows in which every token is scored once. The perplexity is
	// exp(Σ nll / tokens).
	Exact Protocol = "exact"
	// Strided joins the documents with a blank line and slides a window over the one stream; the first window scores all its
	// tokens, each further one the last Stride (Hugging Face's documentation of fixed-length perplexity). exp(Σ nll / tokens).
	Strided Protocol = "strided"
	// Original is that of the published experiment (AutoDev, appliedAI TransferLab 2023): documents joined with a blank line,
	// every window, the first too, scores its last Stride tokens only, and the perplexity is exp of the mean of window means,
	// so that the first window−stride tokens are never scored and a short last window weighs as much as a full one.
	Original Protocol = "original"
)

// Protocols lists the known ones.
func Protocols() []Protocol { return []Protocol{Exact, Strided, Original} }

// Separator joins documents into one stream in Strided and Original.
const Separator = "\n\n"

// OriginalDocuments is the number of documents the original took, OriginalStride its stride.
const (
	OriginalDocuments = 100
	OriginalStride    = 512
)

// Window is a part of a token sequence that is given to the model at once: tokens [Begin, End), of which [Score, End) are
// scored. Token Begin itself is never scored: nothing precedes it.
type Window struct{ Begin, Score, End int }

// Windows covers a sequence of length tokens by windows of at most window tokens that advance by stride, as p prescribes.
func (p Protocol) Windows(length, window, stride int) []Window {
	var ws []Window
	prev := 0
	for begin := 0; begin < length; begin += stride {
		end := min(begin+window, length)
		score := prev
		if p == Original {
			score = end - min(stride, end-prev)
		}
		if w := (Window{begin, max(score, begin+1), end}); w.Score < w.End {
			ws = append(ws, w)
		}
		prev = end
		if end == length {
			break
		}
	}
	return ws
}

// Scorer is a model that tells how likely tokens are.
type Scorer interface {
	// NLL returns −ln p(ids[i] | ids[:i]) for i from max(1, from) to len(ids)−1.
	NLL(ctx context.Context, ids []int32, from int) ([]float64, error)
}

// Encoder turns text into tokens.
type Encoder interface {
	Encode(text string) []int32
	// TokenBytes returns the text bytes of a token.
	TokenBytes(id int32) []byte
}

// Document is one text to score.
type Document struct {
	Name string  // for per-token records: repository/path or file:row
	Text string  // used unless IDs are given
	IDs  []int32 // ready token ids, or nil
}

// Options say how to score.
type Options struct {
	Protocol Protocol
	Window   int // tokens given to the model at once; at least 2
	Stride   int // tokens from one window's start to the next's; at least 1, below Window
	// PerToken, when set, receives every scored document: the ids of the scored tokens in order and their nll.
	PerToken func(document int, name string, ids []int32, nll []float64) error
	// Progress, when set, is told of the tokens scored so far and the number there will be.
	Progress func(done, total int)
}

// Cluster is the unit over which uncertainty is estimated: a document, or a window of the Original protocol.
type Cluster struct {
	NLL    float64 // sum over the scored tokens, in nats
	Tokens int
	Bytes  int // text bytes of the scored tokens
}

// Result is what scoring one model gave.
type Result struct {
	Protocol     Protocol
	Window       int
	Stride       int
	Perplexity   float64
	Documents    int // documents that were given
	Tokens       int // tokens scored
	NLL          float64
	Bytes        int
	Clusters     []Cluster // one for every document, also without a scored token, or for every window
	ClustersKind string    // "documents" or "windows"
}

// BitsPerByte is Σ nll / (ln 2 · bytes of the scored tokens): comparable across tokenizers.
func (r Result) BitsPerByte() float64 { return r.NLL / math.Ln2 / float64(r.Bytes) }

// Perplexity scores docs.
func Perplexity(ctx context.Context, m Scorer, enc Encoder, docs []Document, o Options) (Result, error) {
	if o.Window < 2 || o.Stride < 1 || o.Stride >= o.Window {
		return Result{}, fmt.Errorf("window %d, stride %d: expected a window of at least 2 tokens and a stride of at least 1 below it", o.Window, o.Stride)
	}
	res := Result{Protocol: o.Protocol, Window: o.Window, Stride: o.Stride, Documents: len(docs), ClustersKind: "documents"}
	s := scorer{ctx: ctx, m: m, enc: enc, o: o}
	var err error
	switch o.Protocol {
	case Exact:
		err = s.exact(docs, &res)
	case Strided, Original:
		err = s.stream(docs, &res)
	default:
		return Result{}, fmt.Errorf("protocol %q: expected one of %v", o.Protocol, Protocols())
	}
	if err != nil {
		return Result{}, err
	}
	if res.Tokens == 0 {
		return Result{}, fmt.Errorf("%d documents hold no token to score: %s scores a sequence of at least 2 tokens", len(docs), o.Protocol)
	}
	res.Perplexity = perplexity(o.Protocol, res.Clusters, nil)
	return res, nil
}

// perplexity is the protocol's estimate from clusters, counted weight times each (nil: once each).
func perplexity(p Protocol, cs []Cluster, weight []int32) float64 {
	var num, den float64
	for i, c := range cs {
		w := 1.0
		if weight != nil {
			w = float64(weight[i])
		}
		if p == Original {
			num += w * c.NLL / float64(c.Tokens)
			den += w
		} else {
			num += w * c.NLL
			den += w * float64(c.Tokens)
		}
	}
	return math.Exp(num / den)
}

type scorer struct {
	ctx         context.Context
	m           Scorer
	enc         Encoder
	o           Options
	done, total int
}

func (s *scorer) ids(d Document) []int32 {
	if d.IDs != nil {
		return d.IDs
	}
	return s.enc.Encode(d.Text)
}

// window scores one window of ids.
func (s *scorer) window(ids []int32, w Window) ([]float64, error) {
	nll, err := s.m.NLL(s.ctx, ids[w.Begin:w.End], w.Score-w.Begin)
	if err != nil {
		return nil, err
	}
	if len(nll) != w.End-w.Score {
		return nil, fmt.Errorf("the model scored %d tokens, expected %d", len(nll), w.End-w.Score)
	}
	for i, v := range nll {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("the model gives token %d of the window a log-probability of %v", w.Score-w.Begin+i, -v)
		}
	}
	s.done += len(nll)
	if s.o.Progress != nil {
		s.o.Progress(s.done, s.total)
	}
	return nll, nil
}

func (s *scorer) cluster(ids []int32, nll []float64) Cluster {
	c := Cluster{Tokens: len(nll)}
	for i, v := range nll {
		c.NLL += v
		c.Bytes += len(s.enc.TokenBytes(ids[i]))
	}
	return c
}

func (res *Result) add(c Cluster) {
	res.Clusters = append(res.Clusters, c)
	res.NLL += c.NLL
	res.Tokens += c.Tokens
	res.Bytes += c.Bytes
}

func (s *scorer) exact(docs []Document, res *Result) error {
	// Encoding twice is cheap next to scoring, and no more than one document's ids are held.
	for _, d := range docs {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		s.total += max(0, len(s.ids(d))-1)
	}
	for i, d := range docs {
		ids := s.ids(d)
		if len(ids) < 2 {
			res.add(Cluster{})
			continue
		}
		nll := make([]float64, 0, len(ids)-1)
		for _, w := range Exact.Windows(len(ids), s.o.Window, s.o.Stride) {
			part, err := s.window(ids, w)
			if err != nil {
				return fmt.Errorf("document %d (%s): tokens %d to %d: %w", i, docs[i].Name, w.Begin, w.End, err)
			}
			nll = append(nll, part...)
		}
		res.add(s.cluster(ids[1:], nll))
		if s.o.PerToken != nil {
			if err := s.o.PerToken(i, docs[i].Name, ids[1:], nll); err != nil {
				return err
			}
		}
	}
	return nil
}

// stream scores the documents joined into one token sequence.
func (s *scorer) stream(docs []Document, res *Result) error {
	ids, owner, err := s.join(docs)
	if err != nil {
		return err
	}
	ws := s.o.Protocol.Windows(len(ids), s.o.Window, s.o.Stride)
	for _, w := range ws {
		s.total += w.End - w.Score
	}
	nll := make([]float64, len(ids))
	scored := make([]bool, len(ids))
	if s.o.Protocol == Original {
		res.ClustersKind = "windows"
	}
	for k, w := range ws {
		part, err := s.window(ids, w)
		if err != nil {
			return fmt.Errorf("window %d: tokens %d to %d of the stream: %w", k, w.Begin, w.End, err)
		}
		for i, v := range part {
			nll[w.Score+i], scored[w.Score+i] = v, true
		}
		if s.o.Protocol == Original {
			res.add(s.cluster(ids[w.Score:w.End], part))
		}
	}
	begin := 0
	for d := range docs {
		var docIDs []int32
		var docNLL []float64
		for ; begin < len(ids) && int(owner[begin]) == d; begin++ {
			if scored[begin] {
				docIDs, docNLL = append(docIDs, ids[begin]), append(docNLL, nll[begin])
			}
		}
		if s.o.Protocol != Original {
			res.add(s.cluster(docIDs, docNLL))
		}
		if s.o.PerToken != nil && len(docIDs) > 0 {
			if err := s.o.PerToken(d, docs[d].Name, docIDs, docNLL); err != nil {
				return err
			}
		}
	}
	return nil
}

// join encodes the documents as one stream, in one go as the original did, and tells which document each token belongs to: the
// one that holds its first byte (a separator belongs to the document before it). Documents of ready ids are joined as they are.
func (s *scorer) join(docs []Document) (ids []int32, owner []int32, err error) {
	ready := 0
	for _, d := range docs {
		if d.IDs != nil {
			ready++
		}
	}
	if ready == len(docs) {
		for i, d := range docs {
			for _, id := range d.IDs {
				ids, owner = append(ids, id), append(owner, int32(i))
			}
		}
		return ids, owner, nil
	}
	if ready > 0 {
		return nil, nil, fmt.Errorf("%d of %d documents come as token ids: %s needs all or none of them as text", ready, len(docs), s.o.Protocol)
	}
	var b strings.Builder
	ends := make([]int, len(docs))
	for i, d := range docs {
		if i > 0 {
			b.WriteString(Separator)
			ends[i-1] = b.Len()
		}
		b.WriteString(d.Text)
	}
	if len(docs) > 0 {
		ends[len(docs)-1] = b.Len()
	}
	ids = s.enc.Encode(b.String())
	owner = make([]int32, len(ids))
	at, doc := 0, 0
	for i, id := range ids {
		for doc < len(docs)-1 && at >= ends[doc] {
			doc++
		}
		owner[i] = int32(doc)
		at += len(s.enc.TokenBytes(id))
	}
	return ids, owner, nil
}
