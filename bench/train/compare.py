"""AutoDev's training step against PyTorch's, one after the other in turn, so that both meet the same machine.

    python bench/train/compare.py [--case a] [--precision float32] [--rounds 3] [--steps 5] [--threads 2] [--python PYTHON]

PYTHON (this interpreter) must have torch. Go builds AutoDev's side. Prints each run, then medians over all steps of all
rounds and their ratio. On a machine that others use too, look at the processor time with one thread: waiting threads spin.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--case", default="a")
    p.add_argument("--precision", default="float32")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--python", default=sys.executable)
    p.add_argument("--checkpointing", action="store_true", help="gradient checkpointing on AutoDev's side")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        binary = str(pathlib.Path(tmp) / "train")
        subprocess.run(["go", "build", "-o", binary, "."], cwd=HERE, check=True)
        flags = ["-case", a.case, "-precision", a.precision, "-steps", str(a.steps), "-threads", str(a.threads)]
        ours = [binary, *flags, *(["-checkpointing"] if a.checkpointing else [])]
        peer = [a.python, str(HERE / "peer.py"), *(f.replace("-", "--", 1) if f.startswith("-") else f for f in flags)]
        runs = {"autodev": [], "torch": []}
        for _ in range(a.rounds):
            for name, command in (("autodev", ours), ("torch", peer)):
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                r = json.loads(out.splitlines()[-1])
                runs[name].append(r)
                print(f"{r['software']:34} case {r['case']} {r['precision']}: {r['tokens_per_second']:7.0f} tokens/s "
                      f"{r['gflop_per_second']:6.1f} GFLOP/s, peak {r['peak_rss_mb']:6.0f} MB, loss {r['losses'][0]:.4f} -> {r['losses'][-1]:.4f}", flush=True)
    seconds = {n: statistics.median(s for r in rs for s in r["step_seconds"]) for n, rs in runs.items()}
    busy = {n: statistics.median(s for r in rs for s in r["cpu_seconds"]) for n, rs in runs.items()}
    memory = {n: statistics.median(r["peak_rss_mb"] for r in rs) for n, rs in runs.items()}
    print(f"medians: autodev {seconds['autodev']:.3f} s, torch {seconds['torch']:.3f} s a step: {seconds['torch'] / seconds['autodev']:.2f}x the tokens/s; "
          f"{memory['autodev']:.0f} MB against {memory['torch']:.0f} MB: {memory['autodev'] / memory['torch']:.2f}x the memory; "
          f"processor time {busy['autodev']:.3f} s against {busy['torch']:.3f} s: {busy['torch'] / busy['autodev']:.2f}x")


if __name__ == "__main__":
    main()
