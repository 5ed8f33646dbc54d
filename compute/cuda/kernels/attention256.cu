// targets: sm_80
#include "attention.h"

ATTENTION_KERNELS(256, 1, 64, 1, 32, 128, 32)
