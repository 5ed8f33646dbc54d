// targets: sm_80
#include "attention_tensor.h"

ATTENTION_KERNELS(64, 2, 64, 2, 32, 64, 64)
