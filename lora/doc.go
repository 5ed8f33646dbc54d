// Package lora holds low-rank adapters (Hu et al. 2021: LoRA): which linear modules of a model they attach to, how they are
// initialised, how they merge into the weights, and the files of Hugging Face PEFT.
//
//	spec.go     Spec: rank, scaling, targets → the modules of a model
//	adapter.go  Adapter: the factors A and B of each module, in the model's canonical layout
//	merge.go    W + s·B·A
//	peft.go     adapter_config.json and adapter_model.safetensors, read and written
//	layout.go   how PEFT's tensors map to the canonical layout where the families' files differ
//
// A module computes y = W·x + b + s·B·A·dropout(x) with A [rank, in], B [out, rank] and s = alpha/rank, or alpha/√rank
// (Kalajdzievski 2023: rsLoRA).
//
// What must not live here: training (package train), the kernels (package compute), model folders (package model).
package lora
