// A libcuda.so.1 for machines without a GPU. Work given to a stream is done as late as it may, in order, when somebody waits for it
// (with a seed: some of it earlier, at random); copies from and to memory that is not pinned at once, as a driver does.
#include "driver.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

using namespace standin;

enum {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidImage = 200,
  kInvalidContext = 201,
  kNoBinary = 209,
  kInvalidPTX = 218,
  kUnsupportedPTX = 222,
  kInvalidHandle = 400,
  kNotFound = 500,
  kNotReady = 600,
  kIllegalAddress = 700,
  kOutOfResources = 701,
  kLaunchFailed = 719,
  kCaptureUnsupported = 900,
  kCaptureInvalidated = 901,
  kCaptureUnmatched = 903,
  kCaptureUnjoined = 904,
};

namespace {

struct Registered {
  int threads;
  Entry entry;
};
std::map<std::string, Registered> &kernels() {
  static auto *m = new std::map<std::string, Registered>;
  return *m;
}

struct Work {
  const char *name;
  std::function<int()> run;
  // Of a kernel: its launch; with `early`, that of an early one, some of whose blocks may have begun.
  std::shared_ptr<Launch> launch = nullptr;
  Early *early = nullptr;
};
struct Capture;
struct Stream {
  std::deque<Work> queue;
  std::shared_ptr<Capture> capture;
  bool unjoined = false;  // captured work that the capture's first stream does not wait for yet
};
struct Event {
  Stream *stream = nullptr;  // whose queue holds the latest record
  uint64_t recorded = 0, done = 0;
  std::chrono::steady_clock::time_point time;
  std::shared_ptr<Capture> capture;
  Stream *captured = nullptr;
};
struct Capture {
  Stream *first = nullptr;
  bool relaxed = false, broken = false;
  std::vector<Work> work;
  std::vector<Stream *> streams;
};
struct Graph {
  std::vector<Work> work;
};
struct Function {
  std::string name;
  Registered kernel;
  int dynamic = 48 << 10;
};
struct Module {
  std::map<std::string, std::unique_ptr<Function>> functions;
};
struct Allocation {
  size_t bytes, mapped;
  char *base;
  bool device;
};

std::recursive_mutex api;
std::map<uintptr_t, Allocation> allocations;
size_t live_bytes;
std::set<Stream *> streams;
Stream default_stream;
int lost;
long launches;
bool initialized;
standin::OfThread<void> current_context;
uint64_t random_state;
int context;  // its address is the primary context

unsigned next_random() {
  random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
  return random_state >> 33;
}

Stream *stream_of(void *s) { return s ? (Stream *)s : &default_stream; }

int keep(int code) {
  if (code && !lost) lost = code;
  return code;
}

// Does the oldest work of a stream.
int step(Stream *s) {
  if (s->queue.empty()) return lost;
  Work w = std::move(s->queue.front());
  s->queue.pop_front();
  if (lost) return lost;
  // Early launches begin before the kernel in front of them, and before those in front of that which allow it.
  if (w.launch && settings.seed)
    for (auto &next : s->queue) {
      if (!next.launch || !next.launch->early || next.early) break;
      bool allowed;
      if (int e = begin_early(*next.launch, &next.early, &allowed)) return keep(e);
      if (!allowed) break;
    }
  if (w.early) return keep(run_early(*w.launch, w.early));
  return keep(w.run());
}
int drain(Stream *s) {
  while (!s->queue.empty()) step(s);
  return lost;
}
int drain_all() {
  for (auto *s : streams) drain(s);
  drain(&default_stream);
  return lost;
}

int enqueue(void *stream, const char *name, std::function<int()> f, std::shared_ptr<Launch> launch = nullptr) {
  if (lost) return lost;
  Stream *s = stream_of(stream);
  if (s->capture) {
    if (s->capture->broken) return kCaptureInvalidated;
    s->capture->work.push_back({name, std::move(f), std::move(launch)});
    if (s != s->capture->first) s->unjoined = true;
    return 0;
  }
  s->queue.push_back({name, std::move(f), std::move(launch)});
  if (settings.seed)
    while (!s->queue.empty() && next_random() % 4 == 0) step(s);
  return lost;
}

// An operation that waits for the device is none that a capture may hold.
int not_while_capturing(Stream *s) {
  if (!s->capture) return 0;
  s->capture->broken = true;
  return kCaptureUnsupported;
}
int unsafe_while_capturing() {
  for (auto *s : streams)
    if (s->capture && !s->capture->relaxed) return not_while_capturing(s);
  return 0;
}

size_t page() { return sysconf(_SC_PAGESIZE); }

// Allocations end at an unreadable page, so far as their alignment of 256 bytes lets them, and begin behind one; the bytes between the end
// and the page keep a pattern that is checked when they are freed.
int allocate(uintptr_t *p, size_t n, bool device) {
  const size_t whole = (n + page() - 1) / page() * page(), mapped = whole + 2 * page();
  char *m = (char *)mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m == MAP_FAILED) return kOutOfMemory;
  mprotect(m, page(), PROT_NONE);
  mprotect(m + page() + whole, page(), PROT_NONE);
  char *data = m + page();
  memset(data, 0xff, whole);  // NaNs
  *p = (uintptr_t)(data + ((whole - n) & ~(size_t)255));
  allocations[*p] = {n, mapped, m, device};
  if (device) live_bytes += n;
  return 0;
}

