"""Matrix products of AutoDev and of other software on the same operands, in turns: A B C … A B C …

    python bench/gemm/compare.py [--python PYTHON] [--openblas LIBRARY [--coretype SkylakeX]] [--threads N] [--quick] [--json FILE]

PYTHON has PyTorch and, for ONNX Runtime, onnxruntime and onnx; LIBRARY is a libopenblas.so. A peer that is not named or cannot be
started is left out, and said. Needs Go. Prints Markdown: medians in GFLOP/s (GOP/s for integers) with half the range, the ratio of medians to the peer
of the same precision, and the limit, measured before each round: the rate of the precision's widest instruction (multiply-add, VDPBF16PS,
VPDPBUSD) on registers, on all threads, and our share of it. Results are compared with ours at four elements.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import common  # noqa: E402
from common import median  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
SHAPES = [(2048, 2048, 2048), (512, 8192, 2048), (512, 2048, 8192), (128, 8192, 2048), (1, 8192, 2048)]
# Ours, the precision, and the peers it is compared with.
OURS = {
    "float32": ["openblas", "torch-float32"],
    "float32-packed": ["openblas", "torch-float32", "onnxruntime-float32"],
    "bf16": ["torch-bf16"],
    "bf16-packed": ["torch-bf16"],
    "int8": ["torch-int8", "onnxruntime-int8"],
    "int4": ["onnxruntime-int8"],
}
# The calibration's limit of a precision; 0 where the processor has no such instruction. Products with int4 weights are of 8 bits.
LIMIT = {"float32": "fma_gflops_s", "bf16": "bf16_gflops_s", "int8": "int8_gops_s", "int4": "int8_gops_s"}
# Largest error of an element against the float32 product's spread, by precision.
TOLERANCE = {"float32": 1e-4, "bf16": 0.03, "int8": 0.1, "int4": 0.6}


class Worker:
    """A process that times products on request."""

    def __init__(self, name, command, env, greets):
        self.name, self.version = name, ""
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, **env))
        if greets:
            self.version = self.read()["version"]

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.stdin.close()
            raise RuntimeError(self.process.stderr.read().strip().splitlines()[-1:] or ["no answer"])
        return json.loads(line)

    def ask(self, line=""):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--python", help="an interpreter with the peers' packages")
    p.add_argument("--openblas", help="a libopenblas.so")
    p.add_argument("--coretype", default="", help="OPENBLAS_CORETYPE: old versions take new processors for old ones")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--rounds", type=int, default=15)
    p.add_argument("--seconds", type=float, default=0.15, help="of products a sample")
    p.add_argument("--shapes", nargs="*", help="MxNxK")
    p.add_argument("--quick", action="store_true", help="5 rounds: a few minutes")
    p.add_argument("--json", help="file for everything measured")
    a = p.parse_args()
    shapes = [tuple(int(x) for x in s.split("x")) for s in a.shapes] if a.shapes else SHAPES
    rounds = 5 if a.quick else a.rounds
    with tempfile.TemporaryDirectory() as folder:
        result = measure(a, shapes, rounds, folder)
    print(markdown(result))
    if a.json:
        common.write_json(a.json, result)


def measure(a, shapes, rounds, folder):
    tool = os.path.join(folder, "gemm")
    common.go_build(ROOT, "./bench/gemm", tool)
    for s in shapes:
        subprocess.run([tool, "operands", folder, *map(str, s)], check=True)
    threads, workers, missing = str(a.threads), [], {}
    for kind in OURS:
        workers.append(Worker(kind, [tool, kind, folder, threads], {"GOMAXPROCS": threads}, False))
    peer = str(pathlib.Path(__file__).with_name("peer.py"))
    env = {v: threads for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    candidates = []
    if a.openblas:
        candidates.append(("openblas", [sys.executable, peer, "openblas", a.openblas], dict(env, **({"OPENBLAS_CORETYPE": a.coretype} if a.coretype else {}))))
    if a.python:
        for kind in ("torch-float32", "torch-bf16", "torch-int8", "onnxruntime-float32", "onnxruntime-int8"):
            candidates.append((kind, [a.python, peer, kind, "-"], env))
    for kind, command, env in candidates:
        try:
            workers.append(Worker(kind, [*command, folder, threads], env, True))
        except RuntimeError as e:
            missing[kind] = str(e)
    calibrate = Worker("calibrate", [tool, "calibrate", threads], {"GOMAXPROCS": threads}, False)
    out = {"machine": common.machine(), "threads": a.threads, "rounds": rounds, "peers": {w.name: w.version for w in workers if w.version},
           "missing": missing, "shapes": []}
    for m, n, k in shapes:
        shape = {"m": m, "n": n, "k": k, "samples": {w.name: [] for w in workers}, "calibration": []}
        corners = {}
        for r in range(rounds):
            common.progress(f"{m}×{n}×{k}: round {r + 1} of {rounds}")
            shape["calibration"].append(calibrate.ask())
            for w in list(workers):
                try:
                    x = w.ask(f"{m} {n} {k} {a.seconds}")
                except RuntimeError as e:
                    missing[w.name] = str(e)
                    workers.remove(w)
                    continue
                shape["samples"][w.name].append(x["seconds"])
                corners[w.name] = x["corners"]
        check(shape, corners)
        out["shapes"].append(shape)
    for w in [*workers, calibrate]:
        w.close()
    return out


def check(shape, corners):
    """Compares every result with our float32 product."""
    spread = math.sqrt(shape["k"]) / 3  # of a sum of k products of numbers uniform in -1…1
    shape["errors"] = {}
    for name, values in corners.items():
        error = max(abs(x - y) for x, y in zip(values, corners["float32"])) / spread
        precision = next(p for p in TOLERANCE if p in (name if name != "openblas" else "float32"))
        shape["errors"][name] = error
        if not error <= TOLERANCE[precision]:
            sys.exit(f"{name}: {shape['m']}×{shape['n']}×{shape['k']}: {values}, expected about {corners['float32']}")


def rate(shape, name):
    return [2e-9 * shape["m"] * shape["n"] * shape["k"] / s for s in shape["samples"].get(name, [])]


def markdown(r):
    lines = [f"{r['machine']['processor']}, {r['machine']['cores']} cores, {r['threads']} threads, {r['rounds']} rounds; {r['machine']['date']}."]
    lines += [f"{name}: {version}." for name, version in r["peers"].items()]
    lines += [f"{name} left out: {why}." for name, why in r["missing"].items()]
    lines += ["", "| M×N×K | read GB/s | ours | GFLOP/s | limit | of the limit | peer | GFLOP/s | ratio |", "|---|---:|---|---:|---:|---:|---|---:|---:|"]
    for s in r["shapes"]:
        first = f"{s['m']}×{s['n']}×{s['k']} | {common.spread([c['read_gb_s'] for c in s['calibration']])}"
        for ours, peers in OURS.items():
            limits = [c[LIMIT[ours.removesuffix("-packed")]] for c in s["calibration"]]
            limit = f"{common.spread(limits)} | {median(rate(s, ours)) / median(limits):.0%}" if median(limits) else "– | –"
            have = [p for p in peers if s["samples"].get(p)]
            for p in have or [None]:
                theirs = f"{p} | {common.spread(rate(s, p))} | {median(rate(s, ours)) / median(rate(s, p)):.2f}" if p else "– | – | –"
                lines.append(f"| {first} | {ours} | {common.spread(rate(s, ours))} | {limit} | {theirs} |")
                first = " | "
    return "\n".join(lines)


if __name__ == "__main__":
    main()
