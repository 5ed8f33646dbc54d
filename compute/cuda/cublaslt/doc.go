// Package cublaslt is NVIDIA's library of matrix products: Product says what is multiplied in row-major terms, Handle finds an algorithm
// for it once, Matmul runs it on addresses.
//
// cuBLASLt is column-major. A row-major matrix is the transpose of the column-major one in the same memory, so Cᵀ = op(B)ᵀ·op(A)ᵀ is asked
// for: our B is its A, our A its B, rows and columns change places, transpositions stay what they are.
package cublaslt
