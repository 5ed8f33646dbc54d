//go:build !noasm

package gemm

import (
	"sync"

	"golang.org/x/sys/cpu"
)

// kernels returns the kernels that this machine can run, best first.
var kernels = sync.OnceValue(func() []*kernel {
	var ks []*kernel
	x := &cpu.X86
	if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL && x.HasBMI2 {
		k := &kernel{level: "avx512", unit: 1, mr: 14, nr: 32, width: 32, aWords: 1, lines: 2, transpose: transpose512, copyRows: copyRows512, copyPanels: copyPanelsOf512,
			tile: [maxMR + 1]tileFunc{1: tile512x1, 2: tile512x2, 3: tile512x3, 4: tile512x4, 5: tile512x5, 6: tile512x6, 7: tile512x7,
				8: tile512x8, 9: tile512x9, 10: tile512x10, 11: tile512x11, 12: tile512x12, 13: tile512x13, 14: tile512x14},
			stream: [maxStream + 1]streamFunc{1: stream512x1, stream512x2, stream512x3, stream512x4}}
		k.bf16 = spreadKernel(k)
		k.bf16.tile = [maxMR + 1]tileFunc{1: tileSpread512x1, 2: tileSpread512x2, 3: tileSpread512x3, 4: tileSpread512x4,
			5: tileSpread512x5, 6: tileSpread512x6, 7: tileSpread512x7, 8: tileSpread512x8, 9: tileSpread512x9, 10: tileSpread512x10,
			11: tileSpread512x11, 12: tileSpread512x12, 13: tileSpread512x13, 14: tileSpread512x14}
		k.bf16.stream = [maxStream + 1]streamFunc{1: streamSpread512x1, streamSpread512x2, streamSpread512x3, streamSpread512x4}
		if x.HasAVX512BF16 {
			native := *k
			native.bf16 = &kernel{level: "avx512_bf16", unit: 2, mr: 14, nr: 32, width: panelBF16, aWords: 1, lines: 2, transpose: transposeBF16,
				copyRows: copyRowsBF16, copyPanels: copyPanelsBF16, tile: [maxMR + 1]tileFunc{1: tileBF16x1, 2: tileBF16x2, 3: tileBF16x3, 4: tileBF16x4, 5: tileBF16x5,
					6: tileBF16x6, 7: tileBF16x7, 8: tileBF16x8, 9: tileBF16x9, 10: tileBF16x10, 11: tileBF16x11, 12: tileBF16x12,
					13: tileBF16x13, 14: tileBF16x14},
				stream: [maxStream + 1]streamFunc{1: streamBF16x1, streamBF16x2, streamBF16x3, streamBF16x4}}
			ks = append(ks, &native)
		}
		ks = append(ks, k)
	}
	if x.HasAVX2 && x.HasFMA {
		k := &kernel{level: "avx2", unit: 1, mr: 6, nr: 16, width: 16, aWords: 1, lines: 1, transpose: transpose2, copyRows: copyRows2,
			tile:   [maxMR + 1]tileFunc{1: tile2x1, 2: tile2x2, 3: tile2x3, 4: tile2x4, 5: tile2x5, 6: tile2x6},
			stream: [maxStream + 1]streamFunc{1: stream2x1, stream2x2, stream2x3, stream2x4}}
		k.bf16 = spreadKernel(k)
		k.bf16.tile = [maxMR + 1]tileFunc{1: tileSpread2x1, 2: tileSpread2x2, 3: tileSpread2x3, 4: tileSpread2x4, 5: tileSpread2x5,
			6: tileSpread2x6}
		k.bf16.stream = [maxStream + 1]streamFunc{1: streamSpread2x1, streamSpread2x2, streamSpread2x3, streamSpread2x4}
		ks = append(ks, k)
	}
	return append(ks, genericKernel())
})

func transpose512(dst, src []float32, ld, rows, n, width int) {
	for r := 0; r < rows; r += 16 {
		part := min(16, rows-r)
		transposeWith(transpose512Rows(part), dst[r:], src[r*ld:], ld, part, n, width)
	}
}

func transposeBF16(dst, src []float32, ld, rows, n, width int) {
	n8 := n &^ 7
	for r := 0; r < rows; r += 16 {
		part := min(16, rows-r)
		if n8 > 0 {
			_, _ = src[(r+part-1)*ld+n8-1], dst[(n8/2-1)*width+r+part-1]
			transposeBF16Rows(part)(n8/2, &src[r*ld], ld, &dst[r], width)
		}
		if n8 < n {
			transposeBF16Generic(dst[n8/2*width+r:], src[r*ld+n8:], ld, part, n-n8, width)
		}
	}
}

