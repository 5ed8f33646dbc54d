// Package dynlib loads shared libraries without cgo and finds those of NVIDIA: libcuda and libcublasLt. Builds for other systems than
// linux on amd64 and arm64, and those with the tag nocuda, have a loader that only says so.
package dynlib
