"""Checks and times everything on a GPU in one call of under ten minutes, beside PyTorch, and prints a table.

    bench/gpu/build.sh                                   # where Go is
    python3 bench/gpu/run.py [--out DIR] [--only PART,…]  # where the GPU is; needs neither Go nor a network

Parts run in order of importance, each under a time limit of its own and within --budget seconds together. What fails, or is left out for
want of time, is a line of the table, and the next part runs. What is printed fits 12,000 characters; DIR gets table.txt, with every line,
gpu.json, with everything measured, and log.txt.
"""
import argparse
import array
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]

SIZES = {
    "santacoder": {
        "config": dict(vocab_size=49280, n_positions=2048, n_embd=2048, n_layer=24, n_head=16, n_inner=8192),
        "length": 2048, "sequences": 16, "steps": 50, "few": 13, "rank": 64, "small_rank": 16, "evaluations": 6,
        "full": ["-micro-batch", "8", "-memory", "43.3"],  # what 16 at a time need, used to compute less again
        "adapters": ["-micro-batch", "4", "-memory", "13.8"],  # a third of full fine-tuning's memory, less what lies beside the plans
        "products": ["-tokens", "32768"], "train": {"micro": 8, "accumulation": 2, "steps": 12},
        "decode": ["-prompt", "512", "-tokens", "256"], "together": ["-prompt", "32", "-tokens", "256"],
    },
    "tiny": {  # against the stand-in: finds mistakes in these scripts, no speed
        "config": dict(vocab_size=8192, n_positions=256, n_embd=64, n_layer=2, n_head=4, n_inner=128),
        "length": 32, "sequences": 4, "steps": 6, "few": 5, "rank": 8, "small_rank": 4, "evaluations": 1,
        "full": ["-micro-batch", "2", "-memory", "1"], "adapters": ["-micro-batch", "2", "-memory", "1"],
        "products": "-tokens 64 -embed 64 -qkv 96 -inner 128 -vocab 256 -rows 32 -rank 8 -square 64 -bytes 65536 -runs 2 -algorithms 2".split(),
        "train": {"micro": 2, "accumulation": 2, "steps": 2},
        "decode": "-prompt 20 -tokens 5 -windows 1 -length 64".split(), "together": "-prompt 4 -tokens 6".split(),
    },
}
TESTS = {  # binary: the tests of it that concern the card
    "compute/cuda": ".", "compute/cuda/driver": ".", "compute/cuda/cublaslt": ".", "compute/cuda/dynlib": ".", "compute/cuda/kernels": "Entries|For|Target",
    "compute/devices": ".", "train/graph": "CUDA", "infer": "TestCard",
}
TESTS_LIMIT = 200  # seconds for all of them, so that one that hangs does not take the other parts' time
PRINTED = 9500  # characters of the table
SANITIZED = "TestLayerNorm$|TestAttention$|TestWarpgroupProducts$|TestCrossEntropy|TestAdamW|TestEmbed|TestBiasGELU|TestMatmul$"


