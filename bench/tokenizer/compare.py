"""Encoding speed of AutoDev against the Hugging Face tokenizers package, same texts, one thread each.

    python bench/tokenizer/compare.py TOKENIZER FILE...

TOKENIZER is a tokenizer.json; each FILE is a text, or JSON lines with a "content" (autodev data cat SRC --format jsonl).
Needs the tokenizers package, and Go for AutoDev's side (BenchmarkEncodeFile of package tokenizer). Prints both speeds,
their ratio, and whether the numbers of tokens agree.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"


def documents(names):
    for name in names:
        text = pathlib.Path(name).read_bytes().decode("utf-8")
        if name.endswith(".jsonl"):
            yield from (json.loads(line)["content"] for line in text.splitlines() if line.strip())
        else:
            yield text


def hugging_face(path, texts, rounds):
    import tokenizers
    t = tokenizers.Tokenizer.from_file(path)
    t.encode_special_tokens = True  # as Encode: special tokens in the text are text
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        count = sum(len(t.encode(s, add_special_tokens=False).ids) for s in texts)
        best = min(best, time.perf_counter() - start)
    return best, count, tokenizers.__version__


def autodev(path, texts, rounds):
    with tempfile.TemporaryDirectory() as folder:
        name = os.path.join(folder, "texts.jsonl")
        with open(name, "w", encoding="utf-8") as f:
            for s in texts:
                f.write(json.dumps({"content": s}) + "\n")
        env = dict(os.environ, AUTODEV_BENCH_TOKENIZER=os.path.abspath(path), AUTODEV_BENCH_TEXTS=name, CGO_ENABLED="0")
        out = subprocess.run(["go", "test", "-run", "^$", "-bench", "^BenchmarkEncodeFile$", "-cpu", "1", "-count", str(rounds), "./tokenizer"],
                             cwd=pathlib.Path(__file__).parents[2], env=env, capture_output=True, text=True)
    found = re.findall(r"^BenchmarkEncodeFile\S*\s+\d+\s+([\d.e+]+) ns/op.*?([\d.e+]+) tokens", out.stdout, re.M)
    if out.returncode or not found:
        sys.exit(out.stdout + out.stderr)
    return min(float(ns) for ns, _ in found) / 1e9, int(float(found[0][1]))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("tokenizer")
    p.add_argument("files", nargs="+")
    p.add_argument("--rounds", type=int, default=3, help="the fastest of so many counts")
    a = p.parse_args()
    texts = list(documents(a.files))
    size = sum(len(s.encode("utf-8")) for s in texts) / 1e6
    theirs, their_count, version = hugging_face(a.tokenizer, texts, a.rounds)
    ours, our_count = autodev(a.tokenizer, texts, a.rounds)
    print(f"{len(texts)} texts, {size:.1f} MB")
    print(f"tokenizers {version}: {size / theirs:6.1f} MB/s, {their_count} tokens")
    print(f"autodev:           {size / ours:6.1f} MB/s, {our_count} tokens")
    print(f"ratio: {theirs / ours:.1f}")
    if our_count != their_count:
        sys.exit("the numbers of tokens differ")


main()
