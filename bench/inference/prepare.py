"""Makes the models that bench/inference/compare.py measures, for us and for the peers: SantaCoder's dimensions with random
weights, or a real model.

    python bench/inference/prepare.py FOLDER --tokenizer DIR [--like santacoder] | --model DIR [--python PYTHON] [--llama DIR] [--only NAME ...]

--tokenizer is a folder with a tokenizer of the random model's vocabulary, --model the folder of a real one. Writes FOLDER/model
(safetensors), FOLDER/bf16, int8 and int4 (packed), FOLDER/f16.gguf, bf16.gguf, q8_0.gguf and q4_0.gguf, with llama.cpp's
llama-quantize in the folder --llama q4_k_m.gguf, and with a PYTHON that has ctranslate2 and transformers FOLDER/ctranslate2-int8.
What is there already stays. Needs Go, and 12 GB of disk for SantaCoder's 1.1 billion parameters.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import common  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=pathlib.Path)
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--tokenizer")
    source.add_argument("--model", type=pathlib.Path)
    p.add_argument("--like", default="santacoder")
    p.add_argument("--python", help="an interpreter with ctranslate2, torch and transformers")
    p.add_argument("--llama", type=pathlib.Path, help="build folder of llama.cpp, for q4_k_m")
    p.add_argument("--only", nargs="*", help="of int8, int4, f16, bf16, q8_0, q4_0, q4_k_m, ctranslate2-int8")
    a = p.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as tools:
        autodev = str(pathlib.Path(tools, "autodev"))
        common.go_build(ROOT, "./cmd/autodev", autodev)
        prepare(a, autodev)
    print("\n".join(sorted(str(x) for x in a.folder.iterdir())))


def prepare(a, autodev):
    model = a.folder / "model"

    def make(name, path, command):
        if path.exists() or a.only and name not in a.only and name != "model":
            return
        common.progress(f"{path.name}\n")
        part = path.with_name("part-" + path.name)
        subprocess.run([str(part) if x is None else str(x) for x in command], check=True)
        os.replace(part, path)

    if a.model:
        # As float32 in today's format, which every converter reads.
        make("model", model, [autodev, "model", "convert", "--out", None, a.model])
    else:
        make("model", model, [autodev, "model", "random", "--like", a.like, "--tokenizer", a.tokenizer, "--out", None])
    for weights in ("bf16", "int8", "int4"):
        # Integers rounded to nearest: the quality of random weights is no matter, and speed does not depend on it.
        method = [] if weights == "bf16" or a.model else ["--method", "rtn"]
        make(weights, a.folder / weights, [autodev, "model", "quantize", "--model", model, "--weights", weights, *method, "--out", None])
    for kind in ("f16", "bf16", "q8_0", "q4_0"):
        make(kind, a.folder / f"{kind}.gguf", [autodev, "model", "convert", "--model", model, "--to", "gguf", "--type", kind, "--out", None])
    if a.llama:
        quantize = next((f for f in (a.llama / "bin" / "llama-quantize", a.llama / "llama-quantize") if f.exists()), None)
        if not quantize:
            sys.exit(f"no llama-quantize in {a.llama}")
        make("q4_k_m", a.folder / "q4_k_m.gguf", [quantize, a.folder / "f16.gguf", None, "q4_k_m"])
    if a.python:
        converter = "import sys; from ctranslate2.converters.transformers import main; main()"
        make("ctranslate2-int8", a.folder / "ctranslate2-int8",
             [a.python, "-c", converter, "--model", model, "--quantization", "int8", "--output_dir", None, "--low_cpu_mem_usage"])


main()
