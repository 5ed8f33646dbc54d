package cuda

import (
	"fmt"
	"math"
)

// quantised is a weight [out,in] in 8 or 4 bits as package compute/cpu/quant stores it, on the device.
type quantised struct {
	codes, scales Ptr
	bits          int
	in, out       int
}

func (w quantised) check() error {
	if w.bits != 8 && w.bits != 4 || w.in < 4 || w.in%4 != 0 || w.out < 1 || w.in > math.MaxInt32/gemvRows {
		return fmt.Errorf("cuda: weights [%d,%d] in %d bits, expected 8 or 4 bits and a multiple of 4 inputs", w.out, w.in, w.bits)
	}
	return nil
}

const (
	quantPanel = 16 // outputs of a panel
	quantLine  = 512
)

// gemvQuant prepares y [n,out] = act(x·wᵀ + bias) + base for n of at most gemvRows rows as gemv does, with x, bias and base bf16; y and base
// may be float32 with 8 bits.
func gemvQuant(q *Queue, y, x Ptr, w quantised, bias, base Ptr, n int, gelu bool, to Store) (*Launch, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	if err := positive("product of few rows", n, gemvRows-n+1); err != nil {
		return nil, err
	}
	rows, kind, act := 1, "", 0
	for rows < n {
		rows *= 2
	}
	if to == F32 {
		kind = "logits_"
	}
	if gelu {
		act = 1
	}
	return q.Prepare(fmt.Sprintf("gemv%d_%sint%d", rows, kind, w.bits), Grid{Blocks: Dim{ceilDiv(w.out, quantPanel)}, Threads: Dim{256}}, y, x, w.codes, w.scales, bias, base, n, w.in, w.out, act)
}

// widenQuant prepares y [out,in] bf16 = the weights.
func widenQuant(q *Queue, y Ptr, w quantised) (*Launch, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	const warps = 8
	lines := ceilDiv(w.in, 64) * 64 * quantPanel * w.bits / 8 / quantLine
	return q.Prepare(fmt.Sprintf("widen_int%d", w.bits), Grid{Blocks: Dim{ceilDiv(lines, warps), ceilDiv(w.out, quantPanel)}, Threads: Dim{32 * warps}}, y, w.codes, w.scales, w.in, w.out)
}
