// Package graph turns a model into training plans through Gorgonia.
//
// A Forward written over model.Builder becomes a Gorgonia graph of fused operations of ours (op), each of which is one call
// of the compute vocabulary with static shapes. gorgonia.Grad differentiates that graph once, at plan time, with respect to
// the trained parameters; the rules (rules.go) name the gradient kernels. The graph is lowered to a program of calls over
// values (program.go), scheduled, rewritten (accumulation, folding, gradient checkpointing) and placed in memory
// (place.go). What comes out is a Training: compute plans for the micro-batch, the evaluation, the gradient norm and the
// optimiser, and a directory that says where each parameter lies. Every size is known before anything is allocated.
//
// Gorgonia never executes a plan. In the tests its TapeMachine executes the same graph, and a model made of Gorgonia's own
// primitives judges the fused kernels.
//
// What must not live here: the training loop, schedules, data, files (package train), kernels (compute/...), architectures
// (package model). This is the only package that imports Gorgonia, so that serving builds without it.
package graph
