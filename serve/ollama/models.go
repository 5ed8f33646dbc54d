package ollama

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"autodev/serve/wire"
)

// card is what lists tell of a model.
type card struct {
	Name     string  `json:"name"`
	Model    string  `json:"model"`
	Modified string  `json:"modified_at,omitempty"`
	Size     int64   `json:"size"`
	Digest   string  `json:"digest"`
	Details  details `json:"details"`
	*residence
}

// residence is what GET /api/ps adds: where a model is, and until when.
type residence struct {
	Expires string `json:"expires_at"`
	VRAM    int64  `json:"size_vram"`
	Context int    `json:"context_length"`
}

type details struct {
	Parent       string   `json:"parent_model"`
	Format       string   `json:"format"`
	Family       string   `json:"family"`
	Families     []string `json:"families"`
	Parameters   string   `json:"parameter_size"`
	Quantization string   `json:"quantization_level"`
	Context      int      `json:"context_length"`
}

// family is what models are made from, as far as clients need it: they look up the length of the context under its name.
const family = "autodev"

func newCard(m wire.Model) card {
	return card{
		Name: tagged(m.ID), Model: tagged(m.ID), Modified: m.Created.UTC().Format(time.RFC3339Nano), Size: m.Engine.Info().Bytes,
		Digest: digest(m), Details: newDetails(m),
	}
}

func newDetails(m wire.Model) details {
	i := m.Engine.Info()
	return details{
		Format: "safetensors", Family: family, Families: []string{family}, Parameters: size(i.Parameters),
		Quantization: strings.ToUpper(strings.Replace(string(i.Weights), "float", "f", 1)), Context: i.Context,
	}
}

// digest tells models apart as they are now: a reloaded one has another.
func digest(m wire.Model) string {
	sum := sha256.Sum256([]byte(m.ID + "\x00" + m.Adapter + "\x00" + m.Created.UTC().Format(time.RFC3339Nano)))
	return hex.EncodeToString(sum[:])
}

// size writes a number of parameters as 1.1B or 123.5M.
func size(n int64) string {
	for _, u := range []struct {
		unit  float64
		short string
	}{{1e9, "B"}, {1e6, "M"}, {1e3, "K"}} {
		if float64(n) >= u.unit {
			return strconv.FormatFloat(math.Round(float64(n)/u.unit*10)/10, 'f', -1, 64) + u.short
		}
	}
	return fmt.Sprint(n)
}

// tags answers GET /api/tags.
func tags(c *wire.Call) error {
	list := []card{}
	for _, m := range c.Service.Models() {
		list = append(list, newCard(m))
	}
	return c.JSON(map[string][]card{"models": list})
}

// ps answers GET /api/ps: all models are in memory, and stay.
func ps(c *wire.Call) error {
	list := []card{}
	for _, m := range c.Service.Models() {
		e, i := newCard(m), m.Engine.Info()
		e.Modified, e.residence = "", &residence{Expires: m.Created.Add(math.MaxInt64).UTC().Format(time.RFC3339), Context: i.Context}
		if i.Device != "" && i.Device != "cpu" {
			e.VRAM = i.Bytes
		}
		list = append(list, e)
	}
	return c.JSON(map[string][]card{"models": list})
}

// show answers POST /api/show. Clients look for .Suffix in the template to find out whether a model can fill in.
func show(c *wire.Call) error {
	f, err := c.Fields()
	if err != nil {
		return err
	}
	name := modelName(f)
	if err := f.Err(); err != nil {
		return err
	}
	m, release, err := c.Use(name)
	if err != nil {
		return err
	}
	defer release()
	i := m.Engine.Info()
	template, capabilities := "{{ .Prompt }}", []string{"completion"}
	if i.FIM {
		template, capabilities = "{{ .Prompt }}{{ if .Suffix }}{{ .Suffix }}{{ end }}", append(capabilities, "insert")
	}
	return c.JSON(struct {
		Modelfile    string         `json:"modelfile"`
		Parameters   string         `json:"parameters"`
		Template     string         `json:"template"`
		Details      details        `json:"details"`
		ModelInfo    map[string]any `json:"model_info"`
		Capabilities []string       `json:"capabilities"`
		Modified     string         `json:"modified_at"`
	}{
		Modelfile: "FROM " + tagged(m.ID) + "\n", Template: template, Details: newDetails(m),
		ModelInfo: map[string]any{
			"general.architecture": family, "general.basename": m.ID, "general.parameter_count": i.Parameters,
			family + ".context_length": i.Context, family + ".vocab_size": i.Vocab,
		},
		Capabilities: capabilities, Modified: m.Created.UTC().Format(time.RFC3339Nano),
	})
}

// pull answers POST /api/pull: a model that is here need not be fetched, and no other can be.
func pull(c *wire.Call) error {
	f, err := c.Fields()
	if err != nil {
		return err
	}
	name, stream := modelName(f), f.Boolean("stream", true)
	if err := f.Err(); err != nil {
		return err
	}
	type progress struct {
		Status string `json:"status"`
	}
	for _, m := range c.Service.Models() {
		if tagged(m.ID) != tagged(name) {
			continue
		}
		if stream {
			return c.Stream(wire.NDJSON, "").Send(progress{"success"})
		}
		return c.JSON(progress{"success"})
	}
	return wire.Errorf(http.StatusNotImplemented, wire.Unsupported, "model", "not_supported", "this server does not support pulling models")
}
