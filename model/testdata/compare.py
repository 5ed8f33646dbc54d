"""Loads pairs of model folders with transformers and prints as JSON, for each pair, the class of the second, what loading it complained of,
and the largest difference between their logits. Usage: compare.py REFERENCE OTHER [REFERENCE OTHER ...]"""
import json
import sys
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

logging.set_verbosity_error()


def compare(reference, folder):
    ref = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32).eval()
    other, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    other.eval()
    torch.manual_seed(0)
    ids = torch.randint(0, ref.config.vocab_size, (2, min(20, ref.config.n_positions)))
    with torch.no_grad():
        difference = (ref(ids).logits - other(ids).logits).abs().max().item()
    problems = {k: sorted(map(str, v)) for k, v in info.items() if v}
    return {"class": type(other).__name__, "difference": difference, "problems": problems, "use_cache": other.config.use_cache}


json.dump([compare(*pair) for pair in zip(sys.argv[1::2], sys.argv[2::2])], sys.stdout)
