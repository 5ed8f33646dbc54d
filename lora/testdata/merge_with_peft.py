"""merge_with_peft.py MODEL ADAPTER OUT: merges an adapter with PEFT and saves the model."""

import sys

import peft
import transformers

model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
peft.PeftModel.from_pretrained(model, sys.argv[2]).merge_and_unload().save_pretrained(sys.argv[3])
