package driver

import (
	"testing"
	"unsafe"

	"autodev/compute/cuda/wheels"
)

// The constants are those of cuda.h of CUDA 13.5 (CUDA_VERSION 13050; wheel nvidia-cuda-runtime 13.5.37). The numbers here were copied
// from it by hand; where there is a cuda.h (package wheels), they are compared with that.
func TestConstants(t *testing.T) {
	wheels.Compare(t, "cuda.h", []wheels.Constant{
		{Name: "CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK", Ours: int(MaxThreadsPerBlock), Header: 1},
		{Name: "CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK", Ours: int(MaxSharedPerBlock), Header: 8},
		{Name: "CU_DEVICE_ATTRIBUTE_WARP_SIZE", Ours: int(WarpSize), Header: 10},
		{Name: "CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT", Ours: int(MultiprocessorCount), Header: 16},
		{Name: "CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE", Ours: int(MemoryClockRate), Header: 36},
		{Name: "CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH", Ours: int(GlobalMemoryBusWidth), Header: 37},
		{Name: "CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE", Ours: int(L2CacheSize), Header: 38},
		{Name: "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR", Ours: int(ComputeCapabilityMajor), Header: 75},
		{Name: "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR", Ours: int(ComputeCapabilityMinor), Header: 76},
		{Name: "CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR", Ours: int(MaxSharedPerMultiprocessor), Header: 81},
		{Name: "CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN", Ours: int(MaxSharedPerBlockOptin), Header: 97},
		{Name: "CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK", Ours: int(FunctionMaxThreads), Header: 0},
		{Name: "CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES", Ours: int(FunctionSharedSize), Header: 1},
		{Name: "CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES", Ours: int(FunctionLocalSize), Header: 3},
		{Name: "CU_FUNC_ATTRIBUTE_NUM_REGS", Ours: int(FunctionRegisters), Header: 4},
		{Name: "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES", Ours: int(FunctionMaxDynamicShared), Header: 8},
		{Name: "CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT", Ours: int(FunctionSharedCarveout), Header: 9},
		{Name: "CU_STREAM_NON_BLOCKING", Ours: streamNonBlocking, Header: 1},
		{Name: "CU_EVENT_DISABLE_TIMING", Ours: eventDisableTiming, Header: 2},
		{Name: "CU_STREAM_CAPTURE_MODE_THREAD_LOCAL", Ours: captureThreadLocal, Header: 1},
		{Name: "CU_MEMHOSTALLOC_PORTABLE", Ours: hostAllocPortable, Header: 1},
		{Name: "CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION", Ours: launchEarly, Header: 6},
		{Name: "CU_JIT_ERROR_LOG_BUFFER", Ours: jitErrorBuffer, Header: 5},
		{Name: "CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES", Ours: jitErrorBufferSize, Header: 6},
		{Name: "CUDA_SUCCESS", Ours: int(Success), Header: 0},
		{Name: "CUDA_ERROR_INVALID_VALUE", Ours: int(InvalidValue), Header: 1},
		{Name: "CUDA_ERROR_OUT_OF_MEMORY", Ours: int(OutOfMemory), Header: 2},
		{Name: "CUDA_ERROR_NOT_INITIALIZED", Ours: int(NotInitialized), Header: 3},
		{Name: "CUDA_ERROR_NO_DEVICE", Ours: int(NoDevice), Header: 100},
		{Name: "CUDA_ERROR_INVALID_DEVICE", Ours: int(InvalidDevice), Header: 101},
		{Name: "CUDA_ERROR_NO_BINARY_FOR_GPU", Ours: int(NoBinaryForGPU), Header: 209},
		{Name: "CUDA_ERROR_ECC_UNCORRECTABLE", Ours: int(ECCUncorrectable), Header: 214},
		{Name: "CUDA_ERROR_INVALID_PTX", Ours: int(InvalidPTX), Header: 218},
		{Name: "CUDA_ERROR_NVLINK_UNCORRECTABLE", Ours: int(NVLinkUncorrectable), Header: 220},
		{Name: "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", Ours: int(UnsupportedPTXVersion), Header: 222},
		{Name: "CUDA_ERROR_CONTAINED", Ours: int(ErrorContained), Header: 226},
		{Name: "CUDA_ERROR_NOT_FOUND", Ours: int(NotFound), Header: 500},
		{Name: "CUDA_ERROR_NOT_READY", Ours: int(NotReady), Header: 600},
		{Name: "CUDA_ERROR_ILLEGAL_ADDRESS", Ours: int(IllegalAddress), Header: 700},
		{Name: "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", Ours: int(LaunchOutOfResources), Header: 701},
		{Name: "CUDA_ERROR_LAUNCH_TIMEOUT", Ours: int(LaunchTimeout), Header: 702},
		{Name: "CUDA_ERROR_CONTEXT_IS_DESTROYED", Ours: int(ContextDestroyed), Header: 709},
		{Name: "CUDA_ERROR_ASSERT", Ours: int(Assert), Header: 710},
		{Name: "CUDA_ERROR_HARDWARE_STACK_ERROR", Ours: int(HardwareStackError), Header: 714},
		{Name: "CUDA_ERROR_ILLEGAL_INSTRUCTION", Ours: int(IllegalInstruction), Header: 715},
		{Name: "CUDA_ERROR_MISALIGNED_ADDRESS", Ours: int(MisalignedAddress), Header: 716},
		{Name: "CUDA_ERROR_INVALID_ADDRESS_SPACE", Ours: int(InvalidAddressSpace), Header: 717},
		{Name: "CUDA_ERROR_INVALID_PC", Ours: int(InvalidPC), Header: 718},
		{Name: "CUDA_ERROR_LAUNCH_FAILED", Ours: int(LaunchFailed), Header: 719},
		{Name: "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", Ours: int(StreamCaptureUnsupported), Header: 900},
		{Name: "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", Ours: int(StreamCaptureInvalidated), Header: 901},
		{Name: "CUDA_ERROR_UNKNOWN", Ours: int(Unknown), Header: 999},
	})
}

// Launch configurations lie in memory as the header's CUlaunchConfig and CUlaunchAttribute do; the sizes and offsets are those that a C compiler
// gives for it on 64-bit Linux.
func TestLaunchConfig(t *testing.T) {
	var c launchConfig
	var a launchAttribute
	for _, f := range []struct {
		name           string
		ours, expected uintptr
	}{
		{"hStream", unsafe.Offsetof(c.stream), 32}, {"attrs", unsafe.Offsetof(c.attributes), 40}, {"numAttrs", unsafe.Offsetof(c.n), 48}, {"CUlaunchConfig", unsafe.Sizeof(c), 56},
		{"value", unsafe.Offsetof(a.value), 8}, {"CUlaunchAttribute", unsafe.Sizeof(a), 72},
	} {
		if f.ours != f.expected {
			t.Errorf("%s: %d, expected %d", f.name, f.ours, f.expected)
		}
	}
}
