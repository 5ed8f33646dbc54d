"""Perplexities by the three protocols, computed with transformers alone: golden values for eval's tests.

Usage: make_protocols.py MODEL_DIR > protocols.json
MODEL_DIR is the reference case "tiny-gptbigcode-mqa" of the shared golden folder (n_positions 64, 160 tokens).
"original" follows the loop of the published experiment (labels masked with -100, mean of window losses); "strided" follows
Hugging Face's documentation of fixed-length perplexity but weighs tokens, not windows; "exact" scores each document alone.
"""

import json
import math
import sys

import numpy
import torch
import transformers

WINDOW, STRIDE = 64, 16
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
rng = numpy.random.RandomState(7)
docs = [rng.randint(0, 160, size=n).tolist() for n in (150, 70, 1, 203, 40)]


def loss_of(ids, scored):
    """Mean loss of the last `scored` tokens of ids, and how many labels that were."""
    x = torch.tensor([ids])
    y = x.clone()
    y[:, :-scored] = -100
    with torch.no_grad():
        loss = model(x, labels=y).loss.item()
    return loss, int((y[0, 1:] != -100).sum())


def original(ids):
    losses, prev = [], 0
    for begin in range(0, len(ids), STRIDE):
        end = min(begin + WINDOW, len(ids))
        losses.append(loss_of(ids[begin:end], min(STRIDE, end - prev))[0])
        prev = end
        if end == len(ids):
            break
    return math.exp(sum(losses) / len(losses)), len(losses)


def strided(ids):
    total, count, prev = 0.0, 0, 0
    for begin in range(0, len(ids), STRIDE):
        end = min(begin + WINDOW, len(ids))
        loss, n = loss_of(ids[begin:end], end - prev)
        total, count, prev = total + loss * n, count + n, end
        if end == len(ids):
            break
    return total, count


stream = sum(docs, [])
o, windows = original(stream)
s_total, s_count = strided(stream)
parts = [strided(d) for d in docs if len(d) > 1]
e_total, e_count = sum(p[0] for p in parts), sum(p[1] for p in parts)
json.dump(
    {
        "made_by": f"make_protocols.py, transformers {transformers.__version__}, torch {torch.__version__}",
        "window": WINDOW,
        "stride": STRIDE,
        "documents": docs,
        "original": {"perplexity": o, "windows": windows},
        "strided": {"perplexity": math.exp(s_total / s_count), "tokens": s_count},
        "exact": {"perplexity": math.exp(e_total / e_count), "tokens": e_count},
    },
    sys.stdout,
)
print()
