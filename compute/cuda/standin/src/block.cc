#include "block.h"
#include "products.h"

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__) || defined(STANDIN_UCONTEXT)
#include <ucontext.h>
#endif

namespace standin {

Settings settings;
thread_local Thread *current;

namespace {

constexpr int kMaxThreads = 1024;
// A page more than a power of two, and each begins some lines lower than the one before: all would lie in the same few sets of the caches otherwise.
constexpr size_t kStack = (128 << 10) + (4 << 10);
constexpr size_t kMaxDynamic = 232448;  // 227 KiB, an H100's limit
constexpr size_t kMaxStatic = 48 << 10;
constexpr int kIllegalAddress = 700, kLaunchFailed = 719;

size_t page_size() {
  static const size_t n = sysconf(_SC_PAGESIZE);
  return n;
}

// Memory that ends at an unreadable page.
char *map_guarded(size_t bytes) {
  const size_t page = page_size(), whole = (bytes + page - 1) / page * page;
  char *m = (char *)mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (m == MAP_FAILED) abort();
  mprotect(m + whole, page, PROT_NONE);
  return m + whole;  // the end
}

// Switching between stacks. STANDIN_UCONTEXT tries the portable way on a machine that has the other.
#if defined(__x86_64__) && !defined(STANDIN_UCONTEXT)
struct Context {
  void *sp;
};
extern "C" void standin_switch(void **save, void *to);
asm(R"(.text
.type standin_switch,@function
standin_switch:
 push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
 mov %rsp,(%rdi); mov %rsi,%rsp
 pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp
 ret
)");
void change(Context &from, Context &to) { standin_switch(&from.sp, to.sp); }
void prepare(Context &c, char *stack, size_t size, void (*entry)()) {
  void **sp = (void **)((uintptr_t)(stack + size) & ~15ul);
  *--sp = nullptr;
  *--sp = (void *)entry;
  for (int i = 0; i < 6; i++) *--sp = nullptr;
  c.sp = sp;
}
#else
struct Context {
  ucontext_t c;
};
void change(Context &from, Context &to) { swapcontext(&from.c, &to.c); }
void prepare(Context &c, char *stack, size_t size, void (*entry)()) {
  getcontext(&c.c);
  c.c.uc_stack.ss_sp = stack;
  c.c.uc_stack.ss_size = size;
  c.c.uc_link = nullptr;
  makecontext(&c.c, entry, 0);
}
#endif

struct Copy {
  void *to;
  const void *from;
  bool valid;
};
struct Fiber {
  Thread thread;
  Context context;
  bool done, waited;  // waited: for the kernels before an early launch
  std::vector<Copy> open;                 // not yet committed
  std::vector<std::vector<Copy>> groups;  // committed, oldest first
  std::vector<uintptr_t> unfenced;        // what was copied and is not seen by products yet
};
struct Group {  // lanes that wait for each other
  uint32_t mask = 0, arrived = 0;
  void (*f)(uint32_t, void **) = nullptr;
  void *args[32];
};
struct Warp {
  Group groups[4];
  uint32_t live = 0;
  Products products;
};
struct Barrier {
  int arrived = 0, expected = 0;
  std::vector<int> waiting;
};
struct Shared {
  char *end = nullptr;
  size_t block = 0;  // the block it was last filled for
};

uint64_t next_random(uint64_t &s) {  // splitmix64
  uint64_t z = s += 0x9e3779b97f4a7c15ull;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}

// The threads that can go on, and which of them does.
class Ready {
 public:
  void reset(int policy, int warps, uint64_t &random) {
    policy_ = policy;
    list_.clear();
    head_ = waiting_ = 0;
    memset(lanes_, 0, sizeof lanes_);
    std::pair<uint64_t, int> order[kMaxThreads / 32];
    for (int i = 0; i < kMaxThreads / 32; i++) order[i] = {next_random(random), i};
    std::sort(order, order + warps);
    for (int i = 0; i < warps; i++) warp_[i] = order[i].second, place_[order[i].second] = i;
  }
  bool empty() const { return policy_ == kWarps ? !waiting_ : list_.empty(); }
  void push_back(int fiber) {
    if (policy_ != kWarps) return list_.push_back(fiber);
    lanes_[fiber / 32] |= 1u << fiber % 32;
    waiting_ |= 1u << place_[fiber / 32];
  }
  int take(uint64_t &random) {
    if (policy_ == kAscending) {
      const int f = list_[head_++];
      if (head_ == list_.size()) list_.clear(), head_ = 0;
      return f;
    }
    if (policy_ == kWarps) {
      const int place = __builtin_ctz(waiting_), warp = warp_[place], lane = 31 - __builtin_clz(lanes_[warp]);
      if (!(lanes_[warp] &= ~(1u << lane))) waiting_ &= ~(1u << place);
      return warp * 32 + lane;
    }
    const size_t n = list_.size(), i = policy_ == kAny ? (next_random(random) >> 32) * n >> 32 : n - 1;
    const int f = list_[i];
    list_[i] = list_.back();
    list_.pop_back();
    return f;
  }
  enum { kAscending, kAny, kNewest, kWarps };  // kWarps: warp by warp, in an order of the block's own

