package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"autodev/infer"
	"autodev/serve/wire"
)

// counting is an engine that counts what it does: *infer.Engine.
type counting interface{ Stats() infer.Stats }

// Engines calls each with every engine of a service once, and the id of the first model that it has.
func Engines(s wire.Service, each func(model string, stats infer.Stats)) {
	seen := map[wire.Engine]bool{}
	for _, m := range s.Models() {
		if e, ok := m.Engine.(counting); ok && !seen[m.Engine] {
			seen[m.Engine] = true
			each(m.ID, e.Stats())
		}
	}
}

// engines is a Collector of what the engines of a service say.
type engines struct{ service wire.Service }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("autodev_"+name, help, labels, nil)
}

var (
	modelInfo = desc("model_info", "1 for each model that can be asked for.", "model", "weights", "device", "adapter")
	byClass   = desc("engine_requests", "Calls that wait, and completions that run or pause, by class.", "model", "class", "state")
	classes   = [...]string{infer.Interactive: "interactive", infer.Chat: "chat", infer.Background: "background"}

	cacheBytes = desc("kv_cache_bytes", "Memory of keys and values, in use and kept.", "model")
	cacheLimit = desc("kv_cache_limit_bytes", "Memory that keys and values may take that are kept for later.", "model")

	engineCounters = []struct {
		desc  *prometheus.Desc
		value func(infer.Stats) float64
	}{
		{desc("engine_calls_completed_total", "Calls that were answered.", "model"), func(s infer.Stats) float64 { return float64(s.Completed) }},
		{desc("engine_calls_cancelled_total", "Calls whose client went away.", "model"), func(s infer.Stats) float64 { return float64(s.Cancelled) }},
		{desc("engine_calls_superseded_total", "Calls that a later one of their session has ended.", "model"), func(s infer.Stats) float64 { return float64(s.Superseded) }},
		{desc("engine_calls_rejected_total", "Calls that found the queue full or waited too long.", "model"), func(s infer.Stats) float64 { return float64(s.Rejected) }},
		{desc("engine_calls_failed_total", "Calls that ended with another error.", "model"), func(s infer.Stats) float64 { return float64(s.Failed) }},
		{desc("engine_passes_total", "Passes through the model.", "model"), func(s infer.Stats) float64 { return float64(s.Passes) }},
		{desc("engine_rows_total", "Tokens that passes have evaluated, guesses included.", "model"), func(s infer.Stats) float64 { return float64(s.Rows) }},
	}
)

// Describe implements prometheus.Collector.
func (e *engines) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{modelInfo, byClass, cacheBytes, cacheLimit} {
		ch <- d
	}
	for _, c := range engineCounters {
		ch <- c.desc
	}
}

// Collect implements prometheus.Collector.
func (e *engines) Collect(ch chan<- prometheus.Metric) {
	for _, m := range e.service.Models() {
		info := m.Engine.Info()
		ch <- prometheus.MustNewConstMetric(modelInfo, prometheus.GaugeValue, 1, m.ID, string(info.Weights), info.Device, m.Adapter)
	}
	Engines(e.service, func(model string, s infer.Stats) {
		for class, name := range classes {
			for state, n := range map[string]int{"queued": s.Queued[class], "running": s.Running[class], "paused": s.Paused[class]} {
				ch <- prometheus.MustNewConstMetric(byClass, prometheus.GaugeValue, float64(n), model, name, state)
			}
		}
		ch <- prometheus.MustNewConstMetric(cacheBytes, prometheus.GaugeValue, float64(s.CacheBytes), model)
		ch <- prometheus.MustNewConstMetric(cacheLimit, prometheus.GaugeValue, float64(s.CacheLimit), model)
		for _, c := range engineCounters {
			ch <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, c.value(s), model)
		}
	})
}
