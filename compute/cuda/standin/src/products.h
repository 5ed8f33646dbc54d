// What is under way of a warp's products (warpgroup.h), and the view that they have of shared memory.
#pragma once
#include <memory>
#include <vector>

#include "warpgroup.h"

namespace standin {

// The dynamic shared memory of a block as products see it: what asynchronous copies wrote there is seen after a fence of the thread that copied.
class ProductMemory {
 public:
  void reset(char *begin, size_t bytes);
  void copied(const void *to, std::vector<uintptr_t> &unfenced);  // a thread copied 16 bytes, and its list of such
  void fence(std::vector<uintptr_t> &unfenced);
  uint32_t offset(uintptr_t address) const;
  uint16_t load(uint32_t offset) const;  // of shared_offset

 private:
  char *begin_ = nullptr;
  size_t bytes_ = 0;
  std::vector<unsigned char> unseen_;  // 16-byte pieces
};

// The products of one warp, first begun first.
class Products {
 public:
  void reset();
  void fence() { fenced_ = true; }
  void begin(const Product &, int warp);
  void commit();
  void wait(const ProductMemory &, int pending);
  // Runs up to n products that have been begun.
  void run(const ProductMemory &, int n);
  bool idle() const { return begun_.empty(); }
  size_t waiting() const { return begun_.size() - done_; }  // that have not run
  int count() const { return count_; }

 private:
  // An accumulator from the first product to the wait after the last.
  struct Sums {
    int columns, uses = 0;
    float *c[32];
    float values[16][256];
  };
  struct Begun {
    Product product;
    int warp, group;
    std::shared_ptr<Sums> sums;
  };
  std::vector<Begun> begun_;
  size_t done_ = 0;  // of begun_ have run
  int group_ = 0, count_ = 0;
  bool fenced_ = false;
};

}  // namespace standin
