package page

import (
	"autodev/infer"
	"autodev/serve/metrics"
	"autodev/serve/wire"
)

// Status is the answer to GET /v1/status.
type Status struct {
	Version  string          `json:"version"`
	Draining bool            `json:"draining"`
	Models   []Model         `json:"models"`
	Engine   *Engine         `json:"engine"` // null where the engines do not count
	Now      metrics.Summary `json:"now"`
}

// Model is a model that can be asked for.
type Model struct {
	ID         string `json:"id"`
	Adapter    string `json:"adapter,omitempty"`
	Weights    string `json:"weights"`
	Device     string `json:"device,omitempty"`
	Context    int    `json:"context"`
	Parameters int64  `json:"parameters"`
	FIM        bool   `json:"fim"`
	Chat       bool   `json:"chat"`
}

// Engine sums up what the engines are doing.
type Engine struct {
	Queued     int   `json:"queued"`
	Running    int   `json:"running"`
	Paused     int   `json:"paused"`
	Superseded int64 `json:"superseded"`
	Cancelled  int64 `json:"cancelled"`
	Rejected   int64 `json:"rejected"`
	KVBytes    int64 `json:"kv_bytes"`
	KVLimit    int64 `json:"kv_limit_bytes"`
}

func status(o Options, service wire.Service) Status {
	s := Status{Version: o.Version, Models: []Model{}}
	if o.Draining != nil {
		s.Draining = o.Draining()
	}
	if o.Summary != nil {
		s.Now = o.Summary()
	}
	for _, m := range service.Models() {
		i := m.Engine.Info()
		s.Models = append(s.Models, Model{
			ID: m.ID, Adapter: m.Adapter, Weights: string(i.Weights), Device: i.Device, Context: i.Context, Parameters: i.Parameters, FIM: i.FIM, Chat: m.Chat != nil,
		})
	}
	metrics.Engines(service, func(_ string, e infer.Stats) {
		if s.Engine == nil {
			s.Engine = &Engine{}
		}
		for class := range e.Queued {
			s.Engine.Queued += e.Queued[class]
			s.Engine.Running += e.Running[class]
			s.Engine.Paused += e.Paused[class]
		}
		s.Engine.Superseded += e.Superseded
		s.Engine.Cancelled += e.Cancelled
		s.Engine.Rejected += e.Rejected
		s.Engine.KVBytes += e.CacheBytes
		s.Engine.KVLimit += e.CacheLimit
	})
	return s
}
