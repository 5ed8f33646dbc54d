package driver

import (
	"bytes"
	"fmt"
	"runtime"
	"unsafe"

	"autodev/compute/cuda/dynlib"
)

// Ptr is an address in device memory.
type Ptr uint64

// Handles of the driver's objects.
type (
	DeviceID  int32
	Context   uintptr
	Module    uintptr
	Function  uintptr
	Stream    uintptr
	Event     uintptr
	Graph     uintptr
	GraphExec uintptr
)

// API is the loaded driver.
type API struct {
	Path string // of the library

	init, driverGetVersion, getErrorName, getErrorString,
	deviceGetCount, deviceGet, deviceGetName, deviceGetAttribute, deviceTotalMem,
	primaryCtxRetain, primaryCtxRelease, ctxSetCurrent, ctxSynchronize,
	memAlloc, memFree, memGetInfo, memHostAlloc, memFreeHost,
	memcpyHtoD, memcpyDtoH, memcpyDtoD, memsetD8, memsetD32,
	moduleLoadData, moduleUnload, moduleGetFunction, funcSetAttribute, funcGetAttribute, occupancy, launchKernel, launchKernelEx,
	streamCreate, streamDestroy, streamSynchronize, streamWaitEvent,
	eventCreate, eventDestroy, eventRecord, eventSynchronize, eventQuery, eventElapsedTime,
	streamBeginCapture, streamEndCapture, graphInstantiate, graphDestroy, graphExecDestroy, graphLaunch uintptr
}

// Load loads the driver's library from path, or from where dynlib.CUDA looks when path is empty, and initialises it.
func Load(path string) (*API, error) {
	lib, err := dynlib.CUDA().Open(path)
	if err != nil {
		return nil, err
	}
	a := &API{Path: lib.Path}
	if err := lib.Symbols(map[string]*uintptr{
		"cuInit": &a.init, "cuDriverGetVersion": &a.driverGetVersion, "cuGetErrorName": &a.getErrorName, "cuGetErrorString": &a.getErrorString,
		"cuDeviceGetCount": &a.deviceGetCount, "cuDeviceGet": &a.deviceGet, "cuDeviceGetName": &a.deviceGetName,
		"cuDeviceGetAttribute": &a.deviceGetAttribute, "cuDeviceTotalMem_v2": &a.deviceTotalMem,
		"cuDevicePrimaryCtxRetain": &a.primaryCtxRetain, "cuDevicePrimaryCtxRelease_v2": &a.primaryCtxRelease,
		"cuCtxSetCurrent": &a.ctxSetCurrent, "cuCtxSynchronize": &a.ctxSynchronize,
		"cuMemAlloc_v2": &a.memAlloc, "cuMemFree_v2": &a.memFree, "cuMemGetInfo_v2": &a.memGetInfo,
		"cuMemHostAlloc": &a.memHostAlloc, "cuMemFreeHost": &a.memFreeHost,
		"cuMemcpyHtoDAsync_v2": &a.memcpyHtoD, "cuMemcpyDtoHAsync_v2": &a.memcpyDtoH, "cuMemcpyDtoDAsync_v2": &a.memcpyDtoD,
		"cuMemsetD8Async": &a.memsetD8, "cuMemsetD32Async": &a.memsetD32,
		"cuModuleLoadDataEx": &a.moduleLoadData, "cuModuleUnload": &a.moduleUnload, "cuModuleGetFunction": &a.moduleGetFunction,
		"cuFuncSetAttribute": &a.funcSetAttribute, "cuFuncGetAttribute": &a.funcGetAttribute,
		"cuOccupancyMaxActiveBlocksPerMultiprocessor": &a.occupancy, "cuLaunchKernel": &a.launchKernel,
		"cuStreamCreate": &a.streamCreate, "cuStreamDestroy_v2": &a.streamDestroy, "cuStreamSynchronize": &a.streamSynchronize,
		"cuStreamWaitEvent": &a.streamWaitEvent, "cuEventCreate": &a.eventCreate, "cuEventDestroy_v2": &a.eventDestroy,
		"cuEventRecord": &a.eventRecord, "cuEventSynchronize": &a.eventSynchronize, "cuEventQuery": &a.eventQuery, "cuEventElapsedTime": &a.eventElapsedTime,
		"cuStreamBeginCapture_v2": &a.streamBeginCapture, "cuStreamEndCapture": &a.streamEndCapture,
		"cuGraphInstantiateWithFlags": &a.graphInstantiate, "cuGraphDestroy": &a.graphDestroy,
		"cuGraphExecDestroy": &a.graphExecDestroy, "cuGraphLaunch": &a.graphLaunch,
	}); err != nil {
		return nil, err
	}
	// Drivers before CUDA 11.8 have none.
	_ = lib.Symbols(map[string]*uintptr{"cuLaunchKernelEx": &a.launchKernelEx})
	if err := a.check("cuInit", dynlib.Call(a.init, 0)); err != nil {
		return nil, fmt.Errorf("%s: %w", a.Path, err)
	}
	return a, nil
}

