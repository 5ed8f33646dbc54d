// Package model holds the architectures (configuration, parameter table, one Forward each) and the checkpoint folders they
// come from and go to.
//
//	config.go      Config: what config.json says, checked
//	params.go      the canonical parameter table and initial values
//	weights.go     Weights: every parameter as float32 in canonical layout
//	builder.go     the kernel vocabulary a Forward is written in
//	gptbigcode.go  Forward of GPTBigCode and GPT-2
//	layout.go      how the files of each family arrange what the canonical layout holds
//	open.go        Open and Load: folders of Hugging Face transformers, today's and older ones
//	info.go        what a folder holds, in numbers
//	save.go        Save: folders that transformers loads
//
// The file formats themselves are the packages safetensors and torchbin, element types are dtype. Nothing here computes:
// training is package train's business, decoding package infer's, adapters are package lora's.
package model
