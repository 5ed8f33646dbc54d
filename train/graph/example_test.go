package graph_test

import (
	"context"
	"fmt"

	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/model"
	"autodev/train/graph"
)

// A small model learns one sequence by heart.
func Example() {
	ctx := context.Background()
	cfg := model.Config{
		Architecture: model.GPTBigCode, VocabSize: 16, Vocab: 16, Positions: 8, Embed: 16, Layers: 1, Heads: 2, KVHeads: 1,
		Inner: 32, Activation: compute.GELUTanh, Epsilon: 1e-5, Tied: true, ScaleAttention: true, InitStd: .02,
	}
	dev := cpu.New(cpu.Options{})
	defer dev.Close()
	t, err := graph.Build(graph.Config{Model: cfg, Batch: 1, Seq: 8}, dev)
	if err != nil {
		panic(err)
	}
	if err := t.Alloc(); err != nil {
		panic(err)
	}
	for w := range model.Init(cfg, 0).All() {
		if err := t.SetParam(w.Name, w.Data); err != nil {
			panic(err)
		}
	}
	batch := graph.Batch{IDs: []int32{3, 1, 4, 1, 5, 9, 2, 6}, Targets: []int32{1, 4, 1, 5, 9, 2, 6, -1}}
	for step := range 60 {
		if err := t.ZeroGrads(); err != nil {
			panic(err)
		}
		loss, err := t.MicroStep(ctx, batch, 1./7, [2]int32{})
		if err != nil {
			panic(err)
		}
		if step%59 == 0 {
			fmt.Printf("loss %.1f\n", loss)
		}
		if err := t.Update(ctx, step+1, 1, graph.Hyper{LearningRate: 1e-2, Beta1: .9, Beta2: .99, Epsilon: 1e-8}); err != nil {
			panic(err)
		}
	}
	// Output:
	// loss 2.8
	// loss 0.0
}
