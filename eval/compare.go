package eval

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"autodev/data"
)

// Model is a model opened for scoring.
type Model struct {
	Scorer
	Encoder
	Close func()
}

// Candidate is one row of a comparison to be.
type Candidate struct {
	Name    string
	Context int // the model's longest sequence
	Open    func(ctx context.Context) (Model, error)
}

// Comparison says how several models are scored. Zero values take the protocol's defaults.
type Comparison struct {
	Protocol Protocol
	Window   int // default: the shortest context among the models, so that all are scored alike
	Stride   int // default: half the window; at most OriginalStride for Original
	Data     string
	Seed     uint64
	PerToken io.Writer                                // JSON lines of every scored document, or nil
	Progress func(model string) func(done, total int) // or nil
}

// Compare scores the candidates in order, one in memory at a time.
func (c Comparison) Compare(ctx context.Context, candidates []Candidate, docs []Document) (Table, error) {
	window := c.Window
	for _, x := range candidates {
		if c.Window > x.Context {
			return Table{}, fmt.Errorf("window %d: %s reads at most %d tokens", c.Window, x.Name, x.Context)
		}
		if window == 0 || c.Window == 0 && x.Context < window {
			window = x.Context
		}
	}
	stride := c.Stride
	if stride == 0 {
		stride = max(1, window/2)
		if c.Protocol == Original {
			stride = min(stride, OriginalStride)
		}
	}
	t := Table{Data: c.Data, Seed: c.Seed}
	for _, x := range candidates {
		res, err := c.score(ctx, x, docs, Options{Protocol: c.Protocol, Window: window, Stride: stride})
		if err != nil {
			return Table{}, fmt.Errorf("%s: %w", x.Name, err)
		}
		t.Rows = append(t.Rows, Row{x.Name, res})
	}
	return t, nil
}

func (c Comparison) score(ctx context.Context, x Candidate, docs []Document, o Options) (Result, error) {
	m, err := x.Open(ctx)
	if err != nil {
		return Result{}, err
	}
	defer m.Close()
	if c.Progress != nil {
		o.Progress = c.Progress(x.Name)
	}
	if c.PerToken != nil {
		enc := json.NewEncoder(c.PerToken)
		o.PerToken = func(document int, name string, ids []int32, nll []float64) error {
			if err := enc.Encode(TokenRecord{x.Name, document, name, ids, nll}); err != nil {
				return fmt.Errorf("write the per-token record of document %d: %w", document, err)
			}
			return nil
		}
	}
	return Perplexity(ctx, m, m, docs, o)
}

// TokenRecord is a line of the per-token file: IDs and NLL have one entry for each scored token of the document.
type TokenRecord struct {
	Model    string    `json:"model"`
	Document int       `json:"document"`
	Name     string    `json:"name"`
	IDs      []int32   `json:"ids"`
	NLL      []float64 `json:"nll"`
}

// ReadDocuments reads all documents of src.
func ReadDocuments(ctx context.Context, src data.Source) ([]Document, error) {
	var docs []Document
	for d, err := range data.Documents(ctx, src) {
		if err != nil {
			return nil, err
		}
		name := d.Origin.String()
		if d.Path != "" {
			name = d.Repository + "/" + d.Path
		}
		docs = append(docs, Document{Name: name, Text: d.Content, IDs: d.IDs})
	}
	return docs, nil
}