class Bench:
    def __init__(self, a):
        self.a, self.begun = a, time.monotonic()
        self.out = pathlib.Path(a.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.log = open(self.out / "log.txt", "w", errors="replace")
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="autodev-gpu-"))
        self.env = dict(os.environ, PYTHONUNBUFFERED="1", TOKENIZERS_PARALLELISM="false", AUTODEV_TEST_GPU="1", AUTODEV_PYTHON="",
                        CUDA_CACHE_PATH=str(self.work / "jit"), CUDA_CACHE_MAXSIZE=str(1 << 30),  # of kernels that the driver has compiled
                        TORCHINDUCTOR_CACHE_DIR=str(self.work / "inductor"))  # one that a stopped run left broken pieces in would fail the next
        self.size = SIZES[a.size]
        self.results, self.rows = {}, []
        self.before = json.loads(pathlib.Path(a.before).read_text())["results"] if a.before else {}
        self.model, self.tokens, self.model_ready = self.work / "model", self.work / "tokens.bin", threading.Event()
        self.model_failed = ""

    # Running things.

    def left(self):
        return self.a.budget - (time.monotonic() - self.begun)

    def say(self, text):
        print(text, flush=True)
        print(text, file=self.log, flush=True)

    def run(self, command, limit, cwd=None, env=None):
        """Runs a command for at most limit seconds, and the budget; returns its output. Raises Failed with what it last said."""
        limit = min(limit, self.left())
        if limit < 3:
            raise Failed("left out: the time is up")
        begun = time.monotonic()
        try:
            p = subprocess.Popen([str(c) for c in command], cwd=cwd, env=env or self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
        except OSError as e:
            raise Failed(str(e))
        try:
            out, err = p.communicate(timeout=limit)
            late = False
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)
            out, err = p.communicate()
            late = True
        took = time.monotonic() - begun
        print(f"\n$ {' '.join(str(c) for c in command)}\n{err}\n{out}\n[{p.returncode}, {took:.1f} s]", file=self.log, flush=True)
        if late or p.returncode != 0:
            why = f"stopped after {limit:.0f} s" if late else f"exit code {p.returncode}"
            raise Failed(f"{why}: {reason(err + chr(10) + out)}", out, err)
        return out

    def json(self, *a, **k):
        return json.loads(self.run(*a, **k).strip().splitlines()[-1])

    def row(self, what, value, least="", ok=None, detail=False):
        """A line of the table. Details are not printed where all is well."""
        self.rows.append((what, value, least, {True: "yes", False: "NO", None: ""}[ok], detail and ok is not False))

    def save(self):
        (self.out / "gpu.json").write_text(json.dumps({"size": self.a.size, "results": self.results, "table": self.rows}, indent=1))

    # Preparation.

    def unpack(self):
        if self.a.bin:
            self.bin = pathlib.Path(self.a.bin).resolve()
            return
        self.bin = self.work / "bin"
        with tarfile.open(ROOT / "bin/gpu/pack.tar.xz") as t:
            t.extractall(self.bin, filter="data") if hasattr(tarfile, "data_filter") else t.extractall(self.bin)

    def make_model(self):
        """In the background: the processors are idle while the card is looked at."""
        try:
            ids = array.array("H", map(int, (self.bin / "ids").read_text().split()))
            if sys.byteorder == "big":
                ids.byteswap()
            self.tokens.write_bytes(ids.tobytes())
            config = dict(model_type="gpt_bigcode", multi_query=True, activation_function="gelu_pytorch_tanh", initializer_range=0.02, layer_norm_epsilon=1e-5,
                          bos_token_id=0, eos_token_id=0, **self.size["config"])
            file = self.work / "config.json"
            file.write_text(json.dumps(config))
            self.run([self.bin / "autodev", "model", "random", "--config", file, "--dtype", "bf16", "--tokenizer", ROOT / "models/autodev-tiny", "--out", self.model], 240)
        except Exception as e:
            self.model_failed = str(e)
        self.model_ready.set()

    def need_model(self):
        self.model_ready.wait(max(0, min(240, self.left())))
        if self.model_failed or not self.model_ready.is_set():
            raise Failed("no model: " + (self.model_failed or "not written in time"))

    # Parts.

    def find_python(self):
        """The first interpreter that has the peer's packages."""
        candidates = [self.a.python] if self.a.python else [sys.executable, *(os.path.join(os.environ[v], "bin/python3") for v in ("VIRTUAL_ENV", "CONDA_PREFIX") if v in os.environ), shutil.which("python3"),
                      *glob.glob("/opt/*/bin/python3"), *glob.glob("/opt/*/.venv/bin/python3"), *glob.glob("/opt/*/venv/bin/python3")]
        said = "none"
        for python in dict.fromkeys(c for c in candidates if c):
            try:
                found = self.json([python, "-c", "import json,torch,transformers,peft;print(json.dumps(dict(torch=torch.__version__,cuda=torch.version.cuda,"
                                                 "transformers=transformers.__version__,peft=peft.__version__,sees=torch.cuda.is_available())))"], 90)
                self.a.python = os.path.abspath(python)
                return found
            except Failed as e:
                said = f"{python}: {e}"
        self.a.python = sys.executable  # its parts will say what is missing
        return {"error": said}

    def environment(self):
        r = self.results["environment"] = {}
        r["python"] = self.find_python()
        smi = shutil.which("nvidia-smi")
        r["nvidia_smi"] = self.run([smi, "--query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit", "--format=csv,noheader"], 20).strip() if smi else "absent"
        self.say("nvidia-smi: " + r["nvidia_smi"])
        try:
            r["card"] = self.json([self.bin / "gpu", "info"], 60)
        except Failed:
            # Places of some containers' drivers and of Python environments that are not active.
            for name, patterns in {"AUTODEV_LIBCUDA": ["/usr/local/nvidia/lib64/libcuda.so.1", "/usr/local/nvidia/lib/libcuda.so.1", "/usr/lib/*/libcuda.so.1"],
                                   "AUTODEV_LIBCUBLASLT": [str(pathlib.Path(self.a.python).parents[1] / "lib/python3*/site-packages/nvidia/*/lib/libcublasLt.so.1[23]"), "/usr/local/cuda*/**/libcublasLt.so.1[23]"]}.items():
                found = [f for p in patterns for f in glob.glob(p, recursive=True)]
                if found and name not in self.env:
                    self.env[name] = found[0]
                    self.say(f"set {name}={found[0]}")
            r["card"] = self.json([self.bin / "gpu", "info"], 60)
        c = r["card"]
        self.row("card", c["device"])
        self.row("driver, libcublasLt", f"CUDA {c['driver_cuda']}, {c['libcublasLt']}")
        self.row("peer", ", ".join(f"{k} {v}" for k, v in r["python"].items()))

    def tests(self):
        total = {"pass": 0, "fail": 0, "skip": 0}
        failed, unfused, until = {}, 0, time.monotonic() + TESTS_LIMIT
        left = lambda limit: max(1, min(limit, until - time.monotonic()))
        for package, pattern in TESTS.items():
            binary, cwd = self.bin / (package.replace("/", "_") + ".test"), ROOT / package
            try:
                out = self.run([binary, "-test.v", "-test.run", pattern, "-test.timeout", "120s"], left(125), cwd=cwd)
            except Failed as e:
                out = e.out
                if not out:
                    failed[package] = str(e)
            unfused += out.count(": not fused: ")
            seen = dict((name, state.lower()) for state, name in re.findall(r"^--- (PASS|FAIL|SKIP): (\S+)", out, re.M))
            started = re.findall(r"^=== RUN +([^/\s]+)$", out, re.M)
            suspects = [t for t in started if seen.get(t) not in ("pass", "skip")]
            if suspects:
                # One that broke the context fails those after it: what failed, and what did not get its turn, runs alone.
                listed = self.run([binary, "-test.list", pattern], 20, cwd=cwd).split()
                suspects += [t for t in listed if t not in started and t.startswith("Test")]
                for t in suspects:
                    if time.monotonic() > until:
                        seen[t], failed[f"{package} {t}"] = "fail", "left out: the time for tests is up"
                        continue
                    try:
                        self.run([binary, "-test.run", f"^{t}$", "-test.timeout", "40s"], left(45), cwd=cwd)
                        seen[t] = "pass"
                    except Failed as e:
                        seen[t] = "fail"
                        said = [x.strip() for x in e.out.splitlines() if re.match(r"\s+\w+_test\.go:\d+|panic", x)]
                        failed[f"{package} {t}"] = said[0][:300] if said else str(e)[:300]
            for state in seen.values():
                total[state] += 1
        self.results["tests"] = {"counts": total, "failed": failed, "unfused": unfused}
        self.row("tests of compute/cuda, train/graph", f"{total['pass']} pass, {total['fail']} fail, {total['skip']} skipped (about the stand-in)", "none fails", not failed)
        if unfused:
            self.row("  products whose activation cuBLASLt does not fuse", f"{unfused}: see log.txt for 'not fused'")
        for n, (name, said) in enumerate(failed.items()):
            self.row("  FAIL " + name, said, detail=n >= 12)

    def products(self):
        r = self.results["products"] = self.json([self.bin / "gpu", "products", *self.size["products"]], 75)
        self.row("copy inside the card's memory", f"{r['copy_bytes_per_second'] / 1e9:.0f} GB/s")
        self.row(f"product {r['square']['name']}, bf16", f"{r['square']['best_tflops']:.0f} TFLOP/s (first choice {r['square']['first_tflops']:.0f})")
        for p in r["products"]:
            if p.get("error"):
                self.row(f"product {p['name']}", p["error"])
                continue
            self.row(f"product {p['name']}", f"{p['first_tflops']:.0f} TFLOP/s, best of {p['algorithms']} algorithms {p['best_tflops']:.0f}", "0.90 of best", p["share"] >= 0.9, detail=True)

    def attention(self):
        """Attention's kernels for compute capability 9.0 beside those for 8.0."""
        out = self.run([self.bin / "compute_cuda.test", "-test.run", "^$", "-test.bench", "^BenchmarkAttention$/./drop_0$", "-test.benchtime", "3x", "-test.timeout", "55s"], 60, cwd=ROOT / "compute/cuda")
        rates = {(way, kernels == "true"): float(rate) for way, kernels, rate in
                 re.findall(r"^BenchmarkAttention/(\w+)/drop_0/warpgroups_(true|false)\S*\s.*?([\d.]+) TFLOP/s", out, re.M)}
        self.results["attention"] = {f"{way}, {'kernels for 9.0' if new else 'for 8.0'}": rate for (way, new), rate in rates.items()}
        for way, least in ("forward", 300), ("backward", 280):
            new, old = rates[way, True], rates[way, False]
            self.row(f"attention {way}, 16x2048, 16/1 heads of 128", f"{new:.0f} TFLOP/s; kernels for compute capability 8.0: {old:.0f}", f"{least} TFLOP/s", new >= least)

    def ours(self, name, *flags, limit=100):
        self.need_model()
        r = self.results[name] = self.json([self.bin / "gpu", "step", "-model", self.model, "-tokens-file", self.tokens, "-length", self.size["length"], *flags], limit)
        return r

    def peer(self, name, *flags, limit=120):
        self.need_model()
        r = self.results[name] = self.json([self.a.python, HERE / "peer.py", "--model", self.model, "--tokens-file", self.tokens, "--length", self.size["length"],
                                            "--device", self.a.peer_device, *flags], limit)
        return r

    def speed(self, what, r, least=None):
        mfu = r["tflop_per_second"] / self.a.peak
        self.row(what, f"{r['tokens_per_second']:.0f} tokens/s, {r['tflop_per_second']:.0f} TFLOP/s ({100 * mfu:.1f} % MFU), micro-batch {r['micro_batch']}, {memory(r)}",
                 f"{least} tokens/s" if least else "", r["tokens_per_second"] >= least if least else None)

    def full(self):
        r = self.ours("full", "-sequences", self.size["sequences"], *self.size["full"], "-steps", self.size["steps"], "-evaluations", self.size["evaluations"], "-profile", limit=130)
        self.speed("full fine-tuning, AutoDev", r, 55000)
        self.row("  evaluation", f"{r['eval_tokens_per_second']:.0f} tokens/s: {r['eval_tokens_per_second'] / r['tokens_per_second']:.2f} × training", "2.5 ×", r["eval_tokens_per_second"] >= 2.5 * r["tokens_per_second"])
        bandwidth = self.results.get("products", {}).get("copy_bytes_per_second")
        for n, g in enumerate(r.get("profile", [])[:24]):
            rate = f"{g['tflops']:.0f} TFLOP/s" if g.get("tflops") else f"{g['bytes_per_second'] / 1e9:.0f} GB/s" + (f" ({100 * g['bytes_per_second'] / bandwidth:.0f} % of a copy)" if bandwidth else "")
            least, ok = "", None
            if g["kernel"] == "Attention":
                least, ok = "300 TFLOP/s", g["tflops"] >= 300
            self.row(f"  {g['kernel']} {g['shape']}", f"{g['calls']} × {1e6 * g['seconds'] / g['calls']:.0f} µs, {100 * g['share']:.1f} %, {rate}", least, ok, detail=n >= 10 and ok is None)

    def adapters(self):
        shutil.rmtree(self.work / "adapter", ignore_errors=True)
        r = self.ours("lora", "-sequences", self.size["sequences"], "-steps", self.size["few"], "-rank", self.size["rank"], "-checkpointing", *self.size["adapters"], "-adapter", self.work / "adapter", "-profile", limit=80)
        self.speed(f"LoRA r={self.size['rank']}, checkpointing, AutoDev", r, 70000)
        if "full" in self.results:
            share = r["device_used_bytes"] / self.results["full"]["device_used_bytes"]
            self.row("  memory ÷ full fine-tuning's", f"{share:.2f}", "under 0.33", share < 1 / 3)

    def full_peer(self):
        flags = ["--sequences", self.size["sequences"], "--steps", self.size["steps"], "--evaluations", self.size["evaluations"], "--micro-batch", self.a.peer_micro]
        r = self.peer("full_peer", *flags, limit=150)
        self.speed("full fine-tuning, transformers", r)
        self.against("full", "full_peer", None)
        if "full" in self.results:
            a, b = self.results["full"]["losses"], r["losses"]
            n = min(len(a), len(b))
            apart = [abs(x - y) for x, y in zip(a, b)]
            self.results["curves"] = {"largest": max(apart), "mean": sum(apart) / n}
            self.row(f"  losses of {n} steps apart", f"at most {max(apart):.4f} (step {apart.index(max(apart)) + 1}), mean {sum(apart) / n:.4f}; {a[0]:.4f} to {a[n - 1]:.4f}, peer {b[0]:.4f} to {b[n - 1]:.4f}",
                     "0.02", max(apart) <= 0.02)

    def full_compiled(self):
        micro = self.results.get("full_peer", {}).get("micro_batch", self.a.peer_micro)
        r = self.peer("full_compiled", "--sequences", self.size["sequences"], "--steps", self.size["few"], "--micro-batch", micro, "--compile", limit=150)
        self.speed("full fine-tuning, transformers, torch.compile", r)
        self.against("full", "full_compiled", 1.3)

    def adapters_peer(self):
        self.speed(f"LoRA r={self.size['rank']}, checkpointing, PEFT", self.peer("lora_peer", *self.peer_adapters(), "--micro-batch", self.a.peer_micro, limit=90))
        self.against("lora", "lora_peer", 1.5)
        if "lora" in self.results:
            a, b = self.results["lora"]["losses"], self.results["lora_peer"]["losses"]
            apart = max(abs(x - y) for x, y in zip(a, b))
            self.row(f"  losses of {min(len(a), len(b))} steps apart", f"at most {apart:.4f}", "0.02", apart <= 0.02)

    def adapters_compiled(self):
        micro = self.results.get("lora_peer", {}).get("micro_batch", self.a.peer_micro)
        self.speed(f"LoRA r={self.size['rank']}, checkpointing, PEFT, torch.compile", self.peer("lora_compiled", *self.peer_adapters(), "--micro-batch", micro, "--compile", limit=150))
        self.against("lora", "lora_compiled", 1.5)

    def peer_adapters(self):
        if not (self.work / "adapter").exists():
            raise Failed("no adapter to begin with: the part adapters did not run")
        return ["--sequences", self.size["sequences"], "--steps", self.size["few"], "--rank", self.size["rank"], "--adapter", self.work / "adapter", "--checkpointing"]

    def against(self, ours, theirs, least):
        a, b = (self.results.get(name) or self.before.get(name) for name in (ours, theirs))
        if a and b:
            ratio = a["tokens_per_second"] / b["tokens_per_second"]
            earlier = "" if ours in self.results else ", ours of an earlier call"
            self.row("  AutoDev ÷ it", f"{ratio:.2f}{earlier}", str(least or ""), ratio >= least if least else None)

    def decode(self):
        """Tokens/s at batch 1: every token reads all weights once."""
        self.need_model()
        r = self.results["decode"] = self.json([self.bin / "gpu", "decode", "-model", self.model, "-tokens-file", self.tokens, *self.size["decode"]], 80)
        bandwidth = self.results.get("products", {}).get("copy_bytes_per_second") or self.results["environment"]["card"]["bandwidth_by_clock"]
        share = r["weight_bytes_per_second"] / bandwidth
        self.row(f"decode, batch 1, {r['weights']}", f"{r['decode_tokens_per_second']:.0f} tokens/s, {r['weight_bytes_per_second'] / 1e9:.0f} GB/s of weights: {100 * share:.0f} % of a copy's", "80 %", share >= 0.8)
        self.row("  no kernel before the last has ended; all logits to the host", f"{r['decode_in_turn_tokens_per_second']:.0f}; {r['decode_logits_tokens_per_second']:.0f} tokens/s")
        self.row("  prompt; scoring through infer", f"{r['prompt_tokens_per_second']:.0f}; {r['score_tokens_per_second']:.0f} tokens/s")

    def together(self):
        """Tokens/s of several sequences at a time: passes read the weights once for all."""
        self.need_model()
        r = self.results["together"] = self.json([self.bin / "gpu", "together", "-model", self.model, "-tokens-file", self.tokens, *self.size["together"]], 80)
        one = r["rates"][0]["tokens_per_second"]
        for rate in r["rates"]:
            self.row(f"decode, sequences at a time: {rate['sequences']}, {r['weights']}", f"{rate['tokens_per_second']:.0f} tokens/s in all, {rate['tokens_per_second'] / one:.1f} × one")

    def small(self):
        r = self.ours("lora_small", "-sequences", 1, "-steps", 5, "-rank", self.size["small_rank"], "-checkpointing", limit=40)
        self.row(f"LoRA r={self.size['small_rank']}, checkpointing, batch 1", f"{memory(r)}, planned {r['planned_bytes'] / 1e9:.2f} GB; {r['tokens_per_second']:.0f} tokens/s", "8 GB", r["device_used_bytes"] <= 8e9)

    def float16(self):
        """What cards without bfloat16 train in."""
        r = self.ours("float16", "-sequences", self.size["sequences"], "-steps", self.size["few"], "-precision", "float16", limit=100)
        self.speed("full fine-tuning in float16, AutoDev", r)
        if "full" in self.results:
            apart = max(abs(a - b) for a, b in zip(r["losses"], self.results["full"]["losses"]))
            self.row(f"  losses of {len(r['losses'])} steps apart from bf16's", f"at most {apart:.4f}", "0.02", apart <= 0.02)

    def unfused(self):
        """Are GELU and its gradient worth their epilogues?"""
        r = self.ours("full_unfused", "-sequences", self.size["sequences"], *self.size["full"], "-steps", self.size["few"], "-unfused", limit=60)
        self.speed("full fine-tuning, activations by kernels of their own", r)

    def tuned(self):
        r = self.ours("full_tuned", "-sequences", self.size["sequences"], *self.size["full"], "-steps", self.size["few"], "-algorithms", 8, limit=60)
        self.speed("full fine-tuning, products by the fastest of 8 algorithms", r)

    def command(self):
        """The same from the command line, data and all."""
        self.need_model()
        t = self.size["train"]
        recipe = self.work / "recipe.yaml"
        folders = "".join(f"    - path: {json.dumps(str(ROOT / f))}\n" for f in ("infer", "train", "compute", "model", "data", "cmd"))
        recipe.write_text(f"model: {json.dumps(str(self.model))}\ndata:\n  train:\n{folders}  sequence: {self.size['length']}\ntrain:\n  steps: {t['steps']}\n  micro_batch: {t['micro']}\n"
                          f"  accumulation: {t['accumulation']}\n  lr: 1e-4\ncheckpoint:\n  every: 0\nout: {json.dumps(str(self.work / 'run'))}\n")
        try:
            out = self.run([self.bin / "autodev", "train", "--config", recipe, "--device", "cuda"], 90)
        except Failed as e:
            if re.search(r"not defined: --?device|no CUDA", e.err):
                self.row("autodev train --device cuda", "not measured: this AutoDev trains on the processor only")
                return
            raise
        self.results["command"] = out
        self.row("autodev train --device cuda", out.strip().splitlines()[0])

    def sanitizer(self):
        tool = shutil.which("compute-sanitizer") or next(iter(glob.glob("/usr/local/cuda*/bin/compute-sanitizer")), None)
        if not tool:
            self.row("compute-sanitizer", "absent")
            return
        r = self.results["sanitizer"] = {}
        for check in ("memcheck", "racecheck"):
            try:
                out = self.run([tool, "--tool", check, "--error-exitcode", "99", self.bin / "compute_cuda.test", "-test.run", SANITIZED, "-test.timeout", "100s"], 110, cwd=ROOT / "compute/cuda")
            except Failed as e:
                out = e.out or str(e)
                if "ERROR SUMMARY" not in out and "HAZARD" not in out:
                    self.row(f"compute-sanitizer {check}", str(e))
                    continue
            found = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", out)
            r[check] = found
            self.row(f"compute-sanitizer {check}", "; ".join(found) or "no summary: look into log.txt", "0", bool(found) and all(f.startswith("0 ") for f in found))

    PARTS = [("environment", environment), ("tests", tests), ("products", products), ("attention", attention), ("full", full), ("adapters", adapters), ("small", small),
             ("decode", decode), ("full_peer", full_peer), ("full_compiled", full_compiled), ("adapters_peer", adapters_peer), ("together", together), ("unfused", unfused),
             ("float16", float16), ("tuned", tuned), ("command", command), ("adapters_compiled", adapters_compiled), ("sanitizer", sanitizer)]

    def all(self):
        wanted = self.a.only.split(",") if self.a.only else [n for n, _ in self.PARTS]
        unknown = set(wanted) - {n for n, _ in self.PARTS}
        if unknown:
            raise SystemExit(f"--only: found {', '.join(unknown)}, expected some of {', '.join(n for n, _ in self.PARTS)}")
        self.unpack()
        threading.Thread(target=self.make_model, daemon=True).start()
        for name, part in self.PARTS:
            if name not in wanted:
                continue
            begun = time.monotonic()
            try:
                part(self)
            except Failed as e:
                self.row(name, f"FAILED: {e}", "", False)
            except Exception as e:  # the other parts are worth more than a stop here
                self.row(name, f"FAILED in the script: {type(e).__name__}: {e}", "", False)
            self.say(f"[{time.monotonic() - self.begun:5.0f} s] {name}: {time.monotonic() - begun:.1f} s")
            self.save()
        self.table()

    def table(self):
        rows = [("what", "measured", "at least", "reached", False), *self.rows]
        widths = [max(len(r[i]) for r in rows) for i in (0, 1, 2)]
        write = lambda r, widths: "  ".join([*(c.ljust(w) for c, w in zip(r, widths)), r[3]]).rstrip()
        (self.out / "table.txt").write_text("".join(write(r, widths) + "\n" for r in rows))
        short = [[r[0], r[1] if len(r[1]) <= 150 else r[1][:149] + "…", *r[2:]] for r in rows if not r[4]]
        lines = [write(r, [min(48, widths[0]), min(72, widths[1]), 0]) for r in short]
        if left_out := len(rows) - len(short):
            lines.append(f"{left_out} more lines in table.txt")
        text = "\n".join(lines)
        self.say("\n" + (text if len(text) <= PRINTED else text[:PRINTED] + "… all of it in table.txt"))


