package cublaslt

import (
	"testing"
	"unsafe"

	"autodev/compute/cuda/wheels"
)

// The constants are those of cublasLt.h, cublas_api.h and library_types.h of cuBLAS 13.10.0.20 and CUDA 13.5 (wheels nvidia-cublas 13.10.0.20 and
// nvidia-cuda-runtime 13.5.37); see driver.TestConstants.
func TestConstants(t *testing.T) {
	wheels.Compare(t, "library_types.h", []wheels.Constant{
		{Name: "CUDA_R_32F", Ours: int(F32), Header: 0}, {Name: "CUDA_R_16F", Ours: int(F16), Header: 2}, {Name: "CUDA_R_16BF", Ours: int(BF16), Header: 14},
	})
	wheels.Compare(t, "cublas_api.h", []wheels.Constant{
		{Name: "CUBLAS_COMPUTE_32F", Ours: compute32F, Header: 68}, {Name: "CUBLAS_COMPUTE_32F_FAST_TF32", Ours: compute32FTF32, Header: 77},
		{Name: "CUBLAS_OP_T", Ours: opT, Header: 1}, {Name: "CUBLAS_STATUS_INVALID_VALUE", Ours: statusInvalid, Header: 7},
		{Name: "CUBLAS_STATUS_NOT_SUPPORTED", Ours: statusNotSupported, Header: 15},
	})
	wheels.Compare(t, "cublasLt.h", []wheels.Constant{
		{Name: "CUBLASLT_MATMUL_DESC_TRANSA", Ours: descTransA, Header: 3}, {Name: "CUBLASLT_MATMUL_DESC_TRANSB", Ours: descTransB, Header: 4},
		{Name: "CUBLASLT_MATMUL_DESC_EPILOGUE", Ours: descEpilog, Header: 7}, {Name: "CUBLASLT_MATMUL_DESC_BIAS_POINTER", Ours: descBias, Header: 8},
		{Name: "CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER", Ours: descAux, Header: 11}, {Name: "CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD", Ours: descAuxLD, Header: 12},
		{Name: "CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT", Ours: layoutBatch, Header: 5}, {Name: "CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET", Ours: layoutStep, Header: 6},
		{Name: "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES", Ours: prefWorkspace, Header: 1},
		{Name: "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES", Ours: prefAlignA, Header: 5}, {Name: "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES", Ours: prefAlignA + 1, Header: 6},
		{Name: "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES", Ours: prefAlignA + 2, Header: 7}, {Name: "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES", Ours: prefAlignA + 3, Header: 8},
		{Name: "CUBLASLT_EPILOGUE_DEFAULT", Ours: int(None), Header: 1}, {Name: "CUBLASLT_EPILOGUE_BIAS", Ours: int(Bias), Header: 4},
		{Name: "CUBLASLT_EPILOGUE_GELU", Ours: int(GELU), Header: 32}, {Name: "CUBLASLT_EPILOGUE_GELU_BIAS", Ours: int(BiasGELU), Header: 32 | 4},
		{Name: "CUBLASLT_EPILOGUE_GELU_AUX", Ours: int(GELUAux), Header: 32 | 128}, {Name: "CUBLASLT_EPILOGUE_GELU_AUX_BIAS", Ours: int(BiasGELUAux), Header: 32 | 128 | 4},
		{Name: "CUBLASLT_EPILOGUE_DGELU", Ours: int(DGELU), Header: 64 | 128}, {Name: "CUBLASLT_EPILOGUE_DGELU_BGRAD", Ours: int(DGELUColumnSums), Header: 64 | 128 | 16},
		{Name: "CUBLASLT_EPILOGUE_BGRADA", Ours: int(ColumnSumsOfB), Header: 256}, {Name: "CUBLASLT_EPILOGUE_BGRADB", Ours: int(RowSumsOfA), Header: 512},
	})
	if size := unsafe.Sizeof(heuristicResult{}); size != 96 {
		t.Errorf("cublasLtMatmulHeuristicResult_t has %d bytes, expected 96", size)
	}
}
