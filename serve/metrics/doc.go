// Package metrics counts what a server does, for Prometheus and for the built-in page.
//
//	metrics.go   counters and histograms of requests; GET /metrics
//	engines.go   what the engines say of themselves, asked when somebody looks
//	recent.go    the latest latencies, for a summary of now
//
// Labels take their values from what the server is made of: names of protocols, routes, models, classes, and statuses. None comes
// from a request, so that nobody can make series without end, or find code of a user or a key in one.
package metrics
