package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"autodev/serve/wire"
)

// engines is a Collector of what the engines of a service say.
type engines struct{ service wire.Service }

var modelInfo = prometheus.NewDesc("autodev_model_info", "1 for each model that can be asked for.", []string{"model", "weights", "device", "adapter"}, nil)

// Describe implements prometheus.Collector.
func (e *engines) Describe(ch chan<- *prometheus.Desc) { ch <- modelInfo }

// Collect implements prometheus.Collector.
func (e *engines) Collect(ch chan<- prometheus.Metric) {
	for _, m := range e.service.Models() {
		info := m.Engine.Info()
		ch <- prometheus.MustNewConstMetric(modelInfo, prometheus.GaugeValue, 1, m.ID, string(info.Weights), info.Device, m.Adapter)
	}
}