const Allocation *find(uintptr_t address, uintptr_t *start) {
  auto i = allocations.upper_bound(address);
  if (i == allocations.begin()) return nullptr;
  --i;
  if (address >= i->first + i->second.bytes) return nullptr;
  *start = i->first;
  return &i->second;
}
bool pinned(const void *p) {
  uintptr_t start;
  const Allocation *a = find((uintptr_t)p, &start);
  return a && !a->device;
}
// Whether n bytes at p lie in one device allocation.
bool on_device(uintptr_t p, size_t n) {
  uintptr_t start;
  const Allocation *a = find(p, &start);
  return a && a->device && n <= start + a->bytes - p;
}

int release(uintptr_t p, bool device) {
  auto i = allocations.find(p);
  if (i == allocations.end() || i->second.device != device) return kInvalidValue;
  const Allocation a = i->second;
  const unsigned char *end = (unsigned char *)p + a.bytes;
  const unsigned char *limit = (unsigned char *)a.base + a.mapped - page();
  bool whole = true;
  for (const unsigned char *c = end; c < limit; c++) whole &= *c == 0xff;
  for (const unsigned char *c = (unsigned char *)a.base + page(); c < (unsigned char *)p; c++) whole &= *c == 0xff;
  munmap(a.base, a.mapped);
  if (device) live_bytes -= a.bytes;
  allocations.erase(i);
  return whole ? 0 : keep(kIllegalAddress);  // somebody wrote beside it
}

void load_settings();

int begin() {
  if (!initialized) return kNotInitialized;
  return lost;
}
int in_context() {
  if (int e = begin()) return e;
  return current_context ? 0 : kInvalidContext;
}

struct Setting {
  const char *name;
  long Settings::*field;
};
const Setting kSettings[] = {
    {"seed", &Settings::seed}, {"threads", &Settings::threads}, {"memory", &Settings::memory}, {"capability", &Settings::capability},
    {"driver", &Settings::driver}, {"devices", &Settings::devices}, {"lose_after", &Settings::lose_after},
    {"lose_code", &Settings::lose_code}, {"workspace", &Settings::workspace}, {"blas", &Settings::blas}, {"epilogues", &Settings::epilogues},
};

void load_settings() {
  settings = Settings();
  for (const auto &s : kSettings) {
    std::string name = std::string("AUTODEV_STANDIN_") + s.name;
    for (auto &c : name) c = toupper(c);
    if (const char *v = getenv(name.c_str())) settings.*s.field = atol(v);
  }
}
const bool loaded = (load_settings(), true);

