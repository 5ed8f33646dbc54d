#include "products.h"

namespace standin {

namespace {

// Bits of a descriptor (ad_warpgroup.h).
uint32_t field(uint64_t descriptor, int bit) { return (uint32_t)(descriptor >> bit & 0x3fff) << 4; }

// Where the element `at` bytes along a row of an operand's panel lies: rows are 128 bytes, eight rows a stride apart from the next.
uint32_t place(uint64_t descriptor, uint32_t panel, int row, int at) {
  const uint32_t a = field(descriptor, 0) + panel + row / 8 * field(descriptor, 32) + row % 8 * 128 + at;
  return a ^ (a >> 7 & 7) << 4;
}

void check(uint64_t descriptor) {
  if (descriptor >> 62 != 1 || descriptor >> 49 & 7) fail("wgmma: descriptor 0x%016lx, expected 128-byte swizzling without a base offset", (unsigned long)descriptor);
  if (field(descriptor, 0) & 0x380) fail("wgmma: an operand begins at 0x%x in shared memory, in the middle of eight rows", field(descriptor, 0));
}

}  // namespace

void ProductMemory::reset(char *begin, size_t bytes) {
  begin_ = begin;
  bytes_ = bytes;
  unseen_.assign(bytes / 16, 0);
}

void ProductMemory::copied(const void *to, std::vector<uintptr_t> &unfenced) {
  const size_t at = (const char *)to - begin_;
  if (at >= bytes_) return;  // static shared memory: products cannot read it
  unseen_[at / 16] = 1;
  unfenced.push_back(at / 16);
}

void ProductMemory::fence(std::vector<uintptr_t> &unfenced) {
  for (uintptr_t i : unfenced) unseen_[i] = 0;
  unfenced.clear();
}

uint32_t ProductMemory::offset(uintptr_t address) const {
  const uintptr_t begin = (uintptr_t)begin_;
  if (address < begin || address - begin >= bytes_) fail("wgmma: an operand at 0x%lx, outside of the dynamic shared memory", (unsigned long)address);
  return address - begin / 1024 * 1024;
}

uint16_t ProductMemory::load(uint32_t offset) const {
  const size_t at = offset - (uintptr_t)begin_ % 1024;
  if (at >= bytes_) fail("wgmma: reads byte %zd of %zu of dynamic shared memory", (ssize_t)at, bytes_);
  if (unseen_[at / 16]) return 0xffff;  // a NaN
  uint16_t v;
  memcpy(&v, begin_ + at, sizeof v);
  return v;
}

void Products::reset() {
  begun_.clear();
  done_ = 0;
  group_ = count_ = 0;
  fenced_ = false;
}

void Products::begin(const Product &p, int warp) {
  if (!fenced_) fail("wgmma: a group without a fence before it");
  check(p.b);
  if (!p.registers) check(p.a);
  std::shared_ptr<Sums> sums;
  for (auto &b : begun_)
    if (b.sums->c[0] == p.c[0]) sums = b.sums;
  if (!sums) {
    sums = std::make_shared<Sums>();
    sums->columns = p.columns;
    memcpy(sums->c, p.c, sizeof sums->c);
    for (int lane = 0; lane < 32; lane++)
      for (int i = 0; i < p.columns / 2; i++) {
        sums->values[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2] = p.c[lane][i];
        p.c[lane][i] = NAN;
      }
  } else if (sums->columns != p.columns) {
    fail("wgmma: products of %d and of %d columns under way into the same sums", sums->columns, p.columns);
  }
  sums->uses++;
  begun_.push_back({p, warp, group_, sums});
  count_++;
}

void Products::commit() {
  group_++;
  fenced_ = false;
}

void Products::run(const ProductMemory &m, int n) {
  for (; n > 0 && done_ < begun_.size(); n--, done_++) {
    const Product &p = begun_[done_].product;
    auto &values = begun_[done_].sums->values;
    float A[16][16], B[16][256];
    for (int row = 0; row < 16; row++)
      for (int k = 0; k < 16; k++) {
        uint16_t bits;
        if (p.registers)
          bits = p.fragments[row % 8 * 4 + k % 8 / 2][k / 8 * 2 + row / 8] >> k % 2 * 16;
        else
          bits = m.load(place(p.a, 0, begun_[done_].warp % 4 * 16 + row, 2 * k));
        A[row][k] = p.widen(bits);
      }
    for (int k = 0; k < 16; k++)
      for (int j = 0; j < p.columns; j++)
        B[k][j] = p.widen(m.load(p.transposed ? place(p.b, j / 64 * field(p.b, 16), k, j % 64 * 2) : place(p.b, 0, j, 2 * k)));
    for (int row = 0; row < 16; row++) {
      if (!p.add)
        for (int j = 0; j < p.columns; j++) values[row][j] = 0;
      for (int k = 0; k < 16; k++)
        for (int j = 0; j < p.columns; j++) values[row][j] += A[row][k] * B[k][j];
    }
  }
}

void Products::wait(const ProductMemory &m, int pending) {
  size_t n = 0;  // products of groups that must be done
  while (n < begun_.size() && begun_[n].group < group_ - pending) n++;
  if (n > done_) run(m, (int)(n - done_));
  for (size_t i = 0; i < n; i++) {
    Sums &s = *begun_[i].sums;
    if (--s.uses) continue;
    for (int lane = 0; lane < 32; lane++)
      for (int e = 0; e < s.columns / 2; e++) s.c[lane][e] = s.values[lane / 4 + e / 2 % 2 * 8][e / 4 * 8 + lane % 4 * 2 + e % 2];
  }
  begun_.erase(begun_.begin(), begun_.begin() + n);
  done_ -= std::min(done_, n);
}

}  // namespace standin
