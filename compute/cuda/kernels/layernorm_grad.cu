#include "ad_cuda.h"

// The gradients of LayerNorm. With x̂ = (x − mean)·rstd and g = dy·gain, for each row
//
//	dx = base + rstd·(g − Σg/width − x̂·Σ(g·x̂)/width)
//
// and over the rows dgain = Σ dy·x̂, dbias = Σ dy, of which each block writes a part: dgain and dbias are [blocks,width], to be added up by
// column_sums_add. dx, dgain, dbias and base may be null (gain too, without dx); dx may be dy's or base's memory. Statistics are
// computed again from x, as LayerNorm does.
//
// Bytes moved: dy, x, base and dx once each, the gain from cache, and the parts.

// Sums over the `team` threads (a power of two, a full warp or more) of a row, in each of them with the same bits. partial has M floats
// per warp of the block and must not be that of the sums before or of those after: one barrier is enough then.
template <int M>
AD_DEVICE void team_sums(float *v, float *partial, int team) {
  AD_UNROLL
  for (int i = 0; i < M; i++) v[i] = ad_warp_sum(v[i]);
  if (team == 32) return;
  const int warp = threadIdx.x / 32, first = threadIdx.x / team * (team / 32);
  AD_UNROLL
  for (int i = 0; i < M; i++) {
    if (threadIdx.x % 32 == 0) partial[warp * M + i] = v[i];
    v[i] = 0;
  }
  AD_BUG(layernorm_grad_barrier, __syncthreads(), );
  for (int w = 0; w < team / 32; w++)
    AD_UNROLL
    for (int i = 0; i < M; i++) v[i] += partial[(first + w) * M + i];
}

// Rows whose width is a multiple of a vector and at most K vectors for each thread of a team, which are kept in registers. Teams take
// rows in turn; where registers suffice, the next row is under way while one is worked on. The sums over rows are in shared memory.
template <int K, class T>
AD_DEVICE void layernorm_grad(T *dx, float *dgain, float *dbias, const T *dy, const T *x, const T *gain, const T *base, int32_t rows, int32_t width, int32_t team, float epsilon) {
  constexpr int N = ad_vector<T>::n;
  AD_SHARED(float, partial, 4 * 8);
  AD_DYNAMIC_SHARED(float, columns);  // [teams,2,width], if sums are wanted
  const int lane = threadIdx.x % team, own = threadIdx.x / team, teams = blockDim.x / team;
  const int32_t step = gridDim.x * teams;
  const float share = 1.0f / width;
  const bool summed = dgain || dbias;
  float *mine = columns + own * 2 * width;  // a thread only touches its own columns until the end
  if (summed)
    for (int i = lane * N; i < width; i += team * N)
      AD_UNROLL
      for (int j = 0; j < N; j++) mine[i + j] = mine[width + i + j] = 0;

  constexpr bool ahead = K == 1;
  ad_vector<T> vx[K], vdy[K], nextX[K], nextDY[K];
  auto load = [&](int32_t row, ad_vector<T> *tx, ad_vector<T> *tdy) {
    AD_UNROLL
    for (int k = 0; k < K; k++) {
      const int column = (k * team + lane) * N;
      if (row < rows && column < width) {
        tx[k] = ad_load(x + (int64_t)row * width + column);
        tdy[k] = ad_load(dy + (int64_t)row * width + column);
      } else {
        tx[k] = tdy[k] = __builtin_bit_cast(ad_vector<T>, ad_u4{0, 0, 0, 0});
      }
    }
  };
  if constexpr (ahead) load(blockIdx.x * teams + own, nextX, nextDY);
  for (int32_t first = blockIdx.x * teams; first < rows; first += step) {
    const int32_t row = first + own;
    if constexpr (ahead) {
      AD_UNROLL
      for (int k = 0; k < K; k++) vx[k] = nextX[k], vdy[k] = nextDY[k];
      load(row + step, nextX, nextDY);
    } else {
      load(row, vx, vdy);
    }
    float h[K * N], d[K * N];  // x, then x̂; dy
    float sum = 0;
    AD_UNROLL
    for (int k = 0; k < K; k++)
      AD_UNROLL
      for (int i = 0; i < N; i++) {
        h[k * N + i] = vx[k][i];
        d[k * N + i] = vdy[k][i];
        sum += h[k * N + i];
      }
    team_sums<1>(&sum, partial, team);
    const float mean = sum * share;
    float squares = 0;
    AD_UNROLL
    for (int k = 0; k < K; k++) {
      const bool inside = (k * team + lane) * N < width;
      AD_UNROLL
      for (int i = 0; i < N; i++) {
        h[k * N + i] = inside ? h[k * N + i] - mean : 0.0f;
        squares = ad_fma(h[k * N + i], h[k * N + i], squares);
      }
    }
    team_sums<1>(&squares, partial + 8, team);
    const float rstd = ad_rsqrt(squares * share + epsilon);
    AD_UNROLL
    for (int i = 0; i < K * N; i++) h[i] *= rstd;
    if (summed)
      AD_UNROLL
      for (int k = 0; k < K; k++) {
        const int column = (k * team + lane) * N;
        if (column >= width) continue;
        AD_UNROLL
        for (int i = 0; i < N; i += 4) {
          float *to = mine + column + i;
          ad_vector<float> g = ad_load(to), b = ad_load(to + width);
          AD_UNROLL
          for (int j = 0; j < 4; j++) {
            g.e[j] = ad_fma(d[k * N + i + j], h[k * N + i + j], g.e[j]);
            b.e[j] += d[k * N + i + j];
          }
          ad_store(to, g);
          ad_store(to + width, b);
        }
      }
    if (!dx) continue;  // the same for all threads
    float sums[2] = {0, 0};  // of g and of g·x̂
    AD_UNROLL
    for (int k = 0; k < K; k++) {
      const int column = (k * team + lane) * N;
      if (column >= width) continue;
      const ad_vector<T> w = ad_load(gain + column);
      AD_UNROLL
      for (int i = 0; i < N; i++) {
        d[k * N + i] *= w[i];
        sums[0] += d[k * N + i];
        sums[1] = ad_fma(d[k * N + i], h[k * N + i], sums[1]);
      }
    }
    team_sums<2>(sums, partial + 16, team);
    const float meanG = sums[0] * share, meanDot = sums[1] * share;
    AD_UNROLL
    for (int k = 0; k < K; k++) {
      const int column = (k * team + lane) * N;
      if (row >= rows || column >= width) continue;
      const int64_t at = (int64_t)row * width + column;
      const ad_vector<T> b = base ? ad_load(base + at) : __builtin_bit_cast(ad_vector<T>, ad_u4{0, 0, 0, 0});
      ad_vector<T> r;
      AD_UNROLL
      for (int i = 0; i < N; i++) r.e[i] = ad_cast<T>(b[i] + rstd * (d[k * N + i] - meanG - h[k * N + i] * meanDot));
      ad_store(dx + at, r);
    }
  }

  // The teams' sums are added in their order.
  if (!summed) return;
  AD_BUG(layernorm_grad_teams, __syncthreads(), );
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float g = 0, b = 0;
    for (int t = 0; t < teams; t++) {
      g += columns[t * 2 * width + i];
      b += columns[(t * 2 + 1) * width + i];
    }
    if (dgain) dgain[(int64_t)blockIdx.x * width + i] = g;
    if (dbias) dbias[(int64_t)blockIdx.x * width + i] = b;
  }
}

