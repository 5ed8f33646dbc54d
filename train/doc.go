// Package train runs a recipe: it opens the model and the data, turns windows of tokens into optimiser steps, measures, keeps
// records and checkpoints, and resumes a run that was stopped or killed at any moment so that it ends with the same bytes.
//
//	run.go          Run: a recipe from beginning to end
//	setup.go        what a recipe names, opened: model, adapters, plans, data
//	step.go         one optimiser step: accumulation, clipping, AdamW's settings
//	schedule.go     learning rates
//	loss_scale.go   what keeps gradients in float16's range
//	evaluate.go     the loss on evaluation documents
//	checkpoint.go   checkpoint folders: written whole, found, checked, rotated
//	record.go       train.jsonl
//	tensorboard.go  TensorBoard's event file
//	report.go       progress for people
//	memory.go       what a recipe needs before anything is allocated; memory_table.go prints it
//	lock_*.go       one run to a folder
//
// Beneath it, train/graph turns a model into plans; only that package knows Gorgonia.
//
// What must not live here: kernels (package compute), file formats of models and adapters (packages model and lora), reading
// and windowing documents (package data), flags (cmd/autodev).
package train
