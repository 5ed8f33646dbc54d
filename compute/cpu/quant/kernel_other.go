//go:build !amd64 || noasm

package quant

import "sync"

// kernels returns the kernels that this machine can run, best first.
var kernels = sync.OnceValue(func() []*kernel { return []*kernel{genericKernel()} })
