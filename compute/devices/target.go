package devices

import (
	"autodev/compute"
	"autodev/compute/cpu"
	"autodev/compute/cudaplan"
)

// Storage returns in which types plans for a kind of device keep their floats when the operands of matrix products are of type d: F32, BF16
// or F16. The CPU keeps float32 with any: it rounds what enters a product to BF16 while it packs it, and has no products in F16.
func Storage(k Kind, d compute.DType) compute.Storage {
	if k == CUDA && d.Short() {
		return compute.Mixed(d)
	}
	return compute.Uniform(compute.F32)
}

// Target returns what planning needs to know of a kind of device, which need not be there. threads is the CPU's, 0 for all; done
// must be called when planning is over.
func Target(k Kind, threads int) (t compute.Target, done func()) {
	if k == CUDA {
		return cudaplan.Target{}, func() {}
	}
	d := cpu.New(cpu.Options{Threads: threads})
	return d, d.Close
}

// Beside returns the memory in bytes that a process needs on a kind of device beside its plans, roughly: on a card the driver's
// context and the kernels' code; on the CPU the program, its tokenizer and windows of documents.
func Beside(k Kind) int64 {
	if k == CUDA {
		return cudaplan.Beside
	}
	return 256 << 20
}
