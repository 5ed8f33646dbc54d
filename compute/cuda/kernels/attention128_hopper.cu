// targets: sm_90a
#include "attention_hopper.h"

ATTENTION_HOPPER_KERNEL(128, bf16)
ATTENTION_HOPPER_KERNEL(128, f16)
