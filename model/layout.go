package model

import (
	"fmt"
	"strings"
)

// layout says how files arrange the parameters.
type layout uint8

const (
	// layoutBigCode: linear weights [out, in]. Without multi-query, the rows of c_attn are grouped by head: query, key and
	// value of head 0, then of head 1, ….
	layoutBigCode layout = iota + 1
	// layoutGPT2: linear weights [in, out] (transformers' Conv1D); columns of c_attn are queries, keys, values.
	layoutGPT2
	// layoutSantaCoder: as layoutGPT2, but c_attn is split into q_attn and kv_attn.
	layoutSantaCoder
)

// piece is one tensor of a file that makes up a parameter, or a part of its rows.
type piece struct {
	name  string
	shape []int // in the file
	first int   // row of the parameter it begins at
	move  move
}

// move is what turns the file's order of elements into the canonical one.
type move uint8

const (
	same      move = iota
	transpose      // [in, out] → [out, in]
	byHead         // rows grouped by head → all queries, all keys, all values
)

// pieces returns the tensors of the files that make up parameter p.
func (c Config) pieces(l layout, p ParamSpec) []piece {
	attn := strings.Contains(p.Name, ".attn.c_attn.")
	if l == layoutBigCode {
		if attn && c.KVHeads > 1 {
			return []piece{{p.Name, p.Shape, 0, byHead}}
		}
		return []piece{{p.Name, p.Shape, 0, same}}
	}
	conv := p.Kind == Matrix && p.Name != headName
	one := func(name string, first, out int) piece {
		if !conv {
			return piece{name, append([]int{out}, p.Shape[1:]...), first, same}
		}
		return piece{name, []int{p.Shape[1], out}, first, transpose}
	}
	if attn && l == layoutSantaCoder {
		return []piece{
			one(strings.Replace(p.Name, "c_attn", "q_attn", 1), 0, c.Embed),
			one(strings.Replace(p.Name, "c_attn", "kv_attn", 1), c.Embed, p.Shape[0]-c.Embed),
		}
	}
	return []piece{one(p.Name, 0, p.Shape[0])}
}

// layoutOf returns the layout that files of the family are written in.
func layoutOf(a Architecture) layout {
	if a == GPT2 {
		return layoutGPT2
	}
	return layoutBigCode
}

// convert returns c as a model of the other family, where that is the same model.
func (c Config) convert(to Architecture) (Config, error) {
	switch {
	case to == c.Architecture:
	case to != GPTBigCode && to != GPT2:
		return c, fmt.Errorf("layout %q, expected gpt_bigcode or gpt2", to)
	case to == GPT2 && c.KVHeads != c.Heads:
		return c, fmt.Errorf("layout gpt2: a model of %d heads with %d key and value head: gpt2 has no multi-query attention, expected gpt_bigcode", c.Heads, c.KVHeads)
	}
	c.Architecture, c.layout = to, layoutOf(to)
	return c, nil
}

// transposeInto writes the transpose of src [rows, cols] to dst [cols, rows], in tiles that stay in the cache.
func transposeInto(dst, src []float32, rows, cols int) {
	const tile = 32
	for r0 := 0; r0 < rows; r0 += tile {
		for c0 := 0; c0 < cols; c0 += tile {
			for r := r0; r < min(r0+tile, rows); r++ {
				for c := c0; c < min(c0+tile, cols); c++ {
					dst[c*rows+r] = src[r*cols+c]
				}
			}
		}
	}
}

// groupRows copies rows of the given width between the canonical order (all queries, all keys, all values) and that
// grouped by head; toHeads says in which direction.
func groupRows(dst, src []float32, heads, headDim, width int, toHeads bool) {
	n := headDim * width
	for h := range heads {
		for part := range 3 {
			canonical, grouped := (part*heads+h)*n, (h*3+part)*n
			if toHeads {
				copy(dst[grouped:grouped+n], src[canonical:canonical+n])
			} else {
				copy(dst[canonical:canonical+n], src[grouped:grouped+n])
			}
		}
	}
}
