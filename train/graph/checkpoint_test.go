package graph

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"autodev/compute"
	"autodev/compute/cudaplan"
	"autodev/compute/ref"
	"autodev/internal/rng"
	"autodev/model"
)

// TestMemory: with more memory fewer calls are made again, never more memory than that is taken, and no bit changes. Where all fits,
// nothing but cheap calls is made again; attention never is where its gradient reads what it computes.
func TestMemory(t *testing.T) {
	for _, v := range variants() {
		if strings.Contains(v.name, "one") || strings.Contains(v.name, "alone") {
			continue // too little is computed again
		}
		t.Run(v.name, func(t *testing.T) {
			cfg := v.cfg
			net := v.network(t)
			values := randomParams(net, 1)
			batch := randomBatch(rng.New(2, "batch"), cfg.Batch, cfg.Seq, cfg.Model.Vocab)
			dev := hostDevice{kernels: ref.Kernels{}, work: 192, keeps: true, folds: true}
			plain := start(t, cfg, net, dev, values)
			want := planned(t, plain, batch)
			cfg.Checkpointing = true
			least, err := build(cfg, net, dev)
			if err != nil {
				t.Fatal(err)
			}
			low, high := least.Usage().Total(), plain.Usage().Total()
			calls := len(least.step.Calls)
			for _, cfg.Memory = range []int64{1, low, low + (high-low)/3, low + (high-low)*2/3, 2 * high} {
				tr := start(t, cfg, net, dev, values)
				sameBits(t, fmt.Sprint(v.name, " in ", cfg.Memory, " bytes"), planned(t, tr, batch), want)
				if u := tr.Usage(); u.Total() > max(cfg.Memory, low) {
					t.Errorf("%d bytes are taken of %d, %d without keeping any more", u.Total(), cfg.Memory, low)
				}
				if n := len(tr.step.Calls); n > calls {
					t.Errorf("%d calls in %d bytes, %d in fewer", n, cfg.Memory, calls)
				} else {
					calls = n
				}
				times := map[string]int{} // forward calls, by name
				for _, c := range tr.step.Calls {
					if !strings.HasPrefix(c.Name, "d ") && !cheap(c.Kernel) && c.Kernel != compute.Zero && c.Kernel != compute.Add {
						times[c.Name]++
					}
				}
				for name, n := range times {
					if n > 1 && (cfg.Memory > high || strings.HasPrefix(name, "attention")) {
						t.Errorf("%s runs %d times in %d bytes, of at most %d", name, n, cfg.Memory, high)
					}
				}
			}
		})
	}
}

// TestKeepOrder: of SantaCoder's blocks with adapters, what is kept first is what takes longest to compute for its size: attention's output,
// the adapters' inner products, then the large products' results from the narrowest on, then norms and activations.
func TestKeepOrder(t *testing.T) {
	c := model.Config{
		Architecture: model.GPTBigCode, VocabSize: 49280, Vocab: 49153, Positions: 2048, Embed: 2048, Layers: 3, Heads: 16, KVHeads: 1,
		Inner: 8192, Activation: compute.GELUTanh, Epsilon: 1e-5, Tied: true, ScaleAttention: true, InitStd: .02,
	}
	cfg := Config{Model: c, Batch: 4, Seq: 2048, Once: true, Checkpointing: true, Memory: 1 << 50, Precision: BF16, Storage: compute.Mixed(compute.BF16)}
	cfg.Adapters = allLinear(c, 0)
	tr, err := Build(cfg, cudaplan.Target{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range tr.Usage().Checkpointed.Kept {
		got = append(got, fmt.Sprint(k.Name, " ", k.Blocks))
	}
	want := []string{"attention 3", "mlp.c_proj.lora_A 3", "attn.c_attn.lora_A 3", "attn.c_proj.lora_A 3", "mlp.c_fc.lora_A 3", "attn.c_proj 3", "attn.c_attn 3", "mlp.c_fc 3", "ln_1 3", "ln_2 3", "gelu_tanh 3"}
	if !slices.Equal(got, want) {
		t.Errorf("kept: %q, expected %q", got, want)
	}
}

// TestAdaptersMemory: what issue 4 asks of SantaCoder's dimensions: adapters with checkpointing take less than a third of full fine-tuning's
// memory at the same micro-batch, even with what may be kept in that, and rank 16 with one sequence fits into 8 GB, all that lies beside
// the plans included.
func TestAdaptersMemory(t *testing.T) {
	c := model.Config{
		Architecture: model.GPTBigCode, VocabSize: 49280, Vocab: 49280, Positions: 2048, Embed: 2048, Layers: 24, Heads: 16, KVHeads: 1,
		Inner: 8192, Activation: compute.GELUTanh, Epsilon: 1e-5, Tied: true, ScaleAttention: true, InitStd: .02,
	}
	memory := func(batch, rank int, limit int64) int64 {
		t.Helper()
		cfg := Config{Model: c, Batch: batch, Seq: 2048, Once: true, Checkpointing: rank > 0, Memory: limit, Precision: BF16, Storage: compute.Mixed(compute.BF16)}
		if rank > 0 {
			cfg.Adapters = allLinear(c, 0)
			for i := range cfg.Adapters {
				cfg.Adapters[i].Rank = rank
			}
		}
		tr, err := Build(cfg, cudaplan.Target{})
		if err != nil {
			t.Fatal(err)
		}
		return tr.Usage().Total() + cudaplan.Beside
	}
	third := memory(16, 0, 0) / 3
	for _, limit := range []int64{0, third - cudaplan.Beside} {
		if got := memory(16, 64, limit); got > third {
			t.Errorf("adapters of rank 64 take %d bytes, expected at most %d", got, third)
		}
	}
	if got := memory(1, 16, 0); got > 8e9 {
		t.Errorf("adapters of rank 16 take %d bytes with one sequence, expected at most 8 GB", got)
	}
}
