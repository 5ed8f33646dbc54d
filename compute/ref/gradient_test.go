package ref

import (
	"math"
	"math/rand/v2"
	"testing"

	"autodev/compute"
	"autodev/internal/rng"
)

// gradientCase is a differentiable function of several float64 operands with the gradients that a kernel claims.
type gradientCase struct {
	value  func() float64
	inputs map[string][]float64
	grads  map[string][]float64
}

// check compares every claimed partial derivative with a central finite difference.
func (g gradientCase) check(t *testing.T) {
	t.Helper()
	for name, x := range g.inputs {
		grad := g.grads[name]
		if len(grad) != len(x) {
			t.Fatalf("%s: %d derivatives of %d elements", name, len(grad), len(x))
		}
		for i := range x {
			const h = 1e-5
			old := x[i]
			x[i] = old + h
			up := g.value()
			x[i] = old - h
			down := g.value()
			x[i] = old
			if want := (up - down) / (2 * h); math.Abs(grad[i]-want) > 1e-8+1e-6*math.Abs(want) {
				t.Fatalf("%s[%d]: gradient %v, finite difference %v", name, i, grad[i], want)
			}
		}
	}
}

func random(r *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = r.NormFloat64()
	}
	return x
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

// must makes the value of a kernel that may fail.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEmbedGradient(t *testing.T) {
	r := rng.New(1, "embed")
	const v, p, e = 5, 4, 3
	ids, positions := []int32{4, 0, 4, 2, 2, 4}, []int32{0, 1, 2, 0, 1, 3}
	table, pos, dy := random(r, v*e), random(r, p*e), random(r, len(ids)*e)
	y, dtable, dpos := make([]float64, len(dy)), make([]float64, v*e), make([]float64, p*e)
	must(t, EmbedGrad(dtable, dy, ids, e))
	must(t, EmbedGrad(dpos, dy, positions, e))
	gradientCase{
		value: func() float64 {
			must(t, Embed(y, table, pos, ids, positions, e))
			return dot(y, dy)
		},
		inputs: map[string][]float64{"table": table, "positions": pos},
		grads:  map[string][]float64{"table": dtable, "positions": dpos},
	}.check(t)
}

func TestLayerNormGradient(t *testing.T) {
	r := rng.New(1, "layernorm")
	const n, e, eps = 3, 7, 1e-5
	x, gain, bias, dy := random(r, n*e), random(r, e), random(r, e), random(r, n*e)
	y, dx, dgain, dbias := make([]float64, n*e), make([]float64, n*e), make([]float64, e), make([]float64, e)
	LayerNormGrad(dx, dy, x, gain, eps)
	LayerNormGainGrad(dgain, dy, x, eps)
	BiasGrad(dbias, dy)
	gradientCase{
		value:  func() float64 { LayerNorm(y, x, gain, bias, eps); return dot(y, dy) },
		inputs: map[string][]float64{"x": x, "gain": gain, "bias": bias},
		grads:  map[string][]float64{"x": dx, "gain": dgain, "bias": dbias},
	}.check(t)
}

func TestLinearGradient(t *testing.T) {
	r := rng.New(1, "linear")
	const n, in, out, alpha = 4, 3, 5, 0.7
	x, w, bias, base, dy := random(r, n*in), random(r, out*in), random(r, out), random(r, n*out), random(r, n*out)
	y, dx, dw, dbias := make([]float64, n*out), make([]float64, n*in), make([]float64, out*in), make([]float64, out)
	LinearGradX(dx, dy, w, nil, n, in, out, alpha)
	LinearGradW(dw, dy, x, n, in, out, alpha)
	BiasGrad(dbias, dy)
	gradientCase{
		value:  func() float64 { Linear(y, x, w, bias, base, n, in, out, alpha); return dot(y, dy) },
		inputs: map[string][]float64{"x": x, "w": w, "bias": bias, "base": base},
		grads:  map[string][]float64{"x": dx, "w": dw, "bias": dbias, "base": dy},
	}.check(t)
	withBase := make([]float64, n*in)
	LinearGradX(withBase, dy, w, x, n, in, out, alpha)
	for i := range dx {
		if math.Abs(withBase[i]-dx[i]-x[i]) > 1e-12 {
			t.Fatalf("dx[%d] with base %v, expected %v", i, withBase[i], dx[i]+x[i])
		}
	}
}

