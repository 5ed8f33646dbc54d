"""Writes golden.json beside this file: random numbers of numpy and Python that package numpyrng must reproduce.

Run with numpy 1.26 (any version from 1.17 to 1.26 gives the same file): python make_golden.py
"""
import json
import os
import random

import numpy as np


def fim(seed, rate, spm_rate, lengths):
    r = np.random.RandomState(seed)
    out = []
    for n in lengths:
        if not r.binomial(1, rate):
            out.append([-1, -1, -1])
            continue
        b = sorted(int(x) for x in r.randint(low=0, high=n + 1, size=2))
        out.append([b[0], b[1], int(r.binomial(1, spm_rate))])
    return out


golden = {"random_state": [], "generator": [], "python": []}
for seed in (0, 1, 42, 2**32 - 1):
    r = np.random.RandomState(seed)
    lengths = [10, 100, 1000, 5000, 37, 0, 1, 2, 3, 65536, 65535] + [(i * 7919) % 3001 for i in range(400)]
    golden["random_state"].append({
        "seed": seed,
        "random_sample": [float(x) for x in r.random_sample(700)],
        "lengths": lengths,
        "fim": [
            {"rate": p, "spm_rate": s, "decisions": fim(seed, p, s, lengths)}
            for p, s in ((0.5, 0.5), (0.9, 0.3), (0.1, 1.0), (1.0, 0.0))
        ],
    })
for seed in (0, 1, 42, 2**40 + 7):
    def g():
        return np.random.default_rng(seed)
    listed = list(range(50))
    g().shuffle(listed)
    long = g().permutation(100000)
    golden["generator"].append({
        "seed": seed,
        "state": [int(x) for x in np.random.SeedSequence(seed).generate_state(8, np.uint32)],
        "raw": [str(x) for x in g().bit_generator.random_raw(20)],
        "permutation": [int(x) for x in g().permutation(257)],
        "permutation_head": [int(x) for x in long[:50]],
        "shuffled_list": listed,
        "integers": {str(h): [int(x) for x in g().integers(0, h, size=200)] for h in (1, 2, 5000, 3000000000, 2**32)},
    })
for seed in (0, 1, 42, 2**40 + 7):
    r = random.Random(seed)
    first = list(range(1000))
    r.shuffle(first)
    second = list(range(7))
    r.shuffle(second)
    golden["python"].append({"seed": seed, "first": first, "second": second})

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden.json"), "w") as f:
    json.dump(golden, f, separators=(",", ":"))
    f.write("\n")
