// targets: sm_70
#include "gemv_quant.h"

// Activations in float32.
#define EACH(R)                        \
  GEMV_QUANT(8, R, f32_, float, float) \
  GEMV_QUANT(4, R, f32_, float, float)
EACH(1)
EACH(2)
EACH(4)
EACH(8)
