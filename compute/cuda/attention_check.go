package cuda

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"autodev/compute"
	"autodev/compute/cudaplan"
)

// agreement is how far outputs of two kernels may be apart, as a part of their norm: some roundings to bf16.
const agreement = 0.02

// compareAttention runs a small problem, with two documents and tiles that are not full, by products of warpgroups and by the kernels for compute
// capability 8.0, and reports the first output in which they are apart. It takes some MB of device memory meanwhile.
func (q *Queue) compareAttention(width int, s Store) error {
	const n, document = 160, 90
	a := compute.Attr{Heads: 2, KVHeads: 1, HeadDim: width, Seq: n, Scale: 1 / math.Sqrt(float64(width))}
	c, err := newAttentionCall(q, n, a, s)
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 9))
	qkv, dy := randomShort(r, n*4*width, s), randomShort(r, n*2*width, s)
	starts := make([]int32, n)
	for t := document; t < n; t++ {
		starts[t] = document
	}
	parts := []int64{
		int64(2 * len(qkv)), int64(2 * len(dy)), 4 * n, // inputs
		int64(2 * len(dy)), 4 * 2 * n, int64(2 * len(qkv)), // y, lse, dqkv
		4 * 2 * n * int64(1+cudaplan.HeadSplits(a)*width), // work
	}
	var offsets [7]Ptr
	total := int64(0)
	for i, b := range parts {
		offsets[i] = Ptr(total)
		total += (b + 255) &^ 255
	}
	base, err := q.Alloc(total)
	if err != nil {
		return err
	}
	at := func(i int) Ptr { return base + offsets[i] }
	run := func(warpgroups bool) (y, dqkv []uint16, lse []float32, err error) {
		forward, err := c.forward(q, warpgroups, at(3), at(4), at(0), at(2), 0)
		if err != nil {
			return nil, nil, nil, err
		}
		g := c
		if warpgroups {
			g = c.warpgroupGradients()
		}
		backward, err := g.gradients(q, at(5), at(1), at(3), at(4), at(0), at(2), 0, at(6))
		if err != nil {
			return nil, nil, nil, err
		}
		y, dqkv, lse = make([]uint16, len(dy)), make([]uint16, len(qkv)), make([]float32, 2*n)
		return y, dqkv, lse, errors.Join(forward.Enqueue(q), backward.Enqueue(q), q.Sync(), Read(q, y, at(3)), Read(q, dqkv, at(5)), Read(q, lse, at(4)))
	}
	err = errors.Join(Write(q, at(0), qkv), Write(q, at(1), dy), Write(q, at(2), starts))
	var y, dqkv [2][]uint16
	var lse [2][]float32
	for i, warpgroups := range []bool{false, true} {
		if err == nil {
			y[i], dqkv[i], lse[i], err = run(warpgroups)
		}
	}
	if err = errors.Join(err, q.Free(base)); err != nil {
		return err
	}
	for _, o := range []struct {
		name      string
		got, want []float32
	}{{"outputs", widened(y[1], s), widened(y[0], s)}, {"sums of soft-max", lse[1], lse[0]}, {"gradients", widened(dqkv[1], s), widened(dqkv[0], s)}} {
		if d := apart(o.got, o.want); !(d <= agreement) {
			return fmt.Errorf("%s are %.3g of their norm apart, expected at most %v", o.name, d, agreement)
		}
	}
	return nil
}

// apart returns ‖got − want‖ / ‖want‖.
func apart(got, want []float32) float64 {
	var difference, norm float64
	for i := range want {
		e := float64(got[i]) - float64(want[i])
		difference += e * e
		norm += float64(want[i]) * float64(want[i])
	}
	return math.Sqrt(difference / norm)
}

// randomShort returns numbers of 16 bits between 1/8 and 2, of either sign, with three bits behind the first.
func randomShort(r *rand.Rand, n int, s Store) []uint16 {
	bias, mantissa := uint32(15), 10
	if s == BF16 {
		bias, mantissa = 127, 7
	}
	x := make([]uint16, n)
	for i := range x {
		u := r.Uint32()
		x[i] = uint16(u>>31<<15 | (bias-3+u>>8&3)<<mantissa | (u&7)<<(mantissa-3))
	}
	return x
}

// widened returns numbers of 16 bits as float32.
func widened(x []uint16, s Store) []float32 {
	y := make([]float32, len(x))
	for i, u := range x {
		if s == BF16 {
			y[i] = math.Float32frombits(uint32(u) << 16)
			continue
		}
		exponent, fraction := int(u>>10&31), float64(u&1023)
		switch exponent {
		case 0:
			y[i] = float32(math.Ldexp(fraction, -24))
		case 31:
			y[i] = float32(math.NaN())
		default:
			y[i] = float32(math.Ldexp(1024+fraction, exponent-25))
		}
		if u>>15 != 0 {
			y[i] = -y[i]
		}
	}
	return y
}
