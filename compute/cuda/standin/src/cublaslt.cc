// A libcublasLt.so: plain loops with the epilogues' semantics of NVIDIA's documentation, column-major as there. Refuses what the library
// refuses and what its documentation leaves undefined.
#include <algorithm>
#include <memory>
#include <vector>

#include "driver.h"

namespace {

enum { kOK = 0, kInvalid = 7, kExecution = 13, kNotSupported = 15 };
enum { kF32 = 0, kF16 = 2, kBF16 = 14 };
enum { kDefault = 1, kBias = 4, kGrad = 16, kGELU = 32, kDGELU = 64, kAux = 128, kBGradA = 256, kBGradB = 512 };

struct Desc {
  int compute = 68, scale = 0, pointer_mode = 0, op[2] = {0, 0};
  uint32_t epilogue = kDefault;
  void *bias = nullptr, *aux = nullptr;
  int64_t aux_ld = 0;
  int32_t bias_type = -1, aux_type = -1;
};
struct Layout {
  uint32_t type;
  uint64_t rows, cols;
  int64_t ld;
  int32_t order = 0, batch = 1;
  int64_t stride = 0;
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t alignment[4] = {256, 256, 256, 256};
};
struct Algo {
  uint64_t magic, shape, workspace, alignment, epilogue, rest[3];  // alignments of matrices and of the epilogue's addresses
};
struct Result {
  Algo algo;
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Algo) == 64 && sizeof(Result) == 96);

float load(const void *p, uint32_t type, int64_t i) {
  switch (type) {
    case kF32: return ((const float *)p)[i];
    case kF16: return ad_float(((const f16 *)p)[i]);
    default: return ad_float(((const bf16 *)p)[i]);
  }
}
void store(void *p, uint32_t type, int64_t i, float v) {
  switch (type) {
    case kF32: ((float *)p)[i] = v; break;
    case kF16: ((f16 *)p)[i] = ad_cast<f16>(v); break;
    default: ((bf16 *)p)[i] = ad_cast<bf16>(v);
  }
}
// float32 as the tensor cores' TF32 sees it: 10 bits of mantissa.
float tf32(float x) { return __builtin_bit_cast(float, (__builtin_bit_cast(uint32_t, x) + 0xfff + (__builtin_bit_cast(uint32_t, x) >> 13 & 1)) & ~0x1fffu); }

float gelu(float x) { return 0.5f * x * (1 + std::tanh(0.797884561f * (x + 0.044715f * x * x * x))); }
float gelu_slope(float x) {
  const float c = 0.797884561f, t = std::tanh(c * (x + 0.044715f * x * x * x));
  return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * c * (1 + 3 * 0.044715f * x * x);
}

struct Product {
  Desc d;
  Layout a, b, c, out;
  float alpha, beta;
  const void *A, *B, *C;
  void *D;
  int64_t m, n, k;
};

uint64_t mix(uint64_t h, uint64_t v) { return (h ^ v) * 0x9e3779b97f4a7c15ull + (h >> 29); }
uint64_t shape_of(const Desc &d, const Layout &a, const Layout &b, const Layout &c, const Layout &out) {
  uint64_t h = mix(d.compute * 4 + d.op[0] * 2 + d.op[1], d.epilogue);
  for (const Layout *l : {&a, &b, &c, &out})
    for (uint64_t v : {(uint64_t)l->type, l->rows, l->cols, (uint64_t)l->ld, (uint64_t)l->batch, (uint64_t)l->stride}) h = mix(h, v);
  return h;
}