 private:
  int policy_ = kAscending;
  std::vector<int> list_;
  size_t head_ = 0;                    // of list_, where it is ascending
  uint32_t lanes_[kMaxThreads / 32];   // of each warp, by its number
  uint32_t waiting_ = 0;               // warps, by their place in the order
  int warp_[kMaxThreads / 32], place_[kMaxThreads / 32];
};

struct Worker {
  std::vector<Fiber> fibers{kMaxThreads};
  Warp warps[kMaxThreads / 32];
  Barrier barriers[16];
  Ready ready;
  std::vector<Shared> sites;
  char *stacks = nullptr, *dynamic_end = nullptr;
  size_t dynamic = 0, statics = 0, block_number = 0;
  int running = -1, live = 0, count = 0, guarded = 0;  // guarded: stacks that end at an unreadable page
  uint64_t random = 0;
  enum { kAtTheWait, kAtOnce, kAnyTime } products = kAtTheWait;  // when products run
  bool early = false;                                            // asynchronous copies happen at once, else at the wait that covers them
  ProductMemory product_memory;
  Context main;
  const Launch *launch = nullptr;
  bool before = false;      // the kernels before have not ended
  bool allows = false;      // the kernel behind may begin
  std::vector<int> parked;  // fibers that wait for the kernels before
};
// What the running thread's block lives in.
OfThread<Worker> worker;

// A host thread.
struct Host {
  Worker own;
  sigjmp_buf escape;
  volatile bool inside = false;
  char message[512];
  int code = 0;
};
OfThread<Host> host;

[[noreturn]] void escape(int code) {
  host->code = code;
  siglongjmp(host->escape, 1);
}

// Runs some products of some warp, where the schedule has it so.
void some_products(Worker &w) {
  if (w.products != Worker::kAnyTime || next_random(w.random) % 16) return;
  Products &p = w.warps[next_random(w.random) % ((w.count + 31) / 32)].products;
  if (p.waiting()) p.run(w.product_memory, 1 + (int)(next_random(w.random) % p.waiting()));
}

// Hands over to another fiber; the caller has put itself where it will be woken.
void yield() {
  Worker &w = *worker;
  some_products(w);
  if (w.ready.empty() && w.before) {
    change(w.fibers[w.running].context, w.main);
    return;
  }
  if (w.ready.empty()) {
    int barriers = 0, lanes = 0;
    for (auto &b : w.barriers) barriers += b.waiting.size();
    for (auto &p : w.warps)
      for (auto &g : p.groups) lanes += __builtin_popcount(g.arrived);
    fail("threads wait for ever: %d at barriers, %d at warp operations, %d have returned", barriers, lanes, w.count - w.live);
  }
  const int me = w.running, other = w.ready.take(w.random);
  if (other == me) return;
  w.running = other;
  current = &w.fibers[other].thread;
  change(w.fibers[me].context, w.fibers[other].context);
}

void wake(Worker &w, std::vector<int> &fibers) {
  for (int f : fibers) w.ready.push_back(f);
  fibers.clear();
}

bool release(Worker &w, Barrier &b, int id) {
  const int expected = id == 0 ? w.live : b.expected;
  if (b.arrived == 0 || b.arrived < expected) return false;
  b.arrived = 0;
  wake(w, b.waiting);
  return true;
}

// Runs the group's function when all its live lanes have arrived.
bool complete(Worker &w, Warp &p, int warp, Group &g) {
  if (!g.arrived || g.arrived != (g.mask & p.live)) return false;
  g.f(g.mask & p.live, g.args);
  for (int i = 0; i < 32; i++)
    if (g.arrived >> i & 1) w.ready.push_back(warp * 32 + i);
  g.arrived = 0;
  return true;
}

void fiber_main() {
  Worker &w = *worker;
  w.launch->run(w.launch->arguments);
  Fiber &me = w.fibers[w.running];
  if (w.launch->early && !me.waited) fail("a thread of an early launch ends before it has waited for the kernels before");
  me.done = true;
  w.live--;
  Warp &p = w.warps[me.thread.warp];
  p.live &= ~(1u << me.thread.lane);
  if (!p.products.idle()) fail("a thread returns with products under way");
  release(w, w.barriers[0], 0);  // a thread that has returned no longer counts
  for (auto &g : p.groups) complete(w, p, me.thread.warp, g);
  if (w.live) yield();
  Context gone;
  change(gone, w.main);
}

// Every warp of a warpgroup takes part in all of its products.
void check_products(Worker &w) {
  for (int i = 0; i <= (w.count - 1) / 32; i++) {
    const int whole = w.warps[i / 4 * 4].products.count(), mine = w.warps[i].products.count();
    if (mine != whole) fail("warp %d took part in %d products and the first of its warpgroup in %d", i, mine, whole);
  }
}

// Runs a block's threads as far as they go.
void enter(Worker &w) {
  if (w.ready.empty()) return;
  worker = &w;
  w.running = w.ready.take(w.random);
  current = &w.fibers[w.running].thread;
  change(w.main, w.fibers[w.running].context);
  worker = &host->own;
}

// Runs a block; with `before`, up to where its threads wait for the kernels before.
void run_block(Worker &w, const Launch &l, int64_t number, bool before = false) {
  static std::atomic<size_t> blocks{0};
  const int n = l.block.x * l.block.y * l.block.z;
  w.block_number = ++blocks;
  w.launch = &l;
  w.count = w.live = n;
  w.before = before;
  w.allows = false;
  w.parked.clear();
  w.statics = 0;
  w.dynamic = (l.shared + 15) / 16 * 16;
  memset(w.dynamic_end - w.dynamic, 0xff, w.dynamic);
  w.product_memory.reset(w.dynamic_end - w.dynamic, w.dynamic);
  w.random = (uint64_t)settings.seed * 0x2545f4914f6cdd1dull + number;
  w.ready.reset(settings.seed == 0 ? Ready::kAscending : 1 + (settings.seed - 1) % 3, (n + 31) / 32, w.random);
  w.early = settings.seed % 5 == 3;
  w.products = settings.seed == 0 ? Worker::kAtTheWait : decltype(w.products)((settings.seed + number) % 3);
  for (auto &b : w.barriers) b.arrived = 0, b.expected = 0, b.waiting.clear();
  for (int i = 0; i <= (n - 1) / 32; i++) {
    w.warps[i].live = 0;
    for (auto &g : w.warps[i].groups) g.arrived = 0;
    w.warps[i].products.reset();
  }
  const Dim at = {(int)(number % l.grid.x), (int)(number / l.grid.x % l.grid.y), (int)(number / l.grid.x / l.grid.y)};
  for (int i = 0; i < n; i++) {
    Fiber &f = w.fibers[i];
    f.done = f.waited = false;
    f.open.clear();
    f.groups.clear();
    f.unfenced.clear();
    f.thread = {{i % l.block.x, i / l.block.x % l.block.y, i / l.block.x / l.block.y}, at, l.block, l.grid, i & 31, i / 32};
    w.warps[i / 32].live |= 1u << (i & 31);
    // Guard pages as they are needed: a process may have only so many mappings, and tests load a stand-in for each planted bug.
    if (i >= w.guarded) mprotect(w.stacks + kStack * i, page_size(), PROT_NONE), w.guarded = i + 1;
    prepare(f.context, w.stacks + kStack * i + page_size(), kStack - page_size() - i * 11 % 64 * 64, fiber_main);
    w.ready.push_back(i);
  }
  enter(w);
  if (!before) check_products(w);
}

// Lets a block go on that was run with `before`.
void resume_block(Worker &w, const Launch &l) {
  w.launch = &l;
  w.before = false;
  wake(w, w.parked);
  enter(w);
  check_products(w);
}

// The host threads.
struct Pool {
  std::mutex mutex;
  std::condition_variable begin, end;
  size_t number = 0;  // of the job
  int started = 0, busy = 0;
  const char *what = nullptr;
  bool alone = false;  // the first host thread does it
  int64_t pieces = 0, multiplier = 1, shift = 0;
  std::atomic<int64_t> next{0};
  void (*f)(void *, int64_t) = nullptr;
  void *context = nullptr;
  int code = 0;
  std::string fault;
};
Pool &pool() {
  static Pool *p = new Pool;  // its threads outlive main
  return *p;
}

struct sigaction old_segv, old_bus, old_fpe;

void on_fault(int signal, siginfo_t *info, void *context) {
  Host *w = host;
  if (w && w->inside) {
    w->inside = false;
    const Thread *t = worker->launch ? current : nullptr;
    if (signal == SIGFPE)
      snprintf(w->message, sizeof w->message, "integer division by zero");
    else
      snprintf(w->message, sizeof w->message, "illegal address 0x%lx", (unsigned long)info->si_addr);
    if (t) {
      const size_t n = strlen(w->message);
      snprintf(w->message + n, sizeof w->message - n, " by thread (%d,%d,%d) of block (%d,%d,%d)", t->tid.x, t->tid.y, t->tid.z, t->bid.x, t->bid.y, t->bid.z);
    }
    w->code = signal == SIGFPE ? kLaunchFailed : -1;  // -1: the place is described outside the handler
    *(uintptr_t *)(w->message + sizeof w->message - sizeof(uintptr_t)) = (uintptr_t)info->si_addr;
    siglongjmp(w->escape, 1);
  }
  struct sigaction &old = signal == SIGBUS ? old_bus : signal == SIGFPE ? old_fpe : old_segv;
  if (old.sa_flags & SA_SIGINFO)
    old.sa_sigaction(signal, info, context);
  else if (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN)
    sigaction(signal, &old, nullptr);  // the instruction faults again
  else
    old.sa_handler(signal);
}

void work(Host &w, Pool &p) {
  // No C++ object may live across the jump: what escapes leaves them.
  if (sigsetjmp(w.escape, 1) == 0) {
    w.inside = true;
    for (;;) {
      const int64_t i = p.next.fetch_add(1);
      if (i >= p.pieces) break;
      p.f(p.context, (int64_t)(((__int128)i * p.multiplier + p.shift) % p.pieces));
    }
    w.inside = false;
    return;
  }
  w.inside = false;
  worker = &w.own;
  p.next = p.pieces;
  std::string message = w.message;
  if (w.code == -1) {
    message += ", " + describe_address(*(uintptr_t *)(w.message + sizeof w.message - sizeof(uintptr_t)));
    w.code = kIllegalAddress;
  }
  std::lock_guard<std::mutex> lock(p.mutex);
  if (!p.code) {
    p.code = w.code;
    p.fault = std::string(p.what) + ": " + message;
  }
}

void give_stacks(Worker &w) {
  w.stacks = (char *)mmap(nullptr, kStack * kMaxThreads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  w.dynamic_end = map_guarded(kMaxDynamic);
}

// The workers of the host threads, to give their guard pages back.
struct Workers {
  std::mutex mutex;
  std::vector<Worker *> all;
};
Workers &workers() {
  static auto *w = new Workers;
  return *w;
}

void worker_main(bool first) {
  host = new Host;
  Worker *w = worker = &host->own;
  give_stacks(*w);
  {
    std::lock_guard<std::mutex> lock(workers().mutex);
    workers().all.push_back(w);
  }
  stack_t alternative = {};
  alternative.ss_size = 64 << 10;
  alternative.ss_sp = malloc(alternative.ss_size);
  sigaltstack(&alternative, nullptr);
  Pool &p = pool();
  size_t seen = 0;
  for (;;) {
    std::unique_lock<std::mutex> lock(p.mutex);
    p.begin.wait(lock, [&] { return p.number != seen; });
    seen = p.number;
    const bool mine = first || !p.alone;
    lock.unlock();
    w->launch = nullptr;
    if (mine) work(*host, p);
    lock.lock();
    if (--p.busy == 0) p.end.notify_all();
  }
}

void start(Pool &p) {
  if (p.started) return;
  struct sigaction ours = {};
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&ours.sa_mask);
  sigaction(SIGSEGV, &ours, &old_segv);
  sigaction(SIGBUS, &ours, &old_bus);
  sigaction(SIGFPE, &ours, &old_fpe);
  // The caller's runtime must not see its signals on our threads.
  sigset_t all, before;
  sigfillset(&all);
  for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&all, s);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int n = settings.threads > 0 ? settings.threads : std::min(8u, std::max(1u, std::thread::hardware_concurrency()));
  for (int i = 0; i < n; i++) std::thread(worker_main, i == 0).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  p.started = n;
}

int run_job(const char *what, int64_t pieces, void (*f)(void *, int64_t), void *context, bool shuffle, bool alone = false) {
  Pool &p = pool();
  std::unique_lock<std::mutex> lock(p.mutex);
  start(p);
  p.what = what;
  p.alone = alone;
  p.pieces = pieces;
  p.multiplier = 1;
  p.shift = 0;
  if (shuffle && settings.seed && pieces > 1) {
    uint64_t s = settings.seed + p.number;
    p.shift = next_random(s) % pieces;
    do p.multiplier = 1 + next_random(s) % (pieces - 1);
    while (std::__gcd(p.multiplier, pieces) != 1);
  }
  p.next = 0;
  p.f = f;
  p.context = context;
  p.code = 0;
  p.busy = p.started;
  p.number++;
  p.begin.notify_all();
  p.end.wait(lock, [&] { return p.busy == 0; });
  return p.code;
}

}  // namespace

