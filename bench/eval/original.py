"""The published experiment's perplexity, computed independently with transformers, beside ours on the same files.

Usage: original.py AUTODEV MODEL_DIR SOURCE...
AUTODEV is the binary, MODEL_DIR a folder that both can load (autodev model convert --out DIR writes one); SOURCE is read by
autodev data cat. Prints both values and their relative difference; fails above 1e-4. The loop follows the published script: the
first 100 files joined by a blank line, one stream, windows of n_positions with stride 512 (half a window where that is shorter), labels masked with -100, mean of window losses.
"""

import json
import math
import subprocess
import sys

import torch
import transformers

autodev, folder, *files = sys.argv[1:]
lines = subprocess.run([autodev, "data", "cat", *files, "--format", "jsonl"], check=True, capture_output=True, text=True).stdout
texts = [json.loads(line)["content"] for line in lines.splitlines()]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
ids = tokenizer("\n\n".join(texts[:100]), return_tensors="pt", add_special_tokens=False).input_ids
length, window = ids.size(1), model.config.n_positions
stride = min(512, window // 2)
losses, prev = [], 0
for begin in range(0, length, stride):
    end = min(begin + window, length)
    target = ids[:, begin:end].clone()
    target[:, : -min(stride, end - prev)] = -100
    with torch.no_grad():
        losses.append(model(ids[:, begin:end], labels=target).loss.item())
    prev = end
    if end == length:
        break
theirs = math.exp(sum(losses) / len(losses))
command = [autodev, "eval", "perplexity", "--model", folder, "--protocol", "original", "--format", "json"]
for f in files:
    command += ["--data", f]
row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["rows"][0]
difference = abs(row["perplexity"] / theirs - 1)
print(f"tokens in the stream {length}, windows {len(losses)}")
print(f"transformers {transformers.__version__}: {theirs:.6f}   autodev: {row['perplexity']:.6f}   relative difference {difference:.1e}")
sys.exit(difference > 1e-4)