int check(const Desc &d, const Layout &a, const Layout &b, const Layout &c, const Layout &out, int64_t *m, int64_t *n, int64_t *k) {
  *m = out.rows, *n = out.cols, *k = d.op[0] ? a.rows : a.cols;
  if ((int64_t)(d.op[0] ? a.cols : a.rows) != *m || (int64_t)(d.op[1] ? b.rows : b.cols) != *n || (int64_t)(d.op[1] ? b.cols : b.rows) != *k) return kInvalid;
  if (c.rows != out.rows || c.cols != out.cols || c.type != out.type || c.batch != out.batch) return kInvalid;
  if (a.type != b.type || (out.type != a.type && out.type != kF32)) return kNotSupported;
  if ((a.type == kBF16 || out.type == kBF16) && standin_capability() < 80) return kNotSupported;
  for (const Layout *l : {&a, &b, &c, &out})
    if (l->ld < (int64_t)l->rows || l->order != 0 || l->batch != out.batch) return kInvalid;
  if ((d.compute != 68 && d.compute != 69 && d.compute != 77) || (d.compute == 77 && a.type != kF32) || d.scale != kF32 || d.pointer_mode != 0) return kNotSupported;
  const uint32_t e = d.epilogue;
  if (e & ~standin_epilogues()) return kNotSupported;
  switch (e) {
    case kDefault: case kBias: case kGELU: case kGELU | kBias: case kGELU | kAux: case kGELU | kAux | kBias:
    case kDGELU | kAux: case kDGELU | kAux | kGrad: break;
    case kBGradA: if (d.op[0] != 0) return kNotSupported; break;
    case kBGradB: if (d.op[1] != 1) return kNotSupported; break;
    default: return kNotSupported;
  }
  if (e != kDefault && e & (kBias | kGrad | kBGradA | kBGradB) && out.batch != 1) return kNotSupported;
  if (e & kAux && (d.aux_ld < *m || d.aux_ld % 8)) return kInvalid;
  for (int32_t type : {d.bias_type, d.aux_type})
    if (type >= 0 && (uint32_t)type != out.type) return kNotSupported;
  return kOK;
}

// Alignment of the epilogue's addresses, of which kernels ask no more than they had when the algorithm was asked for.
uint64_t epilogue_alignment(const Desc &d) {
  const uint64_t bits = (uint64_t)d.bias | (uint64_t)d.aux | 256;
  return bits & -bits;
}

void column(const Product &p, int64_t batch, int64_t j, const float *a) {
  std::vector<float> sum(p.m, 0.0f);
  const bool rounded = p.d.compute == 77;
  for (int64_t l = 0; l < p.k; l++) {
    float b = load(p.B, p.b.type, batch * p.b.stride + (p.d.op[1] ? l * p.b.ld + j : j * p.b.ld + l));
    if (rounded) b = tf32(b);
    const float *row = a + l * p.m;
    for (int64_t i = 0; i < p.m; i++) sum[i] += row[i] * b;
  }
  const uint32_t e = p.d.epilogue, bias_type = p.d.bias_type < 0 ? p.out.type : p.d.bias_type, aux_type = p.d.aux_type < 0 ? p.out.type : p.d.aux_type;
  for (int64_t i = 0; i < p.m; i++) {
    float v = p.alpha * sum[i];
    if (p.beta != 0) v += p.beta * load(p.C, p.c.type, batch * p.c.stride + j * p.c.ld + i);
    if (e != kDefault && e & kBias) v += load(p.d.bias, bias_type, i);
    if (e & kGELU) {
      if (e & kAux) store(p.d.aux, aux_type, j * p.d.aux_ld + i, v);
      v = gelu(v);
    }
    if (e & kDGELU) v *= gelu_slope(load(p.d.aux, aux_type, j * p.d.aux_ld + i));
    store(p.D, p.out.type, batch * p.out.stride + j * p.out.ld + i, v);
  }
}

