// Package demo is the whole journey in a few minutes: the embedded model learns Go from the standard library of the Go
// toolchain on this machine, by full fine-tuning and by LoRA; a table compares the three; a server on the result answers
// three completion requests.
//
//	corpus.go  the standard library's source, split by package
//	demo.go    the steps in order
//
// Nothing that a user of the other commands could not do by hand lives here.
package demo
