#include "ad_cuda.h"

// Tokens drawn from the soft-max of rows of logits, so that these need not go to the host. Probabilities are whole multiples of 2^-40 of the
// most probable token's: their sums do not depend on the order, and atomic additions give the same bits always.
//
// What is left after top-k, top-p and min-p is the beginning of one order: larger logits first, of equal ones the lower token. A first reading of
// the logits finds the largest, a second counts how many are how far below it, from which follows what may belong to that beginning; a third
// brings those together, and they are sorted. Bytes moved: the logits three times, from the second-level cache but for the first.
namespace sample {

constexpr int kThreads = 1024, kBins = 1024, kSorted = 4096;
constexpr int kNothing = -1, kTooMany = -2;
constexpr float kInfinity = __builtin_huge_valf();
// Bins a factor of two of probability: the last one begins below 2^-40.
constexpr float kBinsEach = 25;

// How a row's token is drawn; cuda.Draw has the same.
struct Draw {
  float scale;     // log2 e / temperature
  float minP;      // 0: all
  int32_t topK;    // 0: all
  uint32_t topP;   // in 2^-32; 0: all
  uint64_t place;  // in 2^-64 of the probability of all that is left
};

AD_DEVICE uint64_t shuffle_up(uint64_t v, int by) {
  const uint32_t lo = ad_shuffle_up(AD_ALL, (uint32_t)v, by), hi = ad_shuffle_up(AD_ALL, (uint32_t)(v >> 32), by);
  return lo | (uint64_t)hi << 32;
}
AD_DEVICE uint64_t shuffle(uint64_t v, int lane) {
  const uint32_t lo = ad_shuffle(AD_ALL, (uint32_t)v, lane), hi = ad_shuffle(AD_ALL, (uint32_t)(v >> 32), lane);
  return lo | (uint64_t)hi << 32;
}

// The sum of v over the lanes up to this one.
AD_DEVICE uint64_t warp_through(uint64_t v) {
  const int lane = threadIdx.x % 32;
  AD_UNROLL
  for (int by = 1; by < 32; by *= 2) {
    const uint64_t below = shuffle_up(v, by);
    if (lane >= by) v += below;
  }
  return v;
}

// The sum of v over the threads before this one, and of all. partial has 32 elements of shared memory; it begins and ends with a barrier.
AD_DEVICE uint64_t block_before(uint64_t v, uint64_t *partial, uint64_t &all) {
  const uint64_t through = warp_through(v);
  __syncthreads();
  if (threadIdx.x % 32 == 31) partial[threadIdx.x / 32] = through;
  __syncthreads();
  const uint64_t warp = partial[threadIdx.x % 32], warps = warp_through(warp);
  const uint64_t before = shuffle(warps - warp, threadIdx.x / 32) + through - v;
  all = shuffle(warps, 31);
  __syncthreads();
  return before;
}

// Numbers in the order of floats, and back.
AD_DEVICE uint32_t ordered(float x) {
  const uint32_t u = __builtin_bit_cast(uint32_t, x == 0 ? 0.0f : x);
  return u >> 31 ? ~u : u | 0x80000000u;
}
AD_DEVICE float unordered(uint32_t u) { return __builtin_bit_cast(float, u >> 31 ? u & 0x7fffffffu : ~u); }

// The parts of a that are numerator/2^bits, whole.
AD_DEVICE uint64_t part32(uint64_t a, uint32_t numerator) { return (a >> 32) * numerator + ((a & 0xffffffffu) * numerator >> 32); }
AD_DEVICE uint64_t part64(uint64_t a, uint64_t numerator) { return (uint64_t)((unsigned __int128)a * numerator >> 64); }

// A row of logits, relative to the largest.
struct Row {
  const float *x;
  const uint8_t *masked;
  int vocab;
  float top, scale;