int run(const Product &p) {
  for (int64_t batch = 0; batch < p.out.batch; batch++) {
    struct Batch {
      const Product &p;
      int64_t number;
      std::vector<float> a;  // op(A), k rows of m
    } job{p, batch, std::vector<float>(p.m * p.k)};
    int e = standin_parallel("cublasLtMatmul", p.k, [](void *c, int64_t l) {
      auto &j = *(Batch *)c;
      const Product &p = j.p;
      for (int64_t i = 0; i < p.m; i++) {
        float v = load(p.A, p.a.type, j.number * p.a.stride + (p.d.op[0] ? i * p.a.ld + l : l * p.a.ld + i));
        j.a[l * p.m + i] = p.d.compute == 77 ? tf32(v) : v;
      }
    }, &job);
    if (e) return e;
    e = standin_parallel("cublasLtMatmul", p.n, [](void *c, int64_t j) { column(((Batch *)c)->p, ((Batch *)c)->number, j, ((Batch *)c)->a.data()); }, &job);
    if (e) return e;
  }
  // Bias gradients: of D's rows after the epilogue, of op(A)'s rows, of op(B)'s columns. alpha does not scale them.
  const uint32_t e = p.d.epilogue;
  if (e == kDefault || !(e & (kGrad | kBGradA | kBGradB))) return 0;
  return standin_parallel("cublasLtMatmul bias gradient", e & kBGradB ? p.n : p.m, [](void *c, int64_t i) {
    const Product &p = *(const Product *)c;
    const uint32_t e = p.d.epilogue, type = p.d.bias_type < 0 ? p.out.type : p.d.bias_type;
    float sum = 0;
    if (e & kBGradB)
      for (int64_t l = 0; l < p.k; l++) sum += load(p.B, p.b.type, l * p.b.ld + i);
    else if (e & kBGradA)
      for (int64_t l = 0; l < p.k; l++) sum += load(p.A, p.a.type, l * p.a.ld + i);
    else
      for (int64_t j = 0; j < p.n; j++) sum += load(p.D, p.out.type, j * p.out.ld + i);
    store(p.d.bias, type, i, sum);
  }, (void *)&p);
}

}  // namespace

#define API(...) STANDIN_EXPORT int __VA_ARGS__

