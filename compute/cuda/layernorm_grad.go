package cuda

import (
	"fmt"

	"autodev/compute/cudaplan"
)

// layerNormGrads are the operands of LayerNorm's gradients: DY, X [rows,width], Gain [width], Base and DX [rows,width] as the call's
// Store; DGain and DBias [width] float32, which are added to. DX, DGain, DBias and Base may be 0, Gain too without DX; DX may be
// DY or Base. Work has cudaplan.Parts(rows)·width float32 for each of DGain and DBias that is there.
type layerNormGrads struct {
	DX, DGain, DBias  Ptr
	DY, X, Gain, Base Ptr
	Work              Ptr
}

// layerNormGrad prepares the gradients of a LayerNorm.
func layerNormGrad(q *Queue, o layerNormGrads, rows, width int, epsilon float32, s Store) (Sequence, error) {
	if err := positive("layernorm gradient", rows, width); err != nil {
		return nil, err
	}
	if o.DX == 0 && o.DGain == 0 && o.DBias == 0 {
		return nil, fmt.Errorf("cuda: layernorm gradient of nothing")
	}
	const threads = 256
	variant, team, perMultiprocessor := layerNormTeam(width, s)
	teams := 1
	if team > 0 {
		teams = threads / team
	}
	blocks := min((rows+teams-1)/teams, perMultiprocessor*q.d.properties.Multiprocessors)
	var sums, parts []Ptr
	var gainParts, biasParts Ptr
	if o.DGain != 0 || o.DBias != 0 {
		blocks = min(blocks, cudaplan.Parts(rows))
	}
	next := o.Work
	for _, g := range []struct {
		sum   Ptr
		parts *Ptr
	}{{o.DGain, &gainParts}, {o.DBias, &biasParts}} {
		if g.sum == 0 {
			continue
		}
		*g.parts = next
		next += Ptr(4 * blocks * width)
		sums, parts = append(sums, g.sum), append(parts, *g.parts)
	}
	grid := Grid{Blocks: Dim{blocks}, Threads: Dim{threads}}
	args := []any{o.DX, gainParts, biasParts, o.DY, o.X, o.Gain, o.Base, rows, width}
	if team == 0 || len(sums) > 0 {
		grid.Shared = teams * 2 * 4 * width
	}
	if team > 0 {
		args = append(args, team)
	}
	l, err := q.Prepare("layernorm_grad"+variant+"_"+s.String(), grid, append(args, epsilon)...)
	if err != nil {
		return nil, err
	}
	if len(sums) == 0 {
		return Sequence{l}, nil
	}
	last, err := addParts(q, sums, parts, blocks, width)
	if err != nil {
		return nil, err
	}
	return Sequence{l, last}, nil
}

// layerNormTeam returns the variant of layernorm_grad for rows of a width, how many threads of a block of 256 have a row (0: the
// variant for any width), and how many blocks a multiprocessor holds.
func layerNormTeam(width int, s Store) (variant string, team, blocks int) {
	vectors := width / s.vector()
	for _, v := range []struct{ k, blocks int }{{1, 2}, {2, 2}, {4, 1}} {
		if width%s.vector() != 0 || vectors > 256*v.k || v.k == 4 && s != F32 { // a thread has no registers for 4 vectors of 8
			continue
		}
		for team = 32; team*v.k < vectors; team *= 2 {
		}
		return fmt.Sprint(v.k), team, v.blocks
	}
	return "_any", 0, 4
}

// layerNormGainGrad prepares dgain [width] float32 += the gain's gradient from dy and x [rows,width], as s. work has
// cudaplan.Parts(rows)·width float32.
func layerNormGainGrad(q *Queue, dgain, dy, x, work Ptr, rows, width int, epsilon float32, s Store) (Sequence, error) {
	return layerNormGrad(q, layerNormGrads{DGain: dgain, DY: dy, X: x, Work: work}, rows, width, epsilon, s)
}
