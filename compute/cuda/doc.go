// Package cuda runs the kernel vocabulary on one NVIDIA GPU: Device is a compute.Device over the driver API and cuBLASLt, which are
// loaded at run time without cgo.
//
// What lives where:
//
//   - cuda (this package): Device, the goroutine that owns it, memory, streams, captured graphs, and one file per kernel family
//     with the functions that turn operands into launches (layernorm.go describes the launches of kernels/layernorm.cu);
//   - cuda/dynlib: loads shared libraries without cgo; where NVIDIA's are searched;
//   - cuda/driver: libcuda as typed Go functions, its constants, its errors;
//   - cuda/cublaslt: libcublasLt likewise, and matrix products with descriptors and algorithms cached per shape;
//   - cuda/kernels: the kernels in CUDA C++ (.cu), ad_cuda.h which they are written against (ad_warpgroup.h: what only compute capability 9.0 has), and
//     their checked-in PTX (embedded, compressed);
//   - cuda/standin: a libcuda and a libcublasLt for machines without a GPU, built from the same .cu files by the tests;
//   - cuda/cudatest: what tests open devices with; cuda/wheels: NVIDIA's libraries and headers, for tests.
//
// What must not live here: models, graphs, files, anything that knows what a training step is.
//
// A build for another system than linux on amd64 or arm64, or with the tag nocuda, has the same packages, whose New says that
// this build carries no CUDA. Without the tag the binary is linked to the C library's loader (libdl, libpthread, libc) and
// needs glibc at run time but no NVIDIA file; with the tag it is fully static.
//
// # One goroutine owns the device
//
// New starts a goroutine locked to its thread, on which the context is current. Everything that touches the device is a
// method of Queue, and a Queue is only ever handed to a function given to Device.Do, which runs on that goroutine:
//
//	err := d.Do(func(q *cuda.Queue) error {
//		if err := launch.Enqueue(q); err != nil {
//			return err
//		}
//		return q.Sync()
//	})
//
// One Do is one hand-over (some microseconds), so put whole programs into it, never one launch. A Queue must not outlive its
// function. All work goes to the queue's one stream, in order; q.Fork gives a second queue, q.Join orders the first behind it. What is enqueued
// is an Op: a Launch (q.Prepare), a Matmul (q.PrepareMatmul), or a Graph (q.Capture) of the others. Preparing allocates and may load a module,
// so it is done when a plan is compiled; enqueueing does neither.
//
// # Programs
//
// Device is a compute.Device: Compile checks every call of a plan (bind.go) and turns it into launches and products, prepared once. Run gives
// them to the device in one Do, in chunks between which it looks at its context: the first time call by call, which lets libraries load
// what they need, afterwards as one captured graph a chunk. It returns when the device is done. Ids, positions and targets are
// checked on the device (range.go); the kernels keep inside their memory whatever those are.
//
// A call's own work space is what cudaplan.WorkBytes says; the products' workspace is the device's. Plans keep floats as
// compute.Uniform(F32), compute.Mixed(BF16) or, for cards before compute capability 8.0, compute.Mixed(F16); Attr.BF16 on operands of
// another type is refused. Some calls become one (fuse.go): GELU's
// gradient is the epilogue of the product before it, GELU too where there are no gradients; a weight's gradient that follows the clearing of its
// memory overwrites it. Options.Unfused and Options.CallByCall (AUTODEV_CUDA_GRAPHS=0) take these apart; Program.Profile
// times every call.
//
// Attention has kernels of its own for compute capability 9.0 (attention_hopper.go), which do not run anywhere else; Options.NoWarpgroups
// (AUTODEV_CUDA_WARPGROUPS=0), a module that the driver does not load, or results that are not those of the others on a small problem when they are
// first asked for (attention_check.go) leave the work to those for 8.0.
//
// # Errors
//
// A failing call is a *driver.Error: the call, the driver's name and text. OutOfMemory is what was asked, what is free and, from
// Options.Fits, what would fit. After an error that ends the context (a lost card, an illegal address) every later Do returns
// a *LostError with the first failure, of which Options.Lost is told once: the process must start again, and resume from its last checkpoint.
//
// # Memory
//
// Ptr is a device address. Device.Alloc makes one allocation per space of the plan, once, zeroed; nothing is allocated afterwards.
// Buffers are aligned to compute.Align (64 bytes), so kernels may use 16-byte accesses on whole buffers, and on rows when the
// width allows it. Inside kernels:
//
//   - global memory comes by pointer, in the Store of the kernel's name (f32, bf16, f16); int32 for ids;
//   - static shared memory: AD_SHARED(T, name, n), at most 48 KiB a block; dynamic: AD_DYNAMIC_SHARED(T, name), its bytes given by
//     Grid.Shared (more than 48 KiB is asked of the driver by Prepare, up to Properties.SharedPerBlock);
//   - what is read must have been written: the stand-in fills allocations and shared memory with NaNs.
//
// Host memory that asynchronous copies read or write must be pinned (Queue.Pinned) and must stay untouched until the queue is
// synchronised; ordinary slices are copied before the call returns.
//
// # Adding a kernel
//
//  1. kernels/NAME.cu: include "ad_cuda.h" and nothing else. A kernel is a template or function of the form
//
//     AD_KERNEL(layernorm_f32, (float *y, const float *x, ..., int32_t width, float epsilon), 256) { body }
//
//     Names are operation_store (layernorm_bf16). Parameters: outputs first, then inputs, then work space, then int32_t or int64_t
//     sizes, then float scalars; pointers, 32-bit and 64-bit integers and floats only. The third argument is the most threads a block
//     is launched with. What ad_cuda.h offers (barriers, shuffles, atomics, cp.async, ldmatrix, mma, conversions,
//     approximations) exists both as PTX and in the stand-in; inline PTX in a .cu file is not allowed, it belongs in ad_cuda.h beside
//     its emulation. There is no libdevice: ad_exp, ad_tanh, ad_log, ad_rsqrt and their accuracies are in ad_cuda.h; no fast-math.
//     Targets are sm_70 and sm_80 unless a first line says otherwise: // targets: sm_80 sm_90a. Only sm_90a has the products of
//     warpgroups (wgmma), and such a module runs on compute capability 9.0 alone.
//
//  2. make cuda-kernels writes kernels/ptx/NAME.sm_NN.ptx.zst and ptx/index.txt (clang-22); check them in. A test compares the texts; with AUTODEV_PTXAS set to
//     NVIDIA's assembler a test also shows each kernel's registers and fails on spills.
//
//  3. NAME.go in this package: a function that checks shapes and returns a *Launch:
//
//     func layerNorm(q *Queue, y, x, gain, bias Ptr, rows, width int, epsilon float32, s Store) (*Launch, error) {
//     return q.Prepare("layernorm_"+s.String(), Grid{Blocks: Dim{rows}, Threads: Dim{256}}, y, x, gain, bias, width, epsilon)
//     }
//
//     Arguments (Ptr, int32, uint32, int64, float32, or int, which takes the parameter's type) are checked, number and type, against the
//     .param list of the PTX (from the index), and Threads against the kernel's bound. A Launch is made once and enqueued any number of times. What
//     changes from step to step is read from device memory, so that a captured graph sees it too.
//
//  4. NAME_test.go: eachSeed (harness_test.go) opens a device on the stand-in under five schedules (once on the GPU with AUTODEV_TEST_GPU=1:
//     make test-gpu); upload, download, encode and decode move data in a Store; cudatest.Close compares with compute/ref within the
//     Store's unit. Shapes: one row, widths that are no multiple of 32 or of the block, more rows than fit at once.
//
//  5. Planted bugs: put the barrier or offset that matters most behind AD_BUG(flag, good, bad); onStandin(t, "NAME.cu:flag", settings) has it
//     planted, and the test asserts that the result differs (cudatest.Differs) or that the launch fails (layernorm_test.go shows both).
//
// AUTODEV_STANDIN_KERNELS="a.cu b.cu" builds the stand-in from those kernels alone, while others do not compile. Built stand-ins are kept in the
// user's cache folder under the hash of their sources. Library.Fault says what a kernel did wrong: thread, block, address.
//
// # Early launches
//
// From compute capability 9.0 and CUDA 12.3 on, launches in a capture may begin while those before them end (programmatic dependent launch). That is so for the
// kernels that wait by themselves, which the index marks as early; ad_cuda.h has the rule that they keep (ad_wait, ad_allow_next). They begin with what
// nobody writes: products of few rows have their first weights on the way when the kernel before them ends, attention the cached keys and values.
// Add the target sm_90 to the line of a kernel that waits. The stand-in lets some blocks begin before the kernels before them (under every seed but 0), up to the
// wait, and fails when a thread ends without it. Options.InTurn (AUTODEV_CUDA_EARLY=0) has none.
//
// Rules of package compute hold: outputs overwrite, parameter gradients accumulate; same input, same bits on the same card (no
// atomic additions of floats where order matters: reduce in a fixed order, in one block or in two launches).
//
// # Inference
//
// Inference (inference.go) prepares what models are run with, outside of plans. Its weights (weight.go) are floats or codes of 8 or 4 bits as package
// compute/cpu/quant stores them, which stay so in memory: products of few rows read the codes (gemv_quant.go), longer ones widen a part of the
// weights at a time in memory given for that, and give each part to cuBLASLt. Rows may be tokens of any number of sequences: which row is which token of
// which sequence, and where its keys and values are, cached attention (attention_cached.go) reads from device memory, so that a captured graph
// stays right. Tokens are chosen on the device: the most probable ones (choose.go) and drawn ones (sample.go), so that their logits need not leave it.
//
// Up to FewRows rows, products read the weights once for all rows and give a row the bits that it has alone; so do norms, embeddings, activations and
// cached attention for any number. What bounds them is reading weights and the number of launches: such products norm what they read (gemv.h),
// and attention puts the new tokens into the cache and adds up its parts in the same launch, so that a block of a model is five.
//
// # Matrix products
//
// cublaslt.Product is row-major D = alpha·op(A)·op(B) + beta·C with an epilogue; q.PrepareMatmul binds one to addresses (descriptors and algorithm
// are kept per product, the workspace is the device's). Products in float32 use full float32 unless TF32 is asked for. Bias and aux
// have D's type; gradients of biases (DGELUColumnSums, RowSumsOfA, ColumnSumsOfB) overwrite. Products share the workspace, so all go to one
// queue and not to its fork.
package cuda
