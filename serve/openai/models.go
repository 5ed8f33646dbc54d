package openai

import (
	"net/http"

	"autodev/serve/wire"
)

// models answers GET /v1/models.
func models(c *wire.Call) error {
	list := modelList{Object: "list"}
	for _, m := range c.Service.Models() {
		list.Data = append(list.Data, card(m))
	}
	return c.JSON(list)
}

// model answers GET /v1/models/{id}.
func model(c *wire.Call) error {
	id := c.R.PathValue("id")
	for _, m := range c.Service.Models() {
		if m.ID == id {
			return c.JSON(card(m))
		}
	}
	return wire.Errorf(http.StatusNotFound, wire.Invalid, "model", "model_not_found", "model %.100q: not served here, expected one of those that /v1/models lists", id)
}

func card(m wire.Model) modelCard {
	i := m.Engine.Info()
	return modelCard{
		ID: m.ID, Object: "model", Created: m.Created.Unix(), OwnedBy: "autodev", MaxModelLen: i.Context,
		Meta: modelMeta{ContextTrained: i.Context, Vocab: i.Vocab, Parameters: i.Parameters, FIM: i.FIM},
	}
}

// modelList is the answer of GET /v1/models.
type modelList struct {
	Object string      `json:"object"`
	Data   []modelCard `json:"data"`
}

type modelCard struct {
	ID          string    `json:"id"`
	Object      string    `json:"object"`
	Created     int64     `json:"created"`
	OwnedBy     string    `json:"owned_by"`
	MaxModelLen int       `json:"max_model_len"`
	Meta        modelMeta `json:"meta"`
}

type modelMeta struct {
	ContextTrained int   `json:"n_ctx_train"`
	Vocab          int   `json:"n_vocab"`
	Parameters     int64 `json:"n_params"`
	FIM            bool  `json:"fim"`
}
