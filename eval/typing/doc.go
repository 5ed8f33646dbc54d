// Package typing measures what suggestions while typing are like: it replays how somebody edits files against servers of completions, with
// every request that the next keystroke cancels.
//
//	trace.go   what a user does, step by step
//	typist.go  traces made from real files: typing, mistakes, jumps, suggestions taken
//	client.go  POST /infill, which our server and llama.cpp's have
//	replay.go  a trace in real time
//	watch.go   an engine whose answers are counted, and may be told
//	llama.go   llama.cpp's server, started and read
//	check.go   answers compared with those of an engine that keeps nothing
//	report.go  figures, table and JSON
//
// A trace is a function of the files and a seed, so that every server sees the same keystrokes; only the time that a user waits for a suggestion
// depends on the server. A suggestion can be waited for or not: where it is, the time from the keystroke to the whole suggestion counts; where it
// is not, whether it came before the next keystroke.
//
// Suggestions are the model's own, or, for models with random weights and for measurements that are to depend on no model, scripted: what a model
// would say that knows a line of the file from some place on, and another line of the file before. Our engine follows the script
// (infer.Request.Replay), at the cost of choosing just these tokens; of llama.cpp's server as many tokens are asked for.
//
// What must not live here: how models are opened and served.
package typing
