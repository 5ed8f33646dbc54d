"""Prints what transformers computes for model folders; called by TestTransformers with the prompt's ids and the folders.

Output: a JSON object for each folder, with the logits after the prompt, and the ids of a greedy completion of 60 tokens that no
end-of-text token ends."""

import json
import sys

import torch
from transformers import AutoModelForCausalLM

ids = torch.tensor([json.loads(sys.argv[1])])
for folder in sys.argv[2:]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, min_new_tokens=60, do_sample=False, pad_token_id=0)
    print(json.dumps({"logits": logits.tolist(), "ids": out[0, ids.shape[1]:].tolist()}))
