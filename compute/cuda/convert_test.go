package cuda

import (
	"fmt"
	"math"
	"testing"
)

func TestRoundAndWiden(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, s := range []Store{BF16, F16} {
			for _, n := range lengths {
				x := random(uint64(n), n, F32)
				for i, v := range []float32{0, inf, -inf, 1e-7, -3e-40, 65519.99, 65520, 1 + 1.0/512, 1 + 3.0/512, 3.4e38} {
					if i < n {
						x[i] = v
					}
				}
				px, y, z := put(b, x), b.empty(n*s.Size()), b.empty(4*n)
				b.run(func(q *Queue) (Op, error) { return roundTo(q, y, px, int64(n), s) })
				b.run(func(q *Queue) (Op, error) { return widen(q, z, y, int64(n), s) })
				want := decode(encode(x, s), s)
				sameBits(b.t, fmt.Sprint(s, n), b.read(y, n, s), want)
				sameBits(b.t, fmt.Sprint(s, n, " widened"), get[float32](b, z, n), want)
			}
		}
	})
}

func TestZero(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, n := range lengths {
			x := put(b, random(1, n+1, F32))
			b.run(func(q *Queue) (Op, error) { return zero(q, x, int64(n)) })
			got := get[float32](b, x, n+1)
			for i, v := range got {
				if (v == 0) != (i < n) {
					b.t.Fatalf("element %d of %d is %v", i, n, v)
				}
			}
		}
	})
}

func TestCheckRange(t *testing.T) {
	onBench(t, func(b workbench) {
		for _, c := range []struct {
			at   map[int]int32
			want int32
		}{{nil, math.MaxInt32}, {map[int]int32{900: 50, 300: -2}, 300}, {map[int]int32{999: -1 << 31}, 999}, {map[int]int32{0: -1, 5: 49}, math.MaxInt32}} {
			ids := make([]int32, 1000)
			for i, v := range c.at {
				ids[i] = v
			}
			wrong, x := put(b, []int32{math.MaxInt32}), put(b, ids)
			b.run(func(q *Queue) (Op, error) { return checkRange(q, wrong, x, int64(len(ids)), -1, 50) })
			if got := get[int32](b, wrong, 1)[0]; got != c.want {
				b.t.Errorf("%v: %d, expected %d", c.at, got, c.want)
			}
		}
	})
}
