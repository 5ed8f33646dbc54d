// Package gguf reads and writes GGUF, the one-file model format of llama.cpp and Ollama (GGUF version 3, the specification in
// ggml's docs/gguf.md), and writes models of this project as such files.
//
//	types.go       element types, their blocks and sizes
//	quantize.go    rows of float32 to F32, F16, BF16, Q8_0 and Q4_0 and back, byte for byte as ggml's reference quantisers
//	metadata.go    key-value pairs
//	write.go       Write: metadata and tensors to a file, one tensor at a time
//	read.go        File: metadata and tensors of a file, strict
//	vocabulary.go  a tokenizer as tokenizer.ggml.* pairs
//	export.go      Export and Save: a model and its tokenizer as a file that llama.cpp runs
//
// The first five know nothing of models. What must not live here: inference on quantised weights (compute/cpu/quant has its own
// formats) and loading GGUF files as models to train.
package gguf
