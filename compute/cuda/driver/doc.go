// Package driver is libcuda, NVIDIA's driver API, as typed Go functions: one method of API per function, errors that carry the call and the
// driver's own name and text, and the constants, which a test compares with NVIDIA's headers.
//
// It knows nothing of kernels or plans. Methods must be called on the thread whose context is current (package cuda sees to it).
// Pointers to Go memory are only read or written during the call, except by asynchronous copies of pinned memory, which is C's.
package driver