void release_guards() {
  std::lock_guard<std::mutex> lock(workers().mutex);
  for (auto *w : workers().all) {
    if (w->guarded) mprotect(w->stacks, kStack * kMaxThreads, PROT_READ | PROT_WRITE);
    w->guarded = 0;
  }
}

namespace {

// Blocks that have begun early are each in a Worker of their own; these are used again. All of them run on the first host thread, since a fiber
// may keep addresses of its thread's variables.
constexpr int kEarly = 6;
std::vector<Worker *> &spare() {
  static auto *v = new std::vector<Worker *>;
  return *v;
}

}  // namespace

struct Early {
  std::vector<Worker *> blocks;
  std::vector<int64_t> numbers;
};

namespace {

struct EarlyJob {
  const Launch &launch;
  Early &early;
};

}  // namespace

int begin_early(const Launch &l, Early **early, bool *allowed) {
  static uint64_t random = 0;
  const int64_t blocks = (int64_t)l.grid.x * l.grid.y * l.grid.z;
  auto *e = *early = new Early;
  *allowed = false;
  const int64_t most = blocks <= kEarly ? blocks : kEarly;
  random += settings.seed;
  const int64_t first = next_random(random) % (blocks - most + 1);
  for (int64_t i = 0; i < most; i++) {
    if (next_random(random) % 4 == 0) continue;  // this one begins in time
    if (spare().empty()) {
      spare().push_back(new Worker);
      give_stacks(*spare().back());
      spare().back()->guarded = kMaxThreads;  // the stacks of blocks in time are guarded
    }
    e->blocks.push_back(spare().back());
    e->numbers.push_back(first + i);
    spare().pop_back();
  }
  EarlyJob job{l, *e};
  const int code = run_job(l.name, e->blocks.size(),
      [](void *c, int64_t i) {
        auto *j = (EarlyJob *)c;
        run_block(*j->early.blocks[i], j->launch, j->early.numbers[i], true);
      }, &job, false, true);
  *allowed = (int64_t)e->blocks.size() == blocks;
  for (auto *w : e->blocks) *allowed = *allowed && w->allows;
  return code;
}

