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
	ckpt, err := openWeights(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	tok, err := openTokenizer(name)
	return ckpt, tok, err
}

// openWeights loads a model that need not have a tokenizer.
func openWeights(ctx context.Context, name string) (*model.Checkpoint, error) {
	fsys, embedded, err := models.Open(name)
	if err != nil {
		return nil, err
	}
	if embedded {
		return model.LoadFS(ctx, fsys, models.Tiny)
	}
	return model.Load(ctx, name)
}

// mergeInto adds the adapter in a folder to the weights of ckpt, the model called name.
func mergeInto(ckpt *model.Checkpoint, name, adapter string) (*lora.Adapter, error) {
	a, err := lora.Load(adapter, ckpt.Config)
	if err != nil {
		return nil, err
	}
	if err := a.Merge(ckpt.Weights); err != nil {
		return nil, fmt.Errorf("merge %s into %s: %w", adapter, modelLabel(name), err)
	}
	return a, nil
}

// openInference makes a model ready for inference, with an adapter merged into it unless adapter is "".
func openInference(ctx context.Context, name, adapter string, threads int) (*infer.Model, *tokenizer.Tokenizer, error) {
	ckpt, tok, err := openModel(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if adapter != "" {
		if _, err := mergeInto(ckpt, name, adapter); err != nil {
			return nil, nil, err
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
