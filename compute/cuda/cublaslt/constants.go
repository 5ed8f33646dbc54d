package cublaslt

// Type is a cudaDataType.
type Type int32

// Types (library_types.h of CUDA 13.5; TestConstants compares all of this file with NVIDIA's headers).
const (
	F32  Type = 0
	F16  Type = 2
	BF16 Type = 14
)

func (t Type) String() string {
	switch t {
	case F32:
		return "f32"
	case F16:
		return "f16"
	case BF16:
		return "bf16"
	}
	return "unknown type"
}

// Size returns bytes per element.
func (t Type) Size() int64 {
	if t == F32 {
		return 4
	}
	return 2
}

// Epilogue is what happens to a product before it is stored. Vectors and aux have the type of D.
type Epilogue uint32

// Epilogues, with their meaning in row-major terms: bias and column sums are [N], row sums [M], aux [M,N].
const (
	None            Epilogue = 1
	Bias            Epilogue = 4   // D = AB + bias
	GELU            Epilogue = 32  // D = gelu_tanh(AB)
	BiasGELU        Epilogue = 36  // D = gelu_tanh(AB + bias)
	GELUAux         Epilogue = 160 // the same, and aux = AB
	BiasGELUAux     Epilogue = 164 // the same, and aux = AB + bias
	DGELU           Epilogue = 192 // D = AB·gelu_tanh′(aux)
	DGELUColumnSums Epilogue = 208 // the same, and bias = column sums of D (overwritten)
	ColumnSumsOfB   Epilogue = 256 // D = AB, and bias [N] = Σ_k op(B)[k,n] (overwritten); op(B) = B
	RowSumsOfA      Epilogue = 512 // D = AB, and bias [M] = Σ_k op(A)[m,k] (overwritten); op(A) = Aᵀ
)

const (
	compute32F     = 68 // CUBLAS_COMPUTE_32F
	compute32FTF32 = 77 // CUBLAS_COMPUTE_32F_FAST_TF32

	opT = 1 // CUBLAS_OP_T

	descTransA  = 3  // CUBLASLT_MATMUL_DESC_TRANSA
	descTransB  = 4  // CUBLASLT_MATMUL_DESC_TRANSB
	descEpilog  = 7  // CUBLASLT_MATMUL_DESC_EPILOGUE
	descBias    = 8  // CUBLASLT_MATMUL_DESC_BIAS_POINTER
	descAux     = 11 // CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER
	descAuxLD   = 12 // CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD
	layoutBatch = 5  // CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT
	layoutStep  = 6  // CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET

	prefWorkspace = 1 // CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
	prefAlignA    = 5 // CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, then B, C, D

	statusInvalid      = 7  // CUBLAS_STATUS_INVALID_VALUE
	statusNotSupported = 15 // CUBLAS_STATUS_NOT_SUPPORTED
)
