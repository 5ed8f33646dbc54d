// targets: sm_70 sm_80 sm_90
#include "gemv_quant.h"

// Activations in bfloat16; logits are float32.
#define EACH(R)                            \
  GEMV_QUANT(8, R, , bf16, bf16)           \
  GEMV_QUANT(8, R, logits_, float, bf16)   \
  GEMV_QUANT(4, R, , bf16, bf16)
EACH(1)
EACH(2)
EACH(4)
EACH(8)
