// Runs blocks of threads, and other work that touches device memory, on host threads whose faults become errors.
#pragma once
#include <pthread.h>

#include <cstdint>
#include <string>

#include "standin.h"

namespace standin {

// What the tests may set, by name through standin_set or as AUTODEV_STANDIN_<NAME> in the environment when the library is loaded.
struct Settings {
  long seed = 0;              // order of fibers, blocks and of deferred work; 0: ascending
  long threads = 0;           // host threads that run blocks; 0: as many as there are processors, at most 8
  long memory = 4L << 30;     // bytes of device memory
  long capability = 90;       // compute capability times 10
  long driver = 13000;        // what cuDriverGetVersion returns
  long devices = 1;           // how many devices there are
  long lose_after = 0;        // the device is lost at this launch, counted from 1; 0: never
  long lose_code = 719;       // the error it is lost with
  long blas = 0;              // the version that libcublasLt says it has; 0: the last that knows the device and the driver
  long epilogues = -1;        // the bits of cublasLtEpilogue_t that libcublasLt has
  long workspace = 1 << 20;   // bytes that the products of libcublasLt ask for, where they may
};
extern Settings settings;

struct Launch {
  void (*run)(void **);
  void **arguments;
  Dim grid, block;
  size_t shared;
  const char *name;
  bool early = false;  // blocks may begin before what was launched before has ended
};

// Blocks of an early launch that have begun, as far as they could before the kernels before them.
// A pointer of each host thread. thread_local variables take of the memory whose places are fixed when a library is loaded, of which a process has few
// bytes for all stand-ins that tests load: only the running fiber is one.
template <class T>
class OfThread {
  pthread_key_t key_;

 public:
  OfThread() { pthread_key_create(&key_, nullptr); }
  operator T *() const { return (T *)pthread_getspecific(key_); }
  T *operator->() const { return *this; }
  T *operator=(T *p) {
    pthread_setspecific(key_, p);
    return p;
  }
};

struct Early;

// All return 0 or the driver's error code; what failed is in last_fault().
int run_blocks(const Launch &);
// Takes the guard pages from stacks that are not in use: a process may have only so many mappings, and tests load many stand-ins.
void release_guards();
// Lets some blocks of an early launch begin, at random; run_early lets them go on and runs the others. allowed says whether the launch behind it may
// begin too: every block has begun and allows it.
int begin_early(const Launch &, Early **, bool *allowed);
int run_early(const Launch &, Early *);
// Calls f(context, i) for i in 0..n on the host threads.
int run_parallel(const char *what, int64_t n, void (*f)(void *context, int64_t i), void *context);

std::string last_fault();
void clear_fault();
// Where an address lies, for people: in or beside which allocation. Defined by the driver.
std::string describe_address(uintptr_t);

}  // namespace standin
