package tgi

import (
	"runtime/debug"

	"autodev/serve/wire"
)

// spoken is the version of TGI whose API this is.
const spoken = "3.3.6"

// modelInfo is the answer of GET /info.
type modelInfo struct {
	ModelID        string  `json:"model_id"`
	SHA            *string `json:"sha"`
	DType          string  `json:"model_dtype"`
	DeviceType     string  `json:"model_device_type"`
	PipelineTag    string  `json:"model_pipeline_tag"`
	MaxConcurrent  int     `json:"max_concurrent_requests"`
	MaxBestOf      int     `json:"max_best_of"`
	MaxStops       int     `json:"max_stop_sequences"`
	MaxInputTokens int     `json:"max_input_tokens"`
	MaxInputLength int     `json:"max_input_length"` // the same, as older versions call it
	MaxTotal       int     `json:"max_total_tokens"`
	MaxBatch       int     `json:"max_client_batch_size"`
	Workers        int     `json:"validation_workers"`
	Router         string  `json:"router"`
	Version        string  `json:"version"`
}

// maxConcurrent is what /info says of requests at the same time: as many as the engine lets wait, which is for its clients no limit but a
// waiting time.
const maxConcurrent = 64

// info answers GET /info.
func info(c *wire.Call) error {
	m, release, err := c.Use("")
	if err != nil {
		return err
	}
	defer release()
	i := m.Engine.Info()
	device := "cpu"
	if i.Device != "" && i.Device != device {
		device = "cuda"
	}
	return c.JSON(modelInfo{
		ModelID: m.ID, SHA: revision(), DType: string(i.Weights), DeviceType: device, PipelineTag: "text-generation",
		MaxConcurrent: maxConcurrent, MaxBestOf: maxBestOf, MaxStops: maxStops,
		MaxInputTokens: i.Context - 1, MaxInputLength: i.Context - 1, MaxTotal: i.Context, MaxBatch: 1, Workers: 1,
		Router: "autodev", Version: spoken,
	})
}

// revision is what this program was built from, nil where the build does not know.
func revision() *string {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, s := range b.Settings {
		if s.Key == "vcs.revision" {
			return &s.Value
		}
	}
	return nil
}

// simpleToken is a token of a text; Start and Stop count characters.
type simpleToken struct {
	ID    int32  `json:"id"`
	Text  string `json:"text"`
	Start int    `json:"start"`
	Stop  int    `json:"stop"`
}

// tokenize answers POST /tokenize for bodies with inputs.
func tokenize(c *wire.Call) error {
	if err := c.AtMost(wire.MaxTokenized); err != nil {
		return err
	}
	f, err := c.Fields()
	if err != nil {
		return err
	}
	text, model := f.Text("inputs", ""), f.Text("model", "")
	if err := f.Err(); err != nil {
		return err
	}
	m, release, err := c.Use(model)
	if err != nil {
		return err
	}
	defer release()
	ids := m.Engine.Encode(text, false)
	tokens, ok := characters(text, ids, m.Engine)
	if !ok {
		// The tokenizer changes the text before it cuts it: TGI has no offsets then either.
		tokens = tokens[:0]
		for _, id := range ids {
			tokens = append(tokens, simpleToken{ID: id})
		}
	}
	if tokens == nil {
		tokens = []simpleToken{}
	}
	return c.JSON(tokens)
}
