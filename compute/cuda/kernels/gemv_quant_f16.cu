// targets: sm_70
#include "gemv_quant.h"

// Activations in float16; logits are float32.
#define EACH(R)                               \
  GEMV_QUANT(8, R, f16_, f16, f16)            \
  GEMV_QUANT(8, R, f16_logits_, float, f16)   \
  GEMV_QUANT(4, R, f16_, f16, f16)
EACH(1)
EACH(2)
EACH(4)
EACH(8)