func TestAttentionGradient(t *testing.T) {
	for _, c := range []struct {
		name     string
		attr     compute.Attr
		batch    int
		docStart []int32
	}{
		{"MHA", compute.Attr{Heads: 2, KVHeads: 2, HeadDim: 3, Seq: 5}, 1, []int32{0, 0, 0, 0, 0}},
		{"MQA", compute.Attr{Heads: 3, KVHeads: 1, HeadDim: 2, Seq: 4}, 2, []int32{0, 0, 0, 0, 0, 0, 2, 2}},
		{"GQA", compute.Attr{Heads: 4, KVHeads: 2, HeadDim: 2, Seq: 3}, 2, []int32{0, 1, 1, 0, 0, 0}},
		{"dropout", compute.Attr{Heads: 4, KVHeads: 2, HeadDim: 2, Seq: 5, Drop: 0.4, Salt: 7}, 2, []int32{0, 0, 0, 0, 0, 0, 0, 2, 2, 4}},
		{"window that moves", compute.Attr{Heads: 1, KVHeads: 1, HeadDim: 2, Seq: 6}, 1, []int32{0, 1, 0, 2, 3, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.attr.Scale = 1 / math.Sqrt(float64(c.attr.HeadDim))
			r := rng.New(1, c.name)
			n := c.batch * c.attr.Seq
			qkv, dy := random(r, n*(c.attr.Heads+2*c.attr.KVHeads)*c.attr.HeadDim), random(r, n*c.attr.Heads*c.attr.HeadDim)
			y, dqkv := make([]float64, len(dy)), make([]float64, len(qkv))
			key := [2]int32{3, -9}
			must(t, AttentionGrad(dqkv, dy, qkv, c.docStart, key, c.attr))
			gradientCase{
				value: func() float64 {
					must(t, Attention(y, qkv, c.docStart, key, c.attr))
					return dot(y, dy)
				},
				inputs: map[string][]float64{"qkv": qkv},
				grads:  map[string][]float64{"qkv": dqkv},
			}.check(t)
		})
	}
}

func TestActivationGradient(t *testing.T) {
	for _, act := range []compute.Act{compute.GELUTanh, compute.GELUErf, compute.ReLU} {
		t.Run(act.String(), func(t *testing.T) {
			r := rng.New(1, "activation")
			x, dy := random(r, 50), random(r, 50)
			for i := range x {
				x[i] *= 2
			}
			y, dx := make([]float64, 50), make([]float64, 50)
			ActivationGrad(dx, dy, x, act)
			gradientCase{
				value:  func() float64 { Activation(y, x, act); return dot(y, dy) },
				inputs: map[string][]float64{"x": x},
				grads:  map[string][]float64{"x": dx},
			}.check(t)
		})
	}
}

func TestDropoutGradient(t *testing.T) {
	r := rng.New(1, "dropout")
	x, dy := random(r, 40), random(r, 40)
	y, dx := make([]float64, 40), make([]float64, 40)
	key := [2]int32{5, 6}
	Dropout(dx, dy, key, 3, 0.3)
	gradientCase{
		value:  func() float64 { Dropout(y, x, key, 3, 0.3); return dot(y, dy) },
		inputs: map[string][]float64{"x": x},
		grads:  map[string][]float64{"x": dx},
	}.check(t)
}

func TestCrossEntropyGradient(t *testing.T) {
	r := rng.New(1, "loss")
	const n, e, v, vocab = 4, 3, 7, 5
	x, w, targets := random(r, n*e), random(r, v*e), []int32{4, -100, 0, -1}
	loss, dx, dw := make([]float64, 1), make([]float64, n*e), make([]float64, v*e)
	const scale = 0.25
	must(t, CrossEntropy(loss, dx, dw, x, w, targets, scale, e, compute.Attr{Vocab: vocab}))
	scratch := make([]float64, n*e)
	gradientCase{
		value: func() float64 {
			must(t, CrossEntropy(loss, scratch, nil, x, w, targets, scale, e, compute.Attr{Vocab: vocab}))
			return loss[0]
		},
		inputs: map[string][]float64{"x": x, "w": w},
		grads:  map[string][]float64{"x": dx, "w": dw},
	}.check(t)
	for i, g := range dw[vocab*e:] {
		if g != 0 {
			t.Errorf("padded row's gradient [%d] = %v", i, g)
		}
	}
	nll := make([]float64, n)
	must(t, TokenNLL(nll, x, w, targets, e, compute.Attr{Vocab: vocab}))
	if sum := scale * (nll[0] + nll[2]); math.Abs(sum-loss[0]) > 1e-12 || nll[1] != 0 || nll[3] != 0 {
		t.Errorf("nll %v, loss %v", nll, loss[0])
	}
	must(t, CrossEntropy(loss, scratch, dw, x, w, targets, scale, e, compute.Attr{Vocab: vocab}))
	second := make([]float64, v*e)
	must(t, CrossEntropy(loss, scratch, second, x, w, targets, scale, e, compute.Attr{Vocab: vocab}))
	for i := range dw {
		if math.Abs(dw[i]-2*second[i]) > 1e-12 {
			t.Fatalf("dw[%d] = %v after two calls, expected %v", i, dw[i], 2*second[i])
		}
	}
}