int run_early(const Launch &l, Early *early) {
  EarlyJob job{l, *early};
  int code = run_job(l.name, early->blocks.size(),
      [](void *c, int64_t i) {
        auto *j = (EarlyJob *)c;
        resume_block(*j->early.blocks[i], j->launch);
      }, &job, false, true);
  if (!code)
    code = run_job(l.name, (int64_t)l.grid.x * l.grid.y * l.grid.z,
        [](void *c, int64_t i) {
          auto *j = (EarlyJob *)c;
          if (std::find(j->early.numbers.begin(), j->early.numbers.end(), i) == j->early.numbers.end()) run_block(*worker, j->launch, i);
        }, &job, true);
  spare().insert(spare().end(), early->blocks.begin(), early->blocks.end());
  delete early;
  return code;
}

void allow_next() { worker->allows = true; }

void wait_before() {
  Worker &w = *worker;
  w.fibers[w.running].waited = true;
  if (!w.before) return;
  w.parked.push_back(w.running);
  yield();
}

void fail(const char *format, ...) {
  Host &w = *host;
  va_list list;
  va_start(list, format);
  vsnprintf(w.message, sizeof w.message, format, list);
  va_end(list);
  escape(kLaunchFailed);
}

void *shared(Site *s) {
  static std::mutex mutex;
  static int last = 0;
  Worker &w = *worker;
  int id = __atomic_load_n(&s->id, __ATOMIC_ACQUIRE);
  if (!id) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!s->id) __atomic_store_n(&s->id, ++last, __ATOMIC_RELEASE);
    id = s->id;
  }
  if ((size_t)id >= w.sites.size()) w.sites.resize(id + 1);
  Shared &m = w.sites[id];
  const size_t bytes = (s->bytes + 15) / 16 * 16;
  if (m.block != w.block_number) {
    if (!m.end) m.end = map_guarded(bytes);
    m.block = w.block_number;
    w.statics += bytes;
    if (w.statics > kMaxStatic) fail("%zu bytes of static shared memory, a block may have %zu", w.statics, kMaxStatic);
    memset(m.end - bytes, 0xff, bytes);
  }
  return m.end - bytes;
}