def reason(text):
    """The line that says why a command failed: of a panic or an error its first, else the last."""
    lines = [x.strip() for x in text.splitlines() if x.strip()]
    told = [x for x in lines if re.match(r"(panic|fatal error|gpu|autodev|SIG[A-Z]+): ", x)]
    return (told or lines[-1:] or ["it said nothing"])[0][:400]


class Failed(Exception):
    def __init__(self, what, out="", err=""):
        super().__init__(what)
        self.out, self.err = out, err


def memory(r):
    if "device_used_bytes" not in r:
        return "memory not read"
    text = f"{r['device_used_bytes'] / 1e9:.1f} GB of the card"
    if "allocated_bytes" in r:
        text += f" (tensors at most {r['allocated_bytes'] / 1e9:.1f})"
    return text


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", default=os.environ.get("OUT", "gpu-results"))
    p.add_argument("--size", default="santacoder", choices=SIZES)
    p.add_argument("--only", default="", help="parts, separated by commas: " + ", ".join(n for n, _ in Bench.PARTS))
    p.add_argument("--budget", type=float, default=560, help="seconds in all")
    p.add_argument("--python", default="", help="an interpreter with torch, transformers and peft; otherwise the first that is found")
    p.add_argument("--before", default="", help="gpu.json of an earlier call on the same kind of card, for ratios to parts that this one leaves out")
    p.add_argument("--peer-device", default="cuda", choices=("cuda", "cpu"))
    p.add_argument("--peer-micro", type=int, default=8, help="sequences at a time that the peer tries first")
    p.add_argument("--peak", type=float, default=989.4, help="TFLOP/s of MFU's denominator: bf16 without sparsity of an H100 or H200 SXM")
    p.add_argument("--bin", help="folder of built binaries, instead of bin/gpu/pack.tar.xz")
    a = p.parse_args()
    b = Bench(a)
    try:
        b.all()
    finally:
        b.save()
        shutil.rmtree(b.work, ignore_errors=True)


if __name__ == "__main__":
    main()