// Rows of any width: a block a row, which is read again from cache for each sum. Shared memory holds the sums over the block's rows; a
// thread only touches its own columns.
template <class T>
AD_DEVICE void layernorm_grad_any(T *dx, float *dgain, float *dbias, const T *dy, const T *x, const T *gain, const T *base, int32_t rows, int32_t width, float epsilon) {
  AD_SHARED(float, partial, 32);
  AD_DYNAMIC_SHARED(float, columns);  // [2,width]
  for (int i = threadIdx.x; i < width; i += blockDim.x) columns[i] = columns[width + i] = 0;
  for (int32_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t at = (int64_t)row * width;
    float sum = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) sum += ad_float(x[at + i]);
    const float mean = ad_block_sum(sum, partial) / width;
    float squares = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
      const float d = ad_float(x[at + i]) - mean;
      squares = ad_fma(d, d, squares);
    }
    const float rstd = ad_rsqrt(ad_block_sum(squares, partial) / width + epsilon);
    float sumG = 0, dot = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
      const float d = ad_float(dy[at + i]), h = (ad_float(x[at + i]) - mean) * rstd, g = dx ? d * ad_float(gain[i]) : 0.0f;
      sumG += g;
      dot = ad_fma(g, h, dot);
      columns[i] = ad_fma(d, h, columns[i]);
      columns[width + i] += d;
    }
    if (!dx) continue;
    sumG = ad_block_sum(sumG, partial) / width;
    dot = ad_block_sum(dot, partial) / width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
      const float g = ad_float(dy[at + i]) * ad_float(gain[i]), h = (ad_float(x[at + i]) - mean) * rstd, b = base ? ad_float(base[at + i]) : 0.0f;
      dx[at + i] = ad_cast<T>(b + rstd * (g - sumG - h * dot));
    }
  }
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    if (dgain) dgain[(int64_t)blockIdx.x * width + i] = columns[i];
    if (dbias) dbias[(int64_t)blockIdx.x * width + i] = columns[width + i];
  }
}

#define VECTORS(K, S, T, threads, blocks)                                                                                                            \
  AD_KERNEL_OCCUPANCY(layernorm_grad##K##_##S, (T * dx, float *dgain, float *dbias, const T *dy, const T *x, const T *gain, const T *base, int32_t rows, \
      int32_t width, int32_t team, float epsilon), threads, blocks) {                                                                                \
    layernorm_grad<K>(dx, dgain, dbias, dy, x, gain, base, rows, width, team, epsilon);                                                      \
  }
#define KERNEL(S, T)                                                                                                                         \
  VECTORS(1, S, T, 256, 2)                                                                                                                      \
  VECTORS(2, S, T, 256, 1)                                                                                                                      \
  AD_KERNEL(layernorm_grad_any_##S, (T * dx, float *dgain, float *dbias, const T *dy, const T *x, const T *gain, const T *base, int32_t rows, \
      int32_t width, float epsilon), 256) {                                                                                                  \
    layernorm_grad_any(dx, dgain, dbias, dy, x, gain, base, rows, width, epsilon);                                                           \
  }
AD_STORES(KERNEL)
VECTORS(4, f32, float, 256, 1)