API(cublasLtCreate(void **h)) {
  *h = new int(0x17);
  return kOK;
}
API(cublasLtDestroy(void *h)) {
  delete (int *)h;
  return kOK;
}
STANDIN_EXPORT size_t cublasLtGetVersion() { return standin_blas(); }
STANDIN_EXPORT const char *cublasLtGetStatusName(int s) {
  switch (s) {
    case kOK: return "CUBLAS_STATUS_SUCCESS";
    case kInvalid: return "CUBLAS_STATUS_INVALID_VALUE";
    case kExecution: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case kNotSupported: return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "CUBLAS_STATUS_UNKNOWN";
}
STANDIN_EXPORT const char *cublasLtGetStatusString(int s) { return s == kNotSupported ? "the functionality is not supported" : s == kInvalid ? "an invalid value" : "the stand-in failed"; }

API(cublasLtMatmulDescCreate(void **d, int compute, int scale)) {
  auto *n = new Desc;
  n->compute = compute;
  n->scale = scale;
  *d = n;
  return kOK;
}
API(cublasLtMatmulDescDestroy(void *d)) {
  delete (Desc *)d;
  return kOK;
}
API(cublasLtMatmulDescSetAttribute(void *desc, int attribute, const void *v, size_t n)) {
  Desc *d = (Desc *)desc;
  struct {
    int attribute;
    void *to;
    size_t size;
  } fields[] = {{0, &d->compute, 4}, {1, &d->scale, 4}, {2, &d->pointer_mode, 4}, {3, &d->op[0], 4}, {4, &d->op[1], 4}, {7, &d->epilogue, 4},
      {8, &d->bias, 8}, {11, &d->aux, 8}, {12, &d->aux_ld, 8}, {22, &d->aux_type, 4}, {26, &d->bias_type, 4}};
  for (auto &f : fields)
    if (f.attribute == attribute) {
      if (n != f.size) return kInvalid;
      memcpy(f.to, v, n);
      return kOK;
    }
  return kInvalid;
}
API(cublasLtMatrixLayoutCreate(void **l, int type, uint64_t rows, uint64_t cols, int64_t ld)) {
  if (type != kF32 && type != kF16 && type != kBF16) return kNotSupported;
  *l = new Layout{(uint32_t)type, rows, cols, ld};
  return kOK;
}
API(cublasLtMatrixLayoutDestroy(void *l)) {
  delete (Layout *)l;
  return kOK;
}
API(cublasLtMatrixLayoutSetAttribute(void *layout, int attribute, const void *v, size_t n)) {
  Layout *l = (Layout *)layout;
  if (attribute == 5 && n == 4) return memcpy(&l->batch, v, 4), kOK;
  if (attribute == 6 && n == 8) return memcpy(&l->stride, v, 8), kOK;
  return kInvalid;
}
API(cublasLtMatmulPreferenceCreate(void **p)) {
  *p = new Preference;
  return kOK;
}
API(cublasLtMatmulPreferenceDestroy(void *p)) {
  delete (Preference *)p;
  return kOK;
}
API(cublasLtMatmulPreferenceSetAttribute(void *preference, int attribute, const void *v, size_t n)) {
  Preference *p = (Preference *)preference;
  if (attribute == 1 && n == 8) return memcpy(&p->workspace, v, 8), kOK;
  if (attribute >= 5 && attribute <= 8 && n == 4) return memcpy(&p->alignment[attribute - 5], v, 4), kOK;
  return kInvalid;
}
API(cublasLtMatmulAlgoGetHeuristic(void *, void *desc, void *a, void *b, void *c, void *d, void *preference, int wanted, Result *results, int *found)) {
  *found = 0;
  const Preference &p = *(Preference *)preference;
  int64_t m, n, k;
  if (int e = check(*(Desc *)desc, *(Layout *)a, *(Layout *)b, *(Layout *)c, *(Layout *)d, &m, &n, &k)) return e;
  if (wanted < 1) return kInvalid;
  Result r = {};
  r.workspace = std::min<uint64_t>(p.workspace, standin_workspace());
  r.algo = {0xad17, shape_of(*(Desc *)desc, *(Layout *)a, *(Layout *)b, *(Layout *)c, *(Layout *)d), r.workspace, 1, epilogue_alignment(*(Desc *)desc), {}};
  for (uint32_t x : p.alignment) r.algo.alignment = std::max<uint64_t>(r.algo.alignment, x);
  results[0] = r;
  *found = 1;
  if (wanted > 1) { // another algorithm, without workspace
    r.workspace = r.algo.workspace = 0;
    results[1] = r;
    *found = 2;
  }
  return kOK;
}
API(cublasLtMatmul(void *handle, void *desc, const float *alpha, const void *A, void *la, const void *B, void *lb, const float *beta, const void *C, void *lc, void *D, void *ld, const Algo *algo, void *workspace, size_t workspace_size, void *stream)) {
  auto p = std::make_shared<Product>(Product{*(Desc *)desc, *(Layout *)la, *(Layout *)lb, *(Layout *)lc, *(Layout *)ld, *alpha, *beta, A, B, C, D, 0, 0, 0});
  if (!handle || *(int *)handle != 0x17) return kInvalid;
  if (int e = check(p->d, p->a, p->b, p->c, p->out, &p->m, &p->n, &p->k)) return e;
  // The algorithm must be one that was found for this product, and get what it asked for.
  if (!algo || algo->magic != 0xad17 || algo->shape != shape_of(p->d, p->a, p->b, p->c, p->out)) return kInvalid;
  if (workspace_size < algo->workspace || (algo->workspace && (!workspace || (uintptr_t)workspace % 256))) return kInvalid;
  for (const void *x : {A, B, C, (const void *)D})
    if ((uintptr_t)x % std::min<uint64_t>(algo->alignment, 16)) return kInvalid;
  const uint32_t e = p->d.epilogue;
  if ((e != kDefault && e & (kBias | kGrad | kBGradA | kBGradB) && !p->d.bias) || (e & kAux && !p->d.aux)) return kInvalid;
  if (epilogue_alignment(p->d) < algo->epilogue) return kInvalid;
  if (C == D && (p->c.ld != p->out.ld)) return kInvalid;
  const size_t used = algo->workspace;
  return standin_enqueue(stream, "cublasLtMatmul", [=] {
    // What is in the workspace afterwards is undefined.
    if (used >= 4096)
      if (int e = standin_parallel("cublasLtMatmul workspace", 1, [](void *w, int64_t n) { memset(w, 0xff, 4096 * (n + 1)); }, workspace)) return e;
    return run(*p);
  }) ? kExecution : kOK;
}
