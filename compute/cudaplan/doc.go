// Package cudaplan says what plans for CUDA need to know of the device without one: the scratch that its kernels are given, the
// memory that lies beside the plans, and which calls become one (fuse.go). Planning (`autodev plan`) and the device (compute/cuda) go by the same functions, so that
// what is said before a run is what the run allocates.
//
// What must not live here: the driver, kernels, anything that needs a card. The package imports compute alone.
package cudaplan