// Version returns the CUDA version that the driver supports, 1000·major + 10·minor.
func (a *API) Version() (int, error) {
	v := new(int32)
	r := dynlib.Call(a.driverGetVersion, uintptr(unsafe.Pointer(v)))
	return int(*v), a.check("cuDriverGetVersion", r)
}

// DeviceCount returns the number of devices.
func (a *API) DeviceCount() (int, error) {
	n := new(int32)
	r := dynlib.Call(a.deviceGetCount, uintptr(unsafe.Pointer(n)))
	return int(*n), a.check("cuDeviceGetCount", r)
}

// Device returns the device with the index.
func (a *API) Device(index int) (DeviceID, error) {
	d := new(DeviceID)
	r := dynlib.Call(a.deviceGet, uintptr(unsafe.Pointer(d)), uintptr(index))
	return *d, a.check("cuDeviceGet", r, "device %d", index)
}

// DeviceName returns the device's name.
func (a *API) DeviceName(d DeviceID) (string, error) {
	b := make([]byte, 256)
	r := dynlib.Call(a.deviceGetName, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(d))
	name, _, _ := bytes.Cut(b, []byte{0})
	return string(name), a.check("cuDeviceGetName", r)
}

// DeviceAttribute returns one of the device's figures.
func (a *API) DeviceAttribute(d DeviceID, which Attribute) (int, error) {
	v := new(int32)
	r := dynlib.Call(a.deviceGetAttribute, uintptr(unsafe.Pointer(v)), uintptr(which), uintptr(d))
	return int(*v), a.check("cuDeviceGetAttribute", r, "attribute %d", which)
}

// DeviceMemory returns the device's memory in bytes.
func (a *API) DeviceMemory(d DeviceID) (int64, error) {
	n := new(uint64)
	r := dynlib.Call(a.deviceTotalMem, uintptr(unsafe.Pointer(n)), uintptr(d))
	return int64(*n), a.check("cuDeviceTotalMem", r)
}

// RetainPrimary returns the device's primary context, the one that cuBLASLt uses as well.
func (a *API) RetainPrimary(d DeviceID) (Context, error) {
	c := new(Context)
	r := dynlib.Call(a.primaryCtxRetain, uintptr(unsafe.Pointer(c)), uintptr(d))
	return *c, a.check("cuDevicePrimaryCtxRetain", r)
}

// ReleasePrimary gives the primary context back.
func (a *API) ReleasePrimary(d DeviceID) error {
	return a.check("cuDevicePrimaryCtxRelease", dynlib.Call(a.primaryCtxRelease, uintptr(d)))
}

// SetCurrent makes the context that of the calling thread.
func (a *API) SetCurrent(c Context) error {
	return a.check("cuCtxSetCurrent", dynlib.Call(a.ctxSetCurrent, uintptr(c)))
}

// Synchronize waits for all work of the context.
func (a *API) Synchronize() error {
	return a.check("cuCtxSynchronize", dynlib.Call(a.ctxSynchronize))
}

// Alloc allocates device memory, aligned to 256 bytes, with undefined contents.
func (a *API) Alloc(bytes int64) (Ptr, error) {
	p := new(Ptr)
	r := dynlib.Call(a.memAlloc, uintptr(unsafe.Pointer(p)), uintptr(bytes))
	return *p, a.check("cuMemAlloc", r, "%d bytes", bytes)
}

// Free frees what Alloc returned.
func (a *API) Free(p Ptr) error {
	return a.check("cuMemFree", dynlib.Call(a.memFree, uintptr(p)))
}