void *dynamic_shared() { return worker->dynamic_end - worker->dynamic; }

// One more thread has arrived at a barrier; it waits there or goes on.
static void arrive(Worker &w, int id, int threads, bool waits) {
  if (id < 0 || id > 15) fail("barrier %d, expected 0 to 15", id);
  Barrier &b = w.barriers[id];
  if (id && (threads <= 0 || threads % 32 || threads > w.count)) fail("barrier %d for %d threads of %d, expected a multiple of 32", id, threads, w.count);
  if (id && b.arrived && b.expected != threads) fail("barrier %d is waited at by %d and by %d threads", id, b.expected, threads);
  b.expected = threads;
  b.arrived++;
  if (waits) b.waiting.push_back(w.running);
  release(w, b, id);
}

void barrier(int id, int threads) {
  arrive(*worker, id, threads, true);
  yield();
}

void barrier_arrive(int id, int threads) { arrive(*worker, id, threads, false); }

void collective(uint32_t mask, void *arg, void (*f)(uint32_t, void **)) {
  Worker &w = *worker;
  const Thread &t = w.fibers[w.running].thread;
  Warp &p = w.warps[t.warp];
  if (!(mask >> t.lane & 1)) fail("lane %d calls a warp operation for the lanes 0x%08x", t.lane, mask);
  Group *g = nullptr, *unused = nullptr;
  for (auto &c : p.groups) {
    if (!c.arrived) {
      unused = unused ? unused : &c;
    } else if (c.mask == mask) {
      g = &c;
    } else if (c.mask & mask) {
      fail("lanes of one warp call warp operations for 0x%08x and for 0x%08x", c.mask, mask);
    }
  }
  if (!g) {
    if (!unused) fail("more than 4 parts of a warp wait apart");
    g = unused;
    g->mask = mask;
    g->f = f;
    memset(g->args, 0, sizeof g->args);
  } else if (g->f != f) {
    fail("lanes of one warp call different warp operations");
  }
  static char nothing;
  g->arrived |= 1u << t.lane;
  g->args[t.lane] = arg ? arg : &nothing;
  complete(w, p, t.warp, *g);
  yield();
}

