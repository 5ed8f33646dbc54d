package main

import (
	"context"
	"fmt"

	"autodev/infer"
	"autodev/lora"
	"autodev/model"
	"autodev/models"
	"autodev/tokenizer"
)

// openModel loads the checkpoint and the tokenizer of the model called name: a folder, or the embedded one for "" and its name.
func openModel(ctx context.Context, name string) (*model.Checkpoint, *tokenizer.Tokenizer, error) {
	fsys, embedded, err := models.Open(name)
	if err != nil {
		return nil, nil, err
	}
	if !embedded {
		ckpt, err := model.Load(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		tok, err := tokenizer.Load(name)
		return ckpt, tok, err
	}
	ckpt, err := model.LoadFS(ctx, fsys, models.Tiny)
	if err != nil {
		return nil, nil, err
	}
	tok, err := tokenizer.LoadFS(fsys, ".")
	return ckpt, tok, err
}

// openInference makes a model ready for inference, with an adapter merged into it unless adapter is "".
func openInference(ctx context.Context, name, adapter string, threads int) (*infer.Model, *tokenizer.Tokenizer, error) {
	ckpt, tok, err := openModel(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if adapter != "" {
		a, err := lora.Load(adapter, ckpt.Config)
		if err != nil {
			return nil, nil, err
		}
		if err := a.Merge(ckpt.Weights); err != nil {
			return nil, nil, fmt.Errorf("merge %s into %s: %w", adapter, name, err)
		}
	}
	m, err := infer.New(ckpt, tok, infer.Options{Threads: threads})
	return m, tok, err
}

// modelConfig describes the model called name without loading it.
func modelConfig(name string) (model.Config, error) {
	fsys, embedded, err := models.Open(name)
	if err != nil {
		return model.Config{}, err
	}
	if embedded {
		name = models.Tiny
	}
	return model.ReadConfig(fsys, name)
}

// modelLabel is how a model is called in tables.
func modelLabel(name string) string {
	if name == "" {
		return models.Tiny
	}
	return name
}
