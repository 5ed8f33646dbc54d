package cudaplan

import (
	"testing"

	"autodev/compute"
)

func buffer(d compute.DType, shape ...int) compute.Buffer {
	return compute.Buffer{Space: compute.Arena, DType: d, Shape: shape}
}

func TestWorkBytes(t *testing.T) {
	f, h, i := compute.F32, compute.BF16, compute.I32
	attention := compute.Attr{Heads: 16, KVHeads: 1, HeadDim: 128, Seq: 2048, Scale: 1}
	many := attention
	many.KVHeads = 16
	in := func(b ...compute.Buffer) []compute.Buffer { return b }
	for _, c := range []struct {
		call compute.Call
		want int64
	}{
		{compute.Call{Kernel: compute.Linear, In: in(buffer(h, 8, 4), buffer(h, 6, 4)), Out: in(buffer(h, 8, 6))}, 0},
		{compute.Call{Kernel: compute.Activation, Attr: compute.Attr{Act: compute.ReLU}, In: in(buffer(h, 8, 4)), Out: in(buffer(h, 8, 4))}, 0},
		{compute.Call{Kernel: compute.EmbedGrad, In: in(buffer(h, 8, 4), buffer(i, 8)), Out: in(buffer(f, 9, 4))}, 8 * 8},
		{compute.Call{Kernel: compute.BiasGrad, In: in(buffer(h, 100, 6)), Out: in(buffer(f, 6))}, 13 * 4 * 6},
		{compute.Call{Kernel: compute.BiasGrad, In: in(buffer(h, 1<<16, 6)), Out: in(buffer(f, 6))}, 264 * 4 * 6},
		{compute.Call{Kernel: compute.LayerNormGrad, In: in(buffer(h, 8, 4), buffer(h, 8, 4), buffer(h, 4)), Out: in(buffer(h, 8, 4))}, 0},
		{compute.Call{Kernel: compute.LayerNormGrad, In: in(buffer(h, 8, 4), buffer(h, 8, 4), buffer(h, 4)), Out: in(buffer(h, 8, 4), buffer(f, 4), buffer(f, 4))}, 2 * 4 * 4},
		{compute.Call{Kernel: compute.AttentionGrad, Attr: attention, In: in(buffer(h, 2048, 2048), buffer(h, 2048, 2304), buffer(i, 2048)), Out: in(buffer(h, 2048, 2304))}, 2048*16*4 + 8*2048*256*4},
		{compute.Call{Kernel: compute.AttentionGrad, Attr: many, In: in(buffer(h, 2048, 2048), buffer(h, 2048, 6144), buffer(i, 2048)), Out: in(buffer(h, 2048, 6144))}, 2048 * 16 * 4},
		{compute.Call{Kernel: compute.TokenNLL, Attr: compute.Attr{Vocab: 49153}, In: in(buffer(h, 2048, 64), buffer(h, 49280, 64), buffer(i, 2048)), Out: in(buffer(f, 2048))}, 2048*49160*2 + 2048*4},
		{compute.Call{Kernel: compute.TokenNLL, Attr: compute.Attr{Vocab: 10}, In: in(buffer(f, 3, 4), buffer(f, 10, 4), buffer(i, 3)), Out: in(buffer(f, 3))}, 3*12*4 + 3*4},
		{compute.Call{Kernel: compute.TokenNLL}, 0}, // fits no kernel
	} {
		if got := (Target{}).WorkBytes(&c.call); got != c.want {
			t.Errorf("%v: %d bytes, expected %d", c.call.Kernel, got, c.want)
		}
	}
}