static void do_copy(const Copy &c) {
  if (c.valid)
    memcpy(c.to, c.from, 16);
  else
    memset(c.to, 0, 16);
}

void copy_async(void *to, const void *from, bool valid) {
  if ((uintptr_t)to % 16 || (valid && (uintptr_t)from % 16)) fail("asynchronous copy from %p to %p, expected multiples of 16", from, to);
  const Copy c = {to, from, valid};
  if (worker->early) do_copy(c);
  worker->fibers[worker->running].open.push_back(c);
}

void copy_commit() {
  Fiber &f = worker->fibers[worker->running];
  f.groups.push_back(std::move(f.open));
  f.open.clear();
}

void copy_wait(int pending) {
  Fiber &f = worker->fibers[worker->running];
  while ((int)f.groups.size() > pending) {
    for (auto &c : f.groups.front()) {
      if (!worker->early) do_copy(c);
      worker->product_memory.copied(c.to, f.unfenced);
    }
    f.groups.erase(f.groups.begin());
  }
}

void fence_async() { worker->product_memory.fence(worker->fibers[worker->running].unfenced); }

uint32_t shared_offset(uintptr_t address) { return worker->product_memory.offset(address); }

// The products of the warp that is running.
static Products &products(Worker &w) { return w.warps[w.fibers[w.running].thread.warp].products; }

void product_fence() { products(*worker).fence(); }

void product_begin(const Product &p) {
  Worker &w = *worker;
  products(w).begin(p, w.fibers[w.running].thread.warp);
  if (w.products == Worker::kAtOnce) products(w).run(w.product_memory, 1);
}

void product_commit() { products(*worker).commit(); }

void product_wait(int pending) { products(*worker).wait(worker->product_memory, pending); }

int run_blocks(const Launch &l) {
  return run_job(l.name, (int64_t)l.grid.x * l.grid.y * l.grid.z,
      [](void *c, int64_t i) { run_block(*worker, *(const Launch *)c, i); }, (void *)&l, true);
}

int run_parallel(const char *what, int64_t n, void (*f)(void *, int64_t), void *context) { return run_job(what, n, f, context, false); }

std::string last_fault() {
  std::lock_guard<std::mutex> lock(pool().mutex);
  return pool().fault;
}

void clear_fault() {
  std::lock_guard<std::mutex> lock(pool().mutex);
  pool().fault.clear();
}

}  // namespace standin
