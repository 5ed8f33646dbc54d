// Command vecgen writes the assembly of package vec for AVX-512 and AVX2:
//
//	go run . -pkg vec -out ../vec_amd64.s -stubs ../vec_stubs_amd64.go
//
// Every function is written once, as operations on groups of 16 elements, and emitted for both instruction sets. The
// operations and their order are those of generic.go, without fused multiply-adds, so that the bits are the same.
package main

import . "github.com/mmcloughlin/avo/build"

func main() {
	ConstraintExpr("!noasm")
	for _, wide := range []bool{true, false} {
		arithmetic(wide)
		sums(wide)
		layerNorm(wide)
		softmax(wide)
		activations(wide)
		adamW(wide)
	}
	constants.write()
	Generate()
}
