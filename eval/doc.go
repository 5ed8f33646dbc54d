// Package eval measures language models on text: perplexity by named protocols, with confidence intervals, as tables that
// people read and JSON that programs read.
//
// What must not live here: decoding and kernels (infer), reading documents (data), what a command prints around a table
// (cmd/autodev).
package eval
