// Package safetensors reads and writes safetensors files: an 8-byte little-endian header length, a JSON header naming
// each tensor's element type, shape and byte range, then the bytes, without gaps or overlaps.
// Format: https://github.com/huggingface/safetensors#format.
//
// It knows nothing of models: which tensors belong to one is package model's business, adapters are package lora's.
package safetensors
