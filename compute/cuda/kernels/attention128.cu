// targets: sm_80
#include "attention_tensor.h"

ATTENTION_KERNELS(128, 2, 64, 2, 32, 128, 32)
