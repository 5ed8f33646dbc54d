//go:build !amd64 || noasm

package attend

// levels returns what this machine can run, best first.
func levels() []*kernels { return []*kernels{genericKernels()} }