  // Token v's logit; those that are not chosen have −∞.
  AD_DEVICE float logit(int v) const {
    const int at = v < vocab ? v : vocab - 1;  // both are read always, so that no reading waits for another
    const float a = x[at];
    const bool chosen = !masked[at] && v < vocab && a == a;
    return chosen ? a : -kInfinity;
  }
  // f(token, logit) of the thread's tokens, of which some are read at once; those beyond the last have −∞.
  template <class F>
  AD_DEVICE void each(F f) const {
    constexpr int kAtOnce = 4;
    AD_ROLL
    for (int v = threadIdx.x; v < vocab; v += kAtOnce * kThreads) {
      float a[kAtOnce];
      AD_UNROLL
      for (int i = 0; i < kAtOnce; i++) a[i] = logit(v + i * kThreads);
      AD_UNROLL
      for (int i = 0; i < kAtOnce; i++) f(v + i * kThreads, a[i]);
    }
  }
  // How many times a logit's probability is halved from that of the largest.
  AD_DEVICE float halvings(float logit) const { return logit == top ? 0 : (top - logit) * scale; }
  AD_DEVICE static float relative(float halvings) { return ad_exp2(-halvings); }
  AD_DEVICE static uint64_t mass(float relative) { return (uint64_t)(relative * 0x1p40f); }
};

// The largest of v, in every thread. partial has 32 elements.
AD_DEVICE float block_max(float v, float *partial) {
  v = ad_warp_max(v);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
  AD_BUG(sample_barrier, __syncthreads(), );
  return ad_warp_max(partial[threadIdx.x % 32]);
}

// A token of all that are at least minP times as probable as the first, in the order of tokens. Warps have as many tokens each, one after the other.
AD_DEVICE void draw_any(int32_t *choice, const Row &row, const Draw &d, uint64_t *partial) {
  const int lane = threadIdx.x % 32, each = (row.vocab + kThreads - 1) / kThreads * 32, first = threadIdx.x / 32 * each;
  const int end = first + each < row.vocab ? first + each : row.vocab;
  auto mass = [&](int v) -> uint64_t {
    const float p = v < end ? Row::relative(row.halvings(row.logit(v))) : 0;
    return p >= d.minP ? Row::mass(p) : 0;
  };
  uint64_t sum = 0, all;
  for (int v = first + lane; v < end; v += 32) sum += mass(v);
  const uint64_t before = block_before(sum, partial, all), place = part64(all, d.place);
  uint64_t at = shuffle(before, 0);  // of the warp's first lane: what is before the warp's tokens
  for (int v = first; v < first + each; v += 32) {
    const uint64_t m = mass(v + lane), through = at + warp_through(m);
    if (place >= through - m && place < through) *choice = v + lane;
    at = shuffle(through, 31);
  }
}

// Sorts n numbers in shared memory, the smallest first; n is a power of two.
AD_DEVICE void sort(uint64_t *x, int n) {
  for (int k = 2; k <= n; k *= 2)
    for (int j = k / 2; j; j /= 2) {
      for (int i = threadIdx.x; i < n / 2; i += kThreads) {
        const int lo = i / j * 2 * j + i % j, hi = lo + j;
        const uint64_t a = x[lo], b = x[hi];
        if ((a > b) == !(lo & k)) x[lo] = b, x[hi] = a;
      }
      AD_BUG(sample_sort_barrier, __syncthreads(), );
    }
}

// A token of the first ones in the order of logits, as many as topK, topP and minP leave.
AD_DEVICE void draw_first(int32_t *choice, const Row &row, const Draw &d, uint64_t *partial) {
  AD_SHARED(int32_t, bins, kBins);
  AD_SHARED(uint64_t, found, kSorted);
  AD_SHARED(int32_t, count, 2);  // of found; the last bin that is needed
  static_assert(kBins == kThreads, "a thread has a bin");
  bins[threadIdx.x] = 0;
  if (threadIdx.x == 0) count[0] = 0, count[1] = kBins - 1;
  __syncthreads();
  auto bin = [&](float halvings) {
    const float b = halvings * kBinsEach;
    return b < kBins - 1 ? (int)b : kBins - 1;
  };
  uint64_t sum = 0, all, counted;
  row.each([&](int, float a) {
    const float h = row.halvings(a);
    const uint64_t m = Row::mass(Row::relative(h));
    if (m) atomicAdd(&bins[bin(h)], 1), sum += m;
  });
  block_before(sum, partial, all);
  // Bins up to one are enough when they have topK tokens, or certainly topP's part: no token of a bin has less than its bound, less what
  // rounding may be.
  const uint64_t n = bins[threadIdx.x], least = n * Row::mass(0.999f * Row::relative((threadIdx.x + 1) / kBinsEach));
  const uint64_t before = block_before(n, partial, counted);
  uint64_t most;
  const uint64_t massBefore = block_before(least, partial, most);
  bool last;
  if (d.topK) {
    last = before < (uint64_t)d.topK && before + n >= (uint64_t)d.topK;
  } else {
    const uint64_t wanted = part32(all, d.topP) + 1;
    last = massBefore < wanted && massBefore + least >= wanted;
  }
  if (last) count[1] = threadIdx.x;
  __syncthreads();
  const int needed = count[1];
  row.each([&](int v, float a) {
    const float h = row.halvings(a);
    if (!Row::mass(Row::relative(h)) || bin(h) > needed) return;
    const int at = atomicAdd(&count[0], 1);
    if (at < kSorted) found[at] = (uint64_t)~ordered(a) << 32 | (uint32_t)v;
  });
  __syncthreads();
  const int tokens = count[0];
  if (tokens > kSorted) {
    if (threadIdx.x == 0) *choice = kTooMany;
    return;
  }
  int size = 1;
  while (size < tokens) size *= 2;
  for (int i = tokens + threadIdx.x; i < size; i += kThreads) found[i] = ~(uint64_t)0;
  __syncthreads();
  sort(found, size);

  constexpr int kEach = kSorted / kThreads;
  uint64_t mass[kEach];
  float relative[kEach];
  sum = 0;
  AD_UNROLL
  for (int i = 0; i < kEach; i++) {
    const int at = threadIdx.x * kEach + i;
    relative[i] = at < tokens ? Row::relative(row.halvings(unordered(~(uint32_t)(found[at] >> 32)))) : 0;
    mass[i] = at < tokens && (!d.topK || at < d.topK) ? Row::mass(relative[i]) : 0;
    sum += mass[i];
  }
  uint64_t of, at = block_before(sum, partial, of);
  const uint64_t enough = d.topP ? part32(d.topK ? of : all, d.topP) : ~(uint64_t)0;
  sum = 0;
  AD_UNROLL
  for (int i = 0; i < kEach; i++) {
    if ((d.topP && at > 0 && at >= enough) || !(relative[i] >= d.minP)) mass[i] = 0;
    at += mass[i];
    sum += mass[i];
  }
  at = block_before(sum, partial, of);
  const uint64_t place = part64(of, d.place);
  AD_UNROLL
  for (int i = 0; i < kEach; i++) {
    if (place >= at && place - at < mass[i]) *choice = (int32_t)found[threadIdx.x * kEach + i];
    at += mass[i];
  }
}

// choices [gridDim.x] = a token of each row's first `vocab` logits, drawn as draws [gridDim.x] say; −1 where none is above −∞, −2 where more than 4096
// tokens may be left by topK or topP. Tokens that are masked and NaNs are never chosen. logits [gridDim.x,stride], masked [vocab]. A block has a row.
AD_DEVICE void sample(int32_t *choices, const float *logits, const uint8_t *masked, const Draw *draws, int32_t vocab, int32_t stride) {
  AD_SHARED(float, tops, kThreads / 32);
  AD_SHARED(uint64_t, partial, kThreads / 32);
  const Draw d = draws[blockIdx.x];
  Row row{logits + (int64_t)blockIdx.x * stride, masked, vocab, -kInfinity, d.scale};
  float top = -kInfinity;
  row.each([&](int, float a) { top = ad_max(top, a); });
  row.top = block_max(top, tops);
  if (row.top == -kInfinity) {
    if (threadIdx.x == 0) choices[blockIdx.x] = kNothing;
  } else if (d.topK || d.topP) {
    draw_first(choices + blockIdx.x, row, d, partial);
  } else {
    draw_any(choices + blockIdx.x, row, d, partial);
  }
}

}  // namespace sample

AD_KERNEL(sample_f32, (int32_t *choices, const float *logits, const uint8_t *masked, const sample::Draw *draws, int32_t vocab, int32_t stride), 1024) {
  sample::sample(choices, logits, masked, draws, vocab, stride);
}
