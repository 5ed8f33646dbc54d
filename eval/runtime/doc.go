// Package runtime measures how fast and in how much memory a model completes code: the published experiment's runtime
// benchmark (its figures 7 and 8) with the number of tokens fixed and the outputs compared.
//
//	variant.go    what is compared: formats of weights and of keys and values, with and without cache and speculation, threads
//	sample.go     one measurement of one variant, inside a process of its own
//	process.go    starting that process
//	memory*.go    what the operating system says about a process's memory
//	calibrate.go  the machine's limits at the moment of a measurement: read bandwidth, multiply-adds by precision
//	limits*.go    the loops that they are measured with
//	run.go        rounds over all variants in changing order, medians, the check of the outputs
//	report.go     table, Markdown and JSON
//	plot.go       the two figures, SVG and PNG
//
// A variant must generate the tokens that every other variant of the same formats generates: caches, speculation and threads
// change speed, never output. Report.Err says where one does not.
//
// What must not live here: how a model is opened (the caller gives an Opener), and inference itself (infer).
package runtime

//go:generate sh -c "cd _generate && go run . -pkg runtime -out ../limits_amd64.s -stubs ../limits_stubs_amd64.go"