// MemInfo returns the free and the total bytes of the device.
func (a *API) MemInfo() (free, total int64, err error) {
	n := new([2]uint64)
	r := dynlib.Call(a.memGetInfo, uintptr(unsafe.Pointer(&n[0])), uintptr(unsafe.Pointer(&n[1])))
	return int64(n[0]), int64(n[1]), a.check("cuMemGetInfo", r)
}

// HostAlloc allocates pinned host memory: C memory that copies reach without staging.
func (a *API) HostAlloc(n int64) ([]byte, error) {
	p := new(unsafe.Pointer)
	r := dynlib.Call(a.memHostAlloc, uintptr(unsafe.Pointer(p)), uintptr(n), hostAllocPortable)
	if err := a.check("cuMemHostAlloc", r, "%d bytes", n); err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(*p), n), nil
}

// HostFree frees what HostAlloc returned.
func (a *API) HostFree(b []byte) error {
	return a.check("cuMemFreeHost", dynlib.Call(a.memFreeHost, uintptr(unsafe.Pointer(unsafe.SliceData(b)))))
}

// CopyToDevice copies n bytes in stream order. If from is pinned memory it must stay as it is until the copy is done; else it has
// been read when the call returns.
func (a *API) CopyToDevice(to Ptr, from unsafe.Pointer, n int64, s Stream) error {
	return a.check("cuMemcpyHtoDAsync", dynlib.Call(a.memcpyHtoD, uintptr(to), uintptr(from), uintptr(n), uintptr(s)), "%d bytes", n)
}

// CopyToHost copies n bytes in stream order. If to is pinned memory they are there when the stream has been waited for, else
// when the call returns.
func (a *API) CopyToHost(to unsafe.Pointer, from Ptr, n int64, s Stream) error {
	return a.check("cuMemcpyDtoHAsync", dynlib.Call(a.memcpyDtoH, uintptr(to), uintptr(from), uintptr(n), uintptr(s)), "%d bytes", n)
}

// CopyOnDevice copies n bytes in stream order.
func (a *API) CopyOnDevice(to, from Ptr, n int64, s Stream) error {
	return a.check("cuMemcpyDtoDAsync", dynlib.Call(a.memcpyDtoD, uintptr(to), uintptr(from), uintptr(n), uintptr(s)), "%d bytes", n)
}

// Set8 sets n bytes to v in stream order.
func (a *API) Set8(p Ptr, v byte, n int64, s Stream) error {
	return a.check("cuMemsetD8Async", dynlib.Call(a.memsetD8, uintptr(p), uintptr(v), uintptr(n), uintptr(s)), "%d bytes", n)
}

// Set32 sets n words of 4 bytes to v in stream order.
func (a *API) Set32(p Ptr, v uint32, n int64, s Stream) error {
	return a.check("cuMemsetD32Async", dynlib.Call(a.memsetD32, uintptr(p), uintptr(v), uintptr(n), uintptr(s)), "%d words", n)
}

// LoadModule compiles PTX for the current device. The compiler's complaints are in the error.
func (a *API) LoadModule(ptx []byte) (Module, error) {
	image := append(bytes.Clone(ptx), 0)
	log := make([]byte, 8<<10)
	options := &[2]int32{jitErrorBuffer, jitErrorBufferSize}
	// Values are passed in the place of pointers: the buffer's address and its size.
	values := &[2]uintptr{uintptr(unsafe.Pointer(&log[0])), uintptr(len(log))}
	var pin runtime.Pinner
	pin.Pin(&log[0])
	defer pin.Unpin()
	m := new(Module)
	r := dynlib.Call(a.moduleLoadData, uintptr(unsafe.Pointer(m)), uintptr(unsafe.Pointer(&image[0])), uintptr(len(options)),
		uintptr(unsafe.Pointer(options)), uintptr(unsafe.Pointer(values)))
	text, _, _ := bytes.Cut(log, []byte{0})
	return *m, a.check("cuModuleLoadDataEx", r, "%s", bytes.TrimSpace(text))
}

// UnloadModule unloads a module; its functions must not be in use.
func (a *API) UnloadModule(m Module) error {
	return a.check("cuModuleUnload", dynlib.Call(a.moduleUnload, uintptr(m)))
}

// Function returns a module's kernel.
func (a *API) Function(m Module, name string) (Function, error) {
	f, s := new(Function), append([]byte(name), 0)
	r := dynlib.Call(a.moduleGetFunction, uintptr(unsafe.Pointer(f)), uintptr(m), uintptr(unsafe.Pointer(&s[0])))
	return *f, a.check("cuModuleGetFunction", r, "%s", name)
}

