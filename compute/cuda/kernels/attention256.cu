// targets: sm_80
#include "attention_tensor.h"

ATTENTION_KERNELS(256, 1, 64, 1, 32, 128, 32)
