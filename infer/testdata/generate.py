"""Prints what transformers computes for a model folder; called by TestTransformers with the folder and the prompt's ids.

Output: one JSON object with the logits after the prompt, and the ids of a greedy completion of 60 tokens that no
end-of-text token ends."""

import json
import sys

import torch
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
ids = torch.tensor([json.loads(sys.argv[2])])
with torch.no_grad():
    logits = model(ids).logits[0, -1]
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, min_new_tokens=60, do_sample=False, pad_token_id=0)
json.dump({"logits": logits.tolist(), "ids": out[0, ids.shape[1]:].tolist()}, sys.stdout)