const struct {
  int code;
  const char *name, *text;
} kErrors[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream as it began"},
    {904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

}  // namespace

bool standin::add(const char *name, int threads, Entry e) {
  kernels()[name] = {threads, e};
  return true;
}

std::string standin::describe_address(uintptr_t address) {
  char text[200];
  auto i = allocations.upper_bound(address);
  if (i != allocations.begin()) {
    auto before = std::prev(i);
    const uintptr_t end = before->first + before->second.bytes;
    if (address >= end && address - end < 1 << 20) {
      snprintf(text, sizeof text, "%zu bytes behind the end of an allocation of %zu bytes", (size_t)(address - end), before->second.bytes);
      return text;
    }
  }
  if (i != allocations.end() && i->first - address < 1 << 20) {
    snprintf(text, sizeof text, "%zu bytes before an allocation of %zu bytes", (size_t)(i->first - address), i->second.bytes);
    return text;
  }
  return "in no allocation (shared memory ends there, or the pointer is wild)";
}

int standin_enqueue(void *stream, const char *name, std::function<int()> f) {
  std::lock_guard<std::recursive_mutex> lock(api);
  if (int e = in_context()) return e;
  return enqueue(stream, name, std::move(f));
}
int standin_parallel(const char *what, int64_t n, void (*f)(void *, int64_t), void *c) { return run_parallel(what, n, f, c); }
long standin_workspace() { return settings.workspace; }
long standin_capability() { return settings.capability; }
long standin_epilogues() { return settings.epilogues; }
long standin_blas() { return settings.blas ? settings.blas : settings.driver < 12000 ? 111100 : settings.capability < 75 || settings.driver < 13000 ? 120900 : 131000; }

// Sets one of Settings; returns 1 when there is none of that name.
STANDIN_EXPORT int standin_set(const char *name, long value) {
  std::lock_guard<std::recursive_mutex> lock(api);
  for (const auto &s : kSettings)
    if (!strcmp(s.name, name)) {
      settings.*s.field = value;
      random_state = settings.seed;
      return 0;
    }
  return 1;
}
// A new, empty device with the settings the library was loaded with.
STANDIN_EXPORT void standin_reset() {
  std::lock_guard<std::recursive_mutex> lock(api);
  for (auto *s : streams) delete s;
  streams.clear();
  default_stream = Stream();
  for (auto &a : allocations) munmap(a.second.base, a.second.mapped);
  allocations.clear();
  live_bytes = launches = lost = 0;
  current_context = nullptr;
  clear_fault();
  load_settings();
  random_state = settings.seed;
}
// What ended the device, for people; empty when nothing did.
STANDIN_EXPORT void standin_fault(char *text, int n) { snprintf(text, n, "%s", last_fault().c_str()); }

#define API(...) STANDIN_EXPORT int __VA_ARGS__
#define LOCK std::lock_guard<std::recursive_mutex> lock(api)
#define ENTER(check) \
  LOCK;              \
  if (int e = check()) return e

API(cuInit(unsigned flags)) {
  LOCK;
  if (flags) return kInvalidValue;
  if (settings.devices == 0) return kNoDevice;
  initialized = true;
  return 0;
}
API(cuDriverGetVersion(int *v)) {
  *v = settings.driver;
  return 0;
}
API(cuGetErrorName(int code, const char **s)) {
  for (auto &e : kErrors)
    if (e.code == code) return *s = e.name, 0;
  return kInvalidValue;
}
API(cuGetErrorString(int code, const char **s)) {
  for (auto &e : kErrors)
    if (e.code == code) return *s = e.text, 0;
  return kInvalidValue;
}
API(cuDeviceGetCount(int *n)) {
  ENTER(begin);
  *n = settings.devices;
  return 0;
}
API(cuDeviceGet(int *d, int i)) {
  ENTER(begin);
  if (i < 0 || i >= settings.devices) return kInvalidDevice;
  *d = i;
  return 0;
}
API(cuDeviceGetName(char *s, int n, int)) {
  ENTER(begin);
  snprintf(s, n, "AutoDev stand-in");
  return 0;
}
API(cuDeviceTotalMem_v2(size_t *n, int)) {
  ENTER(begin);
  *n = settings.memory;
  return 0;
}
API(cuDeviceGetAttribute(int *v, int attribute, int)) {
  ENTER(begin);
  switch (attribute) {
    case 1: *v = 1024; break;                        // MAX_THREADS_PER_BLOCK
    case 8: *v = 48 << 10; break;                    // MAX_SHARED_MEMORY_PER_BLOCK
    case 10: *v = 32; break;                         // WARP_SIZE
    case 16: *v = 4; break;                          // MULTIPROCESSOR_COUNT
    case 36: *v = 1000000; break;                    // MEMORY_CLOCK_RATE
    case 37: *v = 64; break;                         // GLOBAL_MEMORY_BUS_WIDTH
    case 38: *v = 1 << 20; break;                    // L2_CACHE_SIZE
    case 75: *v = settings.capability / 10; break;   // COMPUTE_CAPABILITY_MAJOR
    case 76: *v = settings.capability % 10; break;   // COMPUTE_CAPABILITY_MINOR
    case 81: *v = 233472; break;                     // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
    case 97: *v = settings.capability >= 90 ? 232448 : settings.capability >= 80 ? 166912 : settings.capability >= 75 ? 65536 : 98304; break;  // ..._PER_BLOCK_OPTIN
    default: return kInvalidValue;
  }
  return 0;
}
API(cuDevicePrimaryCtxRetain(void **c, int d)) {
  ENTER(begin);
  if (d < 0 || d >= settings.devices) return kInvalidDevice;
  *c = &context;
  return 0;
}
API(cuDevicePrimaryCtxRelease_v2(int)) {
  LOCK;
  current_context = nullptr;
  release_guards();
  return 0;
}
API(cuCtxSetCurrent(void *c)) {
  ENTER(begin);
  current_context = c;
  return 0;
}
API(cuCtxSynchronize()) {
  ENTER(in_context);
  if (int e = unsafe_while_capturing()) return e;
  return drain_all();
}

API(cuMemAlloc_v2(uintptr_t *p, size_t n)) {
  ENTER(in_context);
  if (int e = unsafe_while_capturing()) return e;
  if (n == 0) return kInvalidValue;
  if (live_bytes + n > (size_t)settings.memory) return kOutOfMemory;
  return allocate(p, n, true);
}
API(cuMemFree_v2(uintptr_t p)) {
  ENTER(in_context);
  if (int e = unsafe_while_capturing()) return e;
  if (int e = drain_all()) return e;
  return release(p, true);
}
API(cuMemGetInfo_v2(size_t *available, size_t *total)) {
  ENTER(in_context);
  *total = settings.memory;
  *available = settings.memory - live_bytes;
  return 0;
}
API(cuMemHostAlloc(void **p, size_t n, unsigned)) {
  ENTER(in_context);
  if (n == 0) return kInvalidValue;
  return allocate((uintptr_t *)p, n, false);
}
API(cuMemFreeHost(void *p)) {
  ENTER(in_context);
  if (int e = drain_all()) return e;
  return release((uintptr_t)p, false);
}

static int copy_later(void *to, const void *from, size_t n, void *stream, bool at_once) {
  struct Piece {
    char *to;
    const char *from;
    size_t n;
  };
  auto f = [=] {
    Piece p{(char *)to, (const char *)from, n};
    return run_parallel("copy", 1, [](void *c, int64_t) { memcpy(((Piece *)c)->to, ((Piece *)c)->from, ((Piece *)c)->n); }, &p);
  };
  int e = enqueue(stream, "copy", f);
  if (!e && at_once && !stream_of(stream)->capture) e = drain(stream_of(stream));
  return e;
}
API(cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t n, void *stream)) {
  ENTER(in_context);
  if (!on_device(to, n)) return kInvalidValue;
  return copy_later((void *)to, from, n, stream, !pinned(from));
}
API(cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t n, void *stream)) {
  ENTER(in_context);
  if (!on_device(from, n)) return kInvalidValue;
  return copy_later(to, (void *)from, n, stream, !pinned(to));
}
API(cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t n, void *stream)) {
  ENTER(in_context);
  if (!on_device(from, n) || !on_device(to, n)) return kInvalidValue;
  return copy_later((void *)to, (void *)from, n, stream, false);
}
API(cuMemsetD8Async(uintptr_t p, unsigned char v, size_t n, void *stream)) {
  ENTER(in_context);
  if (!on_device(p, n)) return kInvalidValue;
  return enqueue(stream, "memset", [=] {
    memset((void *)p, v, n);
    return 0;
  });
}
API(cuMemsetD32Async(uintptr_t p, unsigned v, size_t n, void *stream)) {
  ENTER(in_context);
  if (p % 4 || !on_device(p, 4 * n)) return kInvalidValue;
  return enqueue(stream, "memset", [=] {
    std::fill_n((unsigned *)p, n, v);
    return 0;
  });
}