func transposeBF16Rows(rows int) packFunc {
	return [...]packFunc{transposeBF16x1, transposeBF16x2, transposeBF16x3, transposeBF16x4, transposeBF16x5, transposeBF16x6, transposeBF16x7,
		transposeBF16x8, transposeBF16x9, transposeBF16x10, transposeBF16x11, transposeBF16x12, transposeBF16x13, transposeBF16x14,
		transposeBF16x15, transposeBF16x16}[rows-1]
}

func transpose512Rows(rows int) packFunc {
	return [...]packFunc{transpose512x1, transpose512x2, transpose512x3, transpose512x4, transpose512x5, transpose512x6, transpose512x7, transpose512x8,
		transpose512x9, transpose512x10, transpose512x11, transpose512x12, transpose512x13, transpose512x14, transpose512x15, transpose512x16}[rows-1]
}

func transpose2(dst, src []float32, ld, rows, n, width int) {
	for r := 0; r < rows; {
		switch left := rows - r; {
		case left >= 8:
			transposeWith(transpose2x8, dst[r:], src[r*ld:], ld, 8, n, width)
			r += 8
		case left >= 6:
			transposeWith(transpose2x6, dst[r:], src[r*ld:], ld, 6, n, width)
			r += 6
		default:
			transposeGeneric(dst[r:], src[r*ld:], ld, left, n, width)
			r = rows
		}
	}
}

type packFunc func(n int, src *float32, ld int, dst *float32, width int)

// transposeWith transposes rows rows with f, which takes multiples of four columns, and the last columns without.
func transposeWith(f packFunc, dst, src []float32, ld, rows, n, width int) {
	n4 := n &^ 3
	if n4 > 0 {
		// f is assembly: what it reads and writes must exist.
		_, _ = src[(rows-1)*ld+n4-1], dst[(n4-1)*width+rows-1]
		f(n4, &src[0], ld, &dst[0], width)
	}
	if n4 < n {
		transposeGeneric(dst[n4*width:], src[n4:], ld, rows, n-n4, width)
	}
}

func copyRows512(dst, src []float32, ld, n, cols, width int) {
	for c := 0; c < cols; c += 32 {
		part := min(32, cols-c)
		_, _ = src[(n-1)*ld+c+part-1], dst[(n-1)*width+c+part-1]
		copy512(n, &src[c], ld, &dst[c], width, part)
	}
}

func copyRowsBF16(dst, src []float32, ld, n, cols, width int) {
	pairs := n / 2
	if pairs > 0 {
		for c := 0; c < cols; c += 32 {
			part := min(32, cols-c)
			_, _ = src[(2*pairs-1)*ld+c+part-1], dst[(pairs-1)*width+c+part-1]
			pairBF16(pairs, &src[c], ld, &dst[c], width, part)
		}
	}
	if n%2 != 0 {
		copyRowsBF16Generic(dst[pairs*width:], src[2*pairs*ld:], ld, 1, cols, width)
	}
}

func copyRows2(dst, src []float32, ld, n, cols, width int) {
	c := 0
	for ; c+16 <= cols; c += 16 {
		_, _ = src[(n-1)*ld+c+15], dst[(n-1)*width+c+15]
		copy2(n, &src[c], ld, &dst[c], width)
	}
	if c < cols {
		copyRowsGeneric(dst[c:], src[c:], ld, n, cols-c, width)
	}
}

func copyPanelsOf512(dst, src []float32, ld, n, panels, step int) {
	_, _ = src[(n-1)*ld+panels*32-1], dst[(panels-1)*step+n*32-1]
	copyPanels512(n, &src[0], ld, &dst[0], panels, step)
}

func copyPanelsBF16(dst, src []float32, ld, n, panels, step int) {
	pairs := n / 2
	if pairs > 0 {
		_, _ = src[(2*pairs-1)*ld+panels*panelBF16-1], dst[(panels-1)*step+pairs*panelBF16-1]
		pairPanelsBF16(pairs, &src[0], ld, &dst[0], panels, step)
	}
	if n%2 != 0 {
		for p := range panels {
			copyRowsBF16Generic(dst[p*step+pairs*panelBF16:], src[2*pairs*ld+p*panelBF16:], ld, 1, panelBF16, panelBF16)
		}
	}
}
