package driver

// Attribute is a CUdevice_attribute.
type Attribute int32

// Device attributes (cuda.h of CUDA 13.5; TestConstants compares).
const (
	MaxThreadsPerBlock         Attribute = 1
	MaxSharedPerBlock          Attribute = 8
	WarpSize                   Attribute = 10
	MultiprocessorCount        Attribute = 16
	MemoryClockRate            Attribute = 36 // kHz
	GlobalMemoryBusWidth       Attribute = 37 // bits
	L2CacheSize                Attribute = 38 // bytes
	ComputeCapabilityMajor     Attribute = 75
	ComputeCapabilityMinor     Attribute = 76
	MaxSharedPerMultiprocessor Attribute = 81
	MaxSharedPerBlockOptin     Attribute = 97
)

// FunctionAttribute is a CUfunction_attribute.
type FunctionAttribute int32

// Function attributes.
const (
	FunctionMaxThreads       FunctionAttribute = 0
	FunctionSharedSize       FunctionAttribute = 1 // static, bytes
	FunctionLocalSize        FunctionAttribute = 3 // spilled, bytes a thread
	FunctionRegisters        FunctionAttribute = 4
	FunctionMaxDynamicShared FunctionAttribute = 8
	FunctionSharedCarveout   FunctionAttribute = 9 // what part of the first-level cache is to be shared memory, percent
)

const (
	streamNonBlocking  = 1 // CU_STREAM_NON_BLOCKING
	eventDisableTiming = 2 // CU_EVENT_DISABLE_TIMING
	captureThreadLocal = 1 // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
	hostAllocPortable  = 1 // CU_MEMHOSTALLOC_PORTABLE
	launchEarly        = 6 // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
	jitErrorBuffer     = 5 // CU_JIT_ERROR_LOG_BUFFER
	jitErrorBufferSize = 6 // CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
)

// Result is a CUresult.
type Result int32

// The results that callers tell apart.
const (
	Success                  Result = 0
	InvalidValue             Result = 1
	OutOfMemory              Result = 2
	NotInitialized           Result = 3
	NoDevice                 Result = 100
	InvalidDevice            Result = 101
	NoBinaryForGPU           Result = 209
	ECCUncorrectable         Result = 214
	InvalidPTX               Result = 218
	NVLinkUncorrectable      Result = 220
	UnsupportedPTXVersion    Result = 222
	ErrorContained           Result = 226
	NotFound                 Result = 500
	NotReady                 Result = 600
	IllegalAddress           Result = 700
	LaunchOutOfResources     Result = 701
	LaunchTimeout            Result = 702
	ContextDestroyed         Result = 709
	Assert                   Result = 710
	HardwareStackError       Result = 714
	IllegalInstruction       Result = 715
	MisalignedAddress        Result = 716
	InvalidAddressSpace      Result = 717
	InvalidPC                Result = 718
	LaunchFailed             Result = 719
	StreamCaptureUnsupported Result = 900
	StreamCaptureInvalidated Result = 901
	Unknown                  Result = 999
)

// Sticky reports whether the result ends the context: every later call returns it too, until the process ends.
func (r Result) Sticky() bool {
	switch r {
	case ECCUncorrectable, NVLinkUncorrectable, ErrorContained, IllegalAddress, LaunchTimeout, ContextDestroyed, Assert,
		HardwareStackError, IllegalInstruction, MisalignedAddress, InvalidAddressSpace, InvalidPC, LaunchFailed, Unknown:
		return true
	}
	return false
}