// SetFunctionAttribute sets a kernel's limit.
func (a *API) SetFunctionAttribute(f Function, which FunctionAttribute, v int) error {
	return a.check("cuFuncSetAttribute", dynlib.Call(a.funcSetAttribute, uintptr(f), uintptr(which), uintptr(v)), "attribute %d to %d", which, v)
}

// FunctionAttribute returns a kernel's figure.
func (a *API) FunctionAttribute(f Function, which FunctionAttribute) (int, error) {
	v := new(int32)
	r := dynlib.Call(a.funcGetAttribute, uintptr(unsafe.Pointer(v)), uintptr(which), uintptr(f))
	return int(*v), a.check("cuFuncGetAttribute", r, "attribute %d", which)
}

// Occupancy returns how many blocks of a kernel fit one multiprocessor.
func (a *API) Occupancy(f Function, threads, shared int) (int, error) {
	v := new(int32)
	r := dynlib.Call(a.occupancy, uintptr(unsafe.Pointer(v)), uintptr(f), uintptr(threads), uintptr(shared))
	return int(*v), a.check("cuOccupancyMaxActiveBlocksPerMultiprocessor", r)
}

// MaxArguments is the number of arguments a kernel may have.
const MaxArguments = 32

// Packet is a kernel launch whose arguments are laid out once, so that launching allocates nothing. It lives on the heap and must not be copied.
type Packet struct {
	function uintptr
	grid     [6]uint32 // blocks x, y, z, threads x, y, z
	shared   uint32
	early    *launchConfig // made by the first LaunchEarly
	values   [MaxArguments]uint64
	pointers [MaxArguments]unsafe.Pointer
}

// NewPacket returns a launch of f with n arguments, all zero.
func NewPacket(f Function, blocks, threads [3]uint32, shared uint32, n int) *Packet {
	p := &Packet{function: uintptr(f), grid: [6]uint32{blocks[0], blocks[1], blocks[2], threads[0], threads[1], threads[2]}, shared: shared}
	for i := range n {
		p.pointers[i] = unsafe.Pointer(&p.values[i])
	}
	return p
}

// Set sets argument i; 4-byte arguments are the low half.
func (p *Packet) Set(i int, v uint64) { p.values[i] = v }

// Launch launches a kernel. The arguments are copied before it returns.
func (a *API) Launch(p *Packet, s Stream) error {
	g := &p.grid
	r := dynlib.Call(a.launchKernel, p.function, uintptr(g[0]), uintptr(g[1]), uintptr(g[2]), uintptr(g[3]), uintptr(g[4]), uintptr(g[5]),
		uintptr(p.shared), uintptr(s), uintptr(unsafe.Pointer(&p.pointers[0])), 0)
	if int32(r) == 0 {
		return nil
	}
	return a.check("cuLaunchKernel", r, "blocks %v, threads %v, %d bytes of shared memory", g[:3], g[3:], p.shared)
}

// launchAttribute is a CUlaunchAttribute whose value is an int, launchConfig a CUlaunchConfig.
type launchAttribute struct {
	id, _ int32
	value [16]int32
}

type launchConfig struct {
	grid       [6]uint32
	shared     uint32
	stream     uintptr
	attributes *launchAttribute
	n          uint32
}

// EarlyVersion is the CUDA version from which drivers keep in captured graphs that launches are early.
const EarlyVersion = 12030

// LaunchEarly launches a kernel whose blocks may begin before the kernels before it have ended (programmatic stream serialization): it has to wait for
// them itself. The device has compute capability 9.0 or more, the driver EarlyVersion.
func (a *API) LaunchEarly(p *Packet, s Stream) error {
	if p.early == nil {
		p.early = &launchConfig{grid: p.grid, shared: p.shared, attributes: &launchAttribute{id: launchEarly, value: [16]int32{1}}, n: 1}
	}
	p.early.stream = uintptr(s)
	r := dynlib.Call(a.launchKernelEx, uintptr(unsafe.Pointer(p.early)), p.function, uintptr(unsafe.Pointer(&p.pointers[0])), 0)
	if int32(r) == 0 {
		return nil
	}
	return a.check("cuLaunchKernelEx", r, "blocks %v, threads %v, %d bytes of shared memory", p.grid[:3], p.grid[3:], p.shared)
}

