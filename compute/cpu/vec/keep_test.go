package vec

import (
	"testing"

	"autodev/compute"
)

func TestKeepMaskIsThatOfTheVocabulary(t *testing.T) {
	const salt, factor = 77, 1.25
	for _, p := range []float64{0, 0.1, 0.5, 0.999} {
		threshold := compute.DropThreshold(p)
		for _, first := range []uint64{0, 1, 1<<32 - 3, 1<<40 + 5} {
			for blocks := range 20 {
				keep := make([]float32, 4*blocks+1)
				keep[4*blocks] = 42
				KeepMask(keep[:4*blocks], [2]uint32{3, 1<<32 - 9}, salt, first, threshold, factor)
				for i, got := range keep[:4*blocks] {
					want := float32(factor)
					if compute.DropWords([2]int32{3, -9}, salt, first+uint64(i/4))[i%4] < threshold {
						want = 0
					}
					if got != want {
						t.Fatalf("p = %v, block %d + %d, element %d: %v, expected %v", p, first, i/4, i%4, got, want)
					}
				}
				if keep[4*blocks] != 42 {
					t.Fatal("written beside the mask")
				}
			}
		}
	}
}

func BenchmarkKeepMask(b *testing.B) {
	keep := make([]float32, 4096)
	for b.Loop() {
		KeepMask(keep, [2]uint32{1, 2}, 3, 4, 1<<30, 1)
	}
	b.ReportMetric(4096*float64(b.N)/b.Elapsed().Seconds()/1e9, "Gelem/s")
}
