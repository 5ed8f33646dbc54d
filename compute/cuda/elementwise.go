package cuda

import (
	"fmt"

	"autodev/compute"
)

// mapThreads is how many threads a block of kernels that go through arrays has; maxBlocks bounds their grids: beyond it, threads go on.
const (
	mapThreads = 256
	maxBlocks  = 1 << 20
)

// positive checks sizes.
func positive(kernel string, sizes ...int) error {
	for _, n := range sizes {
		if n < 1 {
			return fmt.Errorf("cuda: %s with sizes %v, expected positive ones", kernel, sizes)
		}
	}
	return nil
}

// vector is how many elements of the store 16 bytes hold.
func (s Store) vector() int { return 16 / s.Size() }

// overArray prepares a kernel that goes through n elements, `each` of them a thread.
func (q *Queue) overArray(name string, n int64, each int, args ...any) (*Launch, error) {
	if n < 1 {
		return nil, fmt.Errorf("cuda: kernel %s over %d elements, expected at least 1", name, n)
	}
	pieces := (n + int64(each) - 1) / int64(each)
	return q.Prepare(name, Grid{Blocks: Dim{blocksFor(pieces, mapThreads, maxBlocks)}, Threads: Dim{mapThreads}}, args...)
}

// actKernels are the names of activations' kernels.
var actKernels = map[compute.Act]string{compute.GELUTanh: "gelu_tanh", compute.GELUErf: "gelu_erf", compute.ReLU: "relu"}

func actKernel(act compute.Act) (string, error) {
	name, ok := actKernels[act]
	if !ok {
		return "", fmt.Errorf("cuda: there is no kernel for the activation %v", act)
	}
	return name, nil
}

// activation prepares y [n] = act(x), as s. y may be x.
func activation(q *Queue, y, x Ptr, n int64, act compute.Act, s Store) (*Launch, error) {
	name, err := actKernel(act)
	if err != nil {
		return nil, err
	}
	return q.overArray(name+"_"+s.String(), n, s.vector(), y, x, n)
}

// activationGrad prepares dx [n] = dy·act′(x), as s. dx may be dy or x.
func activationGrad(q *Queue, dx, dy, x Ptr, n int64, act compute.Act, s Store) (*Launch, error) {
	name, err := actKernel(act)
	if err != nil {
		return nil, err
	}
	return q.overArray(name+"_grad_"+s.String(), n, s.vector(), dx, dy, x, n)
}

// add prepares y [n] = a + b, as s. y may be a or b.
func add(q *Queue, y, a, b Ptr, n int64, s Store) (*Launch, error) {
	return q.overArray("add_"+s.String(), n, s.vector(), y, a, b, n)
}