// Which driver version loads a version of PTX (CUDA's release notes), as 10 × major + minor.
static int driver_for(int ptx) {
  switch (ptx) {
    case 70: return 11000;
    case 71: return 11010;
    case 72: return 11020;
    case 73: return 11030;
    case 74: return 11040;
    case 75: return 11050;
    case 76: return 11060;
    case 77: return 11070;
    case 78: return 11080;
  }
  if (ptx < 70) return 10000;
  if (ptx < 90) return 12000 + 10 * (ptx - 80);
  return 13000 + 10 * (ptx - 90);
}
API(cuModuleLoadDataEx(void **m, const char *image, unsigned, int *, void **)) {
  ENTER(in_context);
  int major, minor, target;
  const char *version = strstr(image, ".version"), *to = strstr(image, ".target sm_");
  if (!version || !to || sscanf(version, ".version %d.%d", &major, &minor) != 2 || sscanf(to, ".target sm_%d", &target) != 1) return kInvalidPTX;
  if (settings.driver < driver_for(10 * major + minor)) return kUnsupportedPTX;
  const char after = to[strlen(".target sm_") + std::to_string(target).size()];
  if (target > settings.capability || (after == 'a' && target != settings.capability)) return kNoBinary;
  auto module = std::make_unique<Module>();
  for (const char *e = image; (e = strstr(e, ".entry ")) != nullptr;) {
    e += strlen(".entry ");
    const std::string name(e, strcspn(e, " (\n"));
    auto k = kernels().find(name);
    if (k == kernels().end()) return kInvalidImage;  // PTX whose kernel was not compiled into this library
    module->functions[name].reset(new Function{name, k->second});
  }
  *m = module.release();
  return 0;
}
API(cuModuleUnload(void *m)) {
  ENTER(in_context);
  if (int e = drain_all()) return e;
  delete (Module *)m;
  return 0;
}
API(cuModuleGetFunction(void **f, void *m, const char *name)) {
  ENTER(in_context);
  auto &functions = ((Module *)m)->functions;
  auto i = functions.find(name);
  if (i == functions.end()) return kNotFound;
  *f = i->second.get();
  return 0;
}
API(cuFuncSetAttribute(void *f, int attribute, int value)) {
  ENTER(in_context);
  if (attribute == 9) return value >= -1 && value <= 100 ? 0 : kInvalidValue;  // PREFERRED_SHARED_MEMORY_CARVEOUT
  if (attribute != 8) return kInvalidValue;  // MAX_DYNAMIC_SHARED_SIZE_BYTES
  int limit = 0;
  cuDeviceGetAttribute(&limit, 97, 0);
  if (value < 0 || value > limit) return kInvalidValue;
  ((Function *)f)->dynamic = value;
  return 0;
}
API(cuFuncGetAttribute(int *value, int attribute, void *f)) {
  ENTER(in_context);
  switch (attribute) {
    case 0: *value = ((Function *)f)->kernel.threads; return 0;  // MAX_THREADS_PER_BLOCK
    case 4: *value = 32; return 0;                               // NUM_REGS
    case 1: case 3: *value = 0; return 0;                        // SHARED_SIZE_BYTES, LOCAL_SIZE_BYTES: not known here
  }
  return kInvalidValue;
}
API(cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, void *f, int threads, size_t shared)) {
  ENTER(in_context);
  if (threads <= 0 || threads > ((Function *)f)->kernel.threads) return kInvalidValue;
  *n = std::max<size_t>(1, std::min<size_t>(2048 / threads, 233472 / (shared + 1024)));
  return 0;
}
static int launch(void *f, Dim grid, Dim block, unsigned shared, void *stream, void **arguments, void **extra, bool early) {
  Function *fn = (Function *)f;
  if (!fn || extra) return kInvalidHandle;
  const int64_t threads = (int64_t)block.x * block.y * block.z;
  if (grid.x <= 0 || grid.y <= 0 || grid.z <= 0 || grid.y > 65535 || grid.z > 65535 || threads <= 0 || threads > 1024 || block.z > 64 || shared > (unsigned)fn->dynamic) return kInvalidValue;
  if (threads > fn->kernel.threads) return kOutOfResources;
  if (settings.lose_after && ++launches >= settings.lose_after) return keep(settings.lose_code);
  const Entry e = fn->kernel.entry;
  struct Values {
    std::vector<uint64_t> values;
    std::vector<void *> pointers;
    Launch launch;
  };
  auto v = std::make_shared<Values>();
  v->values.resize(e.parameters);
  for (int i = 0; i < e.parameters; i++) {
    memcpy(&v->values[i], arguments[i], e.sizes[i]);
    v->pointers.push_back(&v->values[i]);
  }
  v->launch = {e.run, v->pointers.data(), grid, block, shared, fn->name.c_str(), early};
  const std::shared_ptr<Launch> l(v, &v->launch);
  return enqueue(stream, fn->name.c_str(), [=] { return run_blocks(*l); }, l);
}
API(cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream, void **arguments, void **extra)) {
  ENTER(in_context);
  return launch(f, {(int)gx, (int)gy, (int)gz}, {(int)bx, (int)by, (int)bz}, shared, stream, arguments, extra, false);
}
// CUlaunchConfig with its only attribute that is known here, PROGRAMMATIC_STREAM_SERIALIZATION.
struct Attribute {
  int id, pad, value[16];
};
struct Config {
  unsigned grid[3], block[3], shared;
  void *stream;
  const Attribute *attributes;
  unsigned n;
};
API(cuLaunchKernelEx(const Config *c, void *f, void **arguments, void **extra)) {
  ENTER(in_context);
  bool early = false;
  for (unsigned i = 0; i < c->n; i++) {
    if (c->attributes[i].id != 6 || settings.capability < 90) return kInvalidValue;
    early = c->attributes[i].value[0];
  }
  return launch(f, {(int)c->grid[0], (int)c->grid[1], (int)c->grid[2]}, {(int)c->block[0], (int)c->block[1], (int)c->block[2]}, c->shared, c->stream, arguments, extra, early);
}

