"""CTranslate2's side of bench/inference/compare.py: one measurement in a process of its own.

    peer_ctranslate2.py MODEL THREADS PROMPT NEW

Prints one JSON object: version, seconds to load, tokens a second of a prompt of PROMPT tokens (0: none) and of NEW tokens after one
(0: none), each after one run that is not counted.
"""
import json
import sys
import time

import ctranslate2

model, threads, prompt, new = sys.argv[1], *map(int, sys.argv[2:5])
began = time.perf_counter()
generator = ctranslate2.Generator(model, device="cpu", compute_type="int8", intra_threads=threads, inter_threads=1)
out = {"version": "CTranslate2 " + ctranslate2.__version__, "load_s": time.perf_counter() - began}
with open(model + "/vocabulary.json", encoding="utf-8") as f:
    vocabulary = json.load(f)


def seconds(tokens, length):
    start = time.perf_counter()
    result = generator.generate_batch([tokens], max_length=length, min_length=length, sampling_topk=1, beam_size=1, include_prompt_in_result=False)
    took = time.perf_counter() - start
    if len(result[0].sequences_ids[0]) != length:
        sys.exit(f"{len(result[0].sequences_ids[0])} tokens generated, expected {length}")
    return took


if prompt:
    tokens = [vocabulary[100 + 7 * i % 20000] for i in range(prompt)]
    seconds(tokens, 1)
    out["prefill"] = prompt / seconds(tokens, 1)
if new:
    one = [vocabulary[100]]
    seconds(one, 2)
    # The first token comes with the prompt.
    out["decode"] = (new - 1) / (seconds(one, new) - seconds(one, 1))
print(json.dumps(out))
