// Package packed reads and writes folders of weights in the layout of the inference kernels: a model that is used where it
// lies on disk, mapped into memory.
//
//	packed.go       what such a folder says about itself
//	write.go        Create: config.json, tokenizer and weights, one parameter at a time
//	open.go         Open: everything checked but the weights' values
//	own.go          Own: a copy of the weights in the process's own memory
//	map_unix.go     the weight file mapped into memory; map_other.go reads it
//	huge_linux.go   memory in huge pages for the copy, and whether there is enough
//
// A packed folder holds config.json, with a quantization_config of method "autodev", the tokenizer's files, and
// weights.autodev, a safetensors container whose name keeps tools that take any *.safetensors for plain weights away from
// it. Parameters are named as in model.Config.Params. Those kept as float32 are ordinary tensors; a packed one is one or
// more tensors of bytes, "name:part", that begin at multiples of 64 in the file. What the bytes mean is package infer's
// business (and that of the kernels' packages): nothing here computes.
package packed