API(cuStreamCreate(void **s, unsigned)) {
  ENTER(in_context);
  auto *n = new Stream;
  streams.insert(n);
  *s = n;
  return 0;
}
API(cuStreamDestroy_v2(void *s)) {
  ENTER(in_context);
  int e = drain((Stream *)s);
  streams.erase((Stream *)s);
  delete (Stream *)s;
  return e;
}
API(cuStreamSynchronize(void *s)) {
  ENTER(in_context);
  if (int e = not_while_capturing(stream_of(s))) return e;
  return drain(stream_of(s));
}
API(cuStreamQuery(void *s)) {
  ENTER(in_context);
  if (int e = not_while_capturing(stream_of(s))) return e;
  step(stream_of(s));
  if (lost) return lost;
  return stream_of(s)->queue.empty() ? 0 : kNotReady;
}
API(cuEventCreate(void **e, unsigned)) {
  ENTER(in_context);
  *e = new Event;
  return 0;
}
API(cuEventDestroy_v2(void *e)) {
  ENTER(in_context);
  if (int code = drain_all()) return code;
  delete (Event *)e;
  return 0;
}
API(cuEventRecord(void *event, void *stream)) {
  ENTER(in_context);
  Event *e = (Event *)event;
  Stream *s = stream_of(stream);
  if (s->capture) {
    e->capture = s->capture;
    e->captured = s;
    return 0;
  }
  e->capture = nullptr;
  e->stream = s;
  const uint64_t n = ++e->recorded;
  return enqueue(stream, "event", [=] {
    e->done = n;
    e->time = std::chrono::steady_clock::now();
    return 0;
  });
}
static int wait_for(Event *e, uint64_t n) {
  while (e->done < n && !e->stream->queue.empty()) step(e->stream);
  return lost;
}
API(cuStreamWaitEvent(void *stream, void *event, unsigned)) {
  ENTER(in_context);
  Event *e = (Event *)event;
  Stream *s = stream_of(stream);
  if (e->capture) {
    auto c = e->capture;
    if (s->capture && s->capture != c) return kInvalidValue;
    if (!s->capture) {  // the stream joins the capture
      s->capture = c;
      s->unjoined = true;
      c->streams.push_back(s);
    }
    if (s == c->first) e->captured->unjoined = false;
    return 0;
  }
  if (!e->recorded) return 0;
  const uint64_t n = e->recorded;
  return enqueue(stream, "wait", [=] { return wait_for(e, n); });
}
API(cuEventSynchronize(void *event)) {
  ENTER(in_context);
  Event *e = (Event *)event;
  return e->recorded ? wait_for(e, e->recorded) : 0;
}
API(cuEventQuery(void *event)) {
  ENTER(in_context);
  Event *e = (Event *)event;
  if (!e->recorded || e->done == e->recorded) return 0;
  step(e->stream);
  if (lost) return lost;
  return e->done == e->recorded ? 0 : kNotReady;
}
API(cuEventElapsedTime(float *ms, void *from, void *to)) {
  ENTER(in_context);
  Event *a = (Event *)from, *b = (Event *)to;
  if (!a->recorded || !b->recorded) return kInvalidHandle;
  if (a->done != a->recorded || b->done != b->recorded) return kNotReady;
  *ms = std::chrono::duration<float, std::milli>(b->time - a->time).count();
  return 0;
}

