// targets: sm_90a
#include "attention_hopper_grad.h"

ATTENTION_HOPPER_GRADIENTS(128, bf16)
ATTENTION_HOPPER_GRADIENTS(128, f16)
