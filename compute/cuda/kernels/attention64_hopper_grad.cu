// targets: sm_90a
#include "attention_hopper_grad.h"

ATTENTION_HOPPER_GRADIENTS(64, bf16)
ATTENTION_HOPPER_GRADIENTS(64, f16)