// NewStream returns a stream that does not wait for the default one.
func (a *API) NewStream() (Stream, error) {
	s := new(Stream)
	r := dynlib.Call(a.streamCreate, uintptr(unsafe.Pointer(s)), streamNonBlocking)
	return *s, a.check("cuStreamCreate", r)
}

// DestroyStream ends a stream.
func (a *API) DestroyStream(s Stream) error {
	return a.check("cuStreamDestroy", dynlib.Call(a.streamDestroy, uintptr(s)))
}

// SyncStream waits for all work of a stream.
func (a *API) SyncStream(s Stream) error {
	return a.check("cuStreamSynchronize", dynlib.Call(a.streamSynchronize, uintptr(s)))
}

// WaitEvent lets the stream's later work wait for the event's latest record.
func (a *API) WaitEvent(s Stream, e Event) error {
	return a.check("cuStreamWaitEvent", dynlib.Call(a.streamWaitEvent, uintptr(s), uintptr(e), 0))
}

// NewEvent returns an event; timing costs a little.
func (a *API) NewEvent(timing bool) (Event, error) {
	e, flags := new(Event), uintptr(eventDisableTiming)
	if timing {
		flags = 0
	}
	r := dynlib.Call(a.eventCreate, uintptr(unsafe.Pointer(e)), flags)
	return *e, a.check("cuEventCreate", r)
}

// DestroyEvent ends an event.
func (a *API) DestroyEvent(e Event) error {
	return a.check("cuEventDestroy", dynlib.Call(a.eventDestroy, uintptr(e)))
}

// RecordEvent records the event behind the stream's work so far.
func (a *API) RecordEvent(e Event, s Stream) error {
	return a.check("cuEventRecord", dynlib.Call(a.eventRecord, uintptr(e), uintptr(s)))
}

// SyncEvent waits for the event's latest record.
func (a *API) SyncEvent(e Event) error {
	return a.check("cuEventSynchronize", dynlib.Call(a.eventSynchronize, uintptr(e)))
}

// EventDone reports whether the event's latest record has been reached.
func (a *API) EventDone(e Event) (bool, error) {
	r := dynlib.Call(a.eventQuery, uintptr(e))
	if Result(int32(r)) == NotReady {
		return false, nil
	}
	return int32(r) == 0, a.check("cuEventQuery", r)
}

// Elapsed returns the milliseconds between two records.
func (a *API) Elapsed(from, to Event) (float32, error) {
	ms := new(float32)
	r := dynlib.Call(a.eventElapsedTime, uintptr(unsafe.Pointer(ms)), uintptr(from), uintptr(to))
	return *ms, a.check("cuEventElapsedTime", r)
}

// BeginCapture makes the stream record its work in a graph instead of doing it.
func (a *API) BeginCapture(s Stream) error {
	return a.check("cuStreamBeginCapture", dynlib.Call(a.streamBeginCapture, uintptr(s), captureThreadLocal))
}

// EndCapture returns what was recorded since BeginCapture.
func (a *API) EndCapture(s Stream) (Graph, error) {
	g := new(Graph)
	r := dynlib.Call(a.streamEndCapture, uintptr(s), uintptr(unsafe.Pointer(g)))
	return *g, a.check("cuStreamEndCapture", r)
}

// Instantiate makes a graph ready to be launched.
func (a *API) Instantiate(g Graph) (GraphExec, error) {
	x := new(GraphExec)
	r := dynlib.Call(a.graphInstantiate, uintptr(unsafe.Pointer(x)), uintptr(g), 0)
	return *x, a.check("cuGraphInstantiateWithFlags", r)
}

// DestroyGraph frees a graph; what was instantiated from it stays.
func (a *API) DestroyGraph(g Graph) error {
	return a.check("cuGraphDestroy", dynlib.Call(a.graphDestroy, uintptr(g)))
}

// DestroyExec frees an instantiated graph.
func (a *API) DestroyExec(x GraphExec) error {
	return a.check("cuGraphExecDestroy", dynlib.Call(a.graphExecDestroy, uintptr(x)))
}

// LaunchGraph puts a graph's work behind the stream's.
func (a *API) LaunchGraph(x GraphExec, s Stream) error {
	return a.check("cuGraphLaunch", dynlib.Call(a.graphLaunch, uintptr(x), uintptr(s)))
}
