"""Writes original.json beside this file: windows of the original protocol (token-level FIM, ConstantLengthDataset), made with
numpy's RandomState and Python's random, for package pack to reproduce. One UTF-8 byte is one token here.

Run with numpy 1.26 and Python 3.11: python make_original.py
"""
import json
import os
import random

import numpy as np

PREFIX, MIDDLE, SUFFIX, EOT = 300, 301, 302, 304


def permute(ids, rng, rate, spm_rate):
    if not rng.binomial(1, rate):
        return ids
    low, high = sorted(int(x) for x in rng.randint(low=0, high=len(ids) + 1, size=2))
    p, m, s = ids[:low], ids[low:high], ids[high:]
    if rng.binomial(1, spm_rate):
        return [PREFIX, SUFFIX] + s + [MIDDLE] + p + m
    return [PREFIX] + p + [SUFFIX] + s + [MIDDLE] + m


def windows(texts, sequence, ratio, seed, rate, spm_rate, endless):
    source, more = iter(texts), True
    while more:
        buffer, size = [], 0
        while size < sequence * ratio * 1024:
            try:
                buffer.append(next(source))
                size += len(buffer[-1])
            except StopIteration:
                if endless:
                    source = iter(texts)
                else:
                    more = False
                    break
        rng = np.random.RandomState(seed=seed)
        ids = []
        for text in buffer:
            tokens = list(text.encode())
            if rate > 0:
                tokens = permute(tokens, rng, rate, spm_rate)
            ids.extend(tokens + [EOT])
        cut = [ids[i:i + sequence] for i in range(0, len(ids), sequence)]
        cut = [c for c in cut if len(c) == sequence]
        random.shuffle(cut)
        yield from cut


texts = ["def f%d(x):\n    return x * %d  # ünï %s\n" % (i, i * i, "=" * (i * 7 % 23)) for i in range(50)]
cases = []
for sequence, ratio, seed, rate, spm_rate, endless, take in (
    (16, 0.02, 0, 0.5, 0.5, True, 300), (24, 0.01, 7, 0.9, 0.2, False, 10**9),
    (16, 0.5, 0, 0.0, 0.0, False, 10**9), (33, 0.03, 123456789, 1.0, 1.0, True, 200),
):
    random.seed(seed)
    out = []
    for w in windows(texts, sequence, ratio, seed, rate, spm_rate, endless):
        if len(out) == take:
            break
        out.append(w)
    cases.append({"sequence": sequence, "chars_per_token": ratio, "seed": seed, "rate": rate, "spm_rate": spm_rate,
                  "endless": endless, "windows": out})
golden = {
    "texts": texts,
    "chars_per_token": sum(len(t) for t in texts) / sum(len(t.encode()) for t in texts),
    "cases": cases,
}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "original.json"), "w") as f:
    json.dump(golden, f, separators=(",", ":"))
    f.write("\n")
