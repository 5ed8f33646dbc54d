"""merge_with_peft.py (MODEL ADAPTER OUT)...: merges adapters with PEFT and saves the models."""

import sys

import peft
import transformers

for model, adapter, out in zip(*[iter(sys.argv[1:])] * 3, strict=True):
    base = transformers.AutoModelForCausalLM.from_pretrained(model)
    peft.PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(out)