API(cuStreamBeginCapture_v2(void *stream, int mode)) {
  ENTER(in_context);
  Stream *s = stream_of(stream);
  if (s == &default_stream || s->capture) return kInvalidValue;
  s->capture = std::make_shared<Capture>();
  s->capture->first = s;
  s->capture->relaxed = mode == 2;
  s->capture->streams = {s};
  return 0;
}
API(cuStreamEndCapture(void *stream, void **graph)) {
  ENTER(in_context);
  Stream *s = stream_of(stream);
  auto c = s->capture;
  *graph = nullptr;
  if (!c || c->first != s) return kCaptureUnmatched;
  bool unjoined = false;
  for (auto *each : c->streams) {
    unjoined |= each != s && each->unjoined;
    each->capture = nullptr;
    each->unjoined = false;
  }
  if (c->broken) return kCaptureInvalidated;
  if (unjoined) return kCaptureUnjoined;
  *graph = new Graph{c->work};
  return 0;
}
API(cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long)) {
  ENTER(in_context);
  *executable = new Graph(*(Graph *)graph);
  return 0;
}
API(cuGraphDestroy(void *graph)) {
  ENTER(in_context);
  delete (Graph *)graph;
  return 0;
}
API(cuGraphExecDestroy(void *graph)) {
  ENTER(in_context);
  if (int e = drain_all()) return e;
  delete (Graph *)graph;
  return 0;
}
API(cuGraphLaunch(void *graph, void *stream)) {
  ENTER(in_context);
  if (settings.lose_after && ++launches >= settings.lose_after) return keep(settings.lose_code);
  for (auto &w : ((Graph *)graph)->work)
    if (int e = enqueue(stream, w.name, w.run, w.launch)) return e;
  return 0;
}
