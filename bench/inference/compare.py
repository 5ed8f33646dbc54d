"""Inference of AutoDev and of other software with the same weights, in turns: A B C … A B C …

    python bench/inference/compare.py speed|requests|busy FOLDER [--llama DIR] [--ik DIR] [--python PYTHON] [--types q8_0 q4_0 …]
        [--weights int8 int4 …] [--threads N] [--rounds N] [--quick] [--json FILE]

FOLDER is what prepare.py made. DIR are build folders of llama.cpp and ik_llama.cpp (llama-bench and llama-server in DIR or DIR/bin); PYTHON
has ctranslate2. What is not named, or fails, is left out, and said. Needs Go. Prints Markdown.

speed     prompt of 512 tokens, 64 tokens after a prompt of one; every sample is a process of its own. Peak memory, and decoding as a
          share of what the read bandwidth measured just before allows (file size without position embeddings, read once a token)
requests  servers: a completion with 1,000 tokens before and 300 after the cursor, 32 new; cold, and again with five tokens typed since,
          with the prompt's parts in both orders; without speculation, since random weights repeat themselves
busy      32 tokens, in turns with and without another process that keeps one core busy
"""
import argparse
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import common  # noqa: E402
from common import median  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
HERE = pathlib.Path(__file__).parent


class Failed(Exception):
    """A peer that cannot be measured."""


def run(command, stdin="", env=None, timeout=600):
    """Runs a program; returns its output and its peak memory in bytes."""
    p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, **(env or {})))
    timer = threading.Timer(timeout, p.kill)
    timer.start()
    peak = [0]
    # The largest resident set of a child in getrusage can be its parent's from before exec; the one in /proc is its own.
    done = threading.Event()

    def watch():
        while not done.wait(0.05):
            peak[0] = max(peak[0], memory(p.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        out, err = p.communicate(stdin)
    finally:
        timer.cancel()
        done.set()
        watcher.join()
    if p.returncode:
        raise Failed(f"exit code {p.returncode}: " + " / ".join((err.strip() or out.strip() or "no output").splitlines()[-2:]))
    return out, peak[0]


def memory(pid, field="VmHWM"):
    """Peak (VmHWM) or present (VmRSS) resident set of a process in bytes, 0 for unknown."""
    try:
        with open(f"/proc/{pid}/status") as f:
            return 1024 * int(next(line.split()[1] for line in f if line.startswith(field + ":")))
    except (OSError, StopIteration):
        return 0


def program(folder, name):
    for candidate in (pathlib.Path(folder, "bin", name), pathlib.Path(folder, name)):
        if candidate.exists():
            return str(candidate)
    raise Failed(f"no {name} in {folder}")


class Ours:
    """AutoDev with one weight format."""

    def __init__(self, a, weights):
        self.a, self.weights, self.name = a, weights, f"AutoDev {weights}"
        packed = a.folder / weights
        self.folder = packed if packed.exists() else a.folder / "model"
        if not self.folder.exists():
            raise Failed(f"no {self.folder}")
        # A folder of the format itself says what a token reads; other formats are made of the parameters when loading.
        self.bytes = sum(f.stat().st_size for f in packed.iterdir() if f.suffix not in (".json", ".txt")) if packed.exists() else \
            parameters(a) * {"float32": 4, "bf16": 2, "int8": 1, "int4": 0.5}[weights]

    def sample(self, prompt, new):
        out = {}
        for what, p, n in (("prefill", prompt, 2), ("decode", 1, new)):
            if (prompt if what == "prefill" else new) == 0:
                continue
            spec = {"weights": self.weights, "kv_cache": "float32", "mode": "cached", "threads": self.a.threads, "model": str(self.folder), "prompt_tokens": p, "new_tokens": n}
            text, peak = run([self.a.autodev, "bench", "runtime-process"], json.dumps(spec), {"GOMAXPROCS": str(self.a.threads)})
            x = json.loads(text)
            out.update({what: x[what + "_tokens_s"], "load_s": x["load_s"], "peak": max(out.get("peak", 0), x["peak_bytes"] or peak)})
        return out

    def server(self, port):
        command = [self.a.autodev, "serve", "--model", self.folder, "--listen", f"127.0.0.1:{port}", "--threads", self.a.threads, "--log", "off", "--speculate", "off"]
        if self.folder.name == "model":
            command += ["--weights", self.weights]
        return command, "/v1/models"

    def request(self, ids, new):
        bias = {str(i): -100 for i in self.a.controls.values()}
        return "/v1/completions", {"prompt": ids, "max_tokens": new, "temperature": 0, "stream": True, "logit_bias": bias, "stream_options": {"include_usage": True}}


class Llama:
    """llama.cpp, or a program with its commands, with one type of GGUF file."""

    def __init__(self, a, title, folder, kind):
        self.a, self.name, self.folder = a, f"{title} {kind.upper()}", folder
        self.file = a.folder / f"{kind}.gguf"
        if not self.file.exists():
            raise Failed(f"no {self.file}")
        self.bytes = self.file.stat().st_size

    def sample(self, prompt, new):
        command = [program(self.folder, "llama-bench"), "-m", str(self.file), "-p", str(prompt), "-n", str(new), "-t", str(self.a.threads), "-r", "1", "-o", "json"]
        text, peak = run(command)
        out = {"peak": peak}
        for test in json.loads(text[text.index("["):]):
            out["prefill" if test["n_prompt"] else "decode"] = test["avg_ts"]
        return out

    def server(self, port):
        return [program(self.folder, "llama-server"), "-m", self.file, "-t", self.a.threads, "-c", 2048, "-np", 1, "--host", "127.0.0.1", "--port", port], "/health"

    def request(self, ids, new):
        return "/completion", {"prompt": ids, "n_predict": new, "ignore_eos": True, "temperature": 0, "top_k": 1, "stream": True, "cache_prompt": True}


class CTranslate2:
    def __init__(self, a):
        self.a, self.name, self.folder = a, "CTranslate2 int8", a.folder / "ctranslate2-int8"
        if not self.folder.exists():
            raise Failed(f"no {self.folder}")
        self.bytes = (self.folder / "model.bin").stat().st_size

    def sample(self, prompt, new):
        text, peak = run([self.a.python, str(HERE / "peer_ctranslate2.py"), str(self.folder), str(self.a.threads), str(prompt), str(new)],
                         env={"OMP_NUM_THREADS": str(self.a.threads)})
        return dict(json.loads(text), peak=peak)


def config(a):
    with open(a.folder / "model" / "config.json") as f:
        return json.load(f)


def parameters(a):
    return json.loads(run([a.autodev, "model", "info", "--format", "json", str(a.folder / "model")])[0])["parameters"]["total"]


def engines(a, missing):
    out = []

    def add(make, *args):
        try:
            out.append(make(a, *args))
        except Failed as e:
            missing[" ".join(str(x) for x in args) or make.__name__] = str(e)

    for w in a.weights:
        add(Ours, w)
    for title, folder in (("llama.cpp", a.llama), ("ik_llama.cpp", a.ik)):
        for kind in a.types if folder else []:
            add(Llama, title, folder, kind)
    if a.python and a.what != "requests":
        add(CTranslate2)
    return out


class Calibration:
    """The machine's speed on demand, from our tool."""

    def __init__(self, tool, threads):
        self.process = subprocess.Popen([tool, "calibrate", str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=dict(os.environ, GOMAXPROCS=str(threads)))

    def __call__(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def rounds(a, list_of_engines, missing, calibrate, measure):
    """Calls measure for every engine in turn, a.rounds times; an engine that fails is left out from then on."""
    samples = {e.name: [] for e in list_of_engines}
    for r in range(a.rounds):
        for e in list_of_engines:
            if e.name in missing:
                continue
            common.progress(f"round {r + 1} of {a.rounds}: {e.name}")
            c = calibrate()
            try:
                samples[e.name].append(dict(measure(e, r), calibration=c))
            except (Failed, OSError, ValueError, KeyError, http.client.HTTPException) as error:
                missing[e.name] = f"{type(error).__name__}: {error}"
    return {name: s for name, s in samples.items() if s}


def ratio(values, ours, theirs):
    return f"{median(values[ours]) / median(values[theirs]):.2f}×" if values.get(ours) and values.get(theirs) else "–"


def speed(a, missing, calibrate):
    found = engines(a, missing)
    samples = rounds(a, found, missing, calibrate, lambda e, _: e.sample(a.prompt, a.new))
    # The head reads the whole embedding table, the position embeddings stay where they are.
    c = config(a)
    skipped = 4 * c["n_positions"] * c["n_embd"]
    size = {e.name: e.bytes - skipped for e in found}
    lines = [f"| | prompt of {a.prompt}, tok/s | {a.new} new, tok/s | share of the read limit | read GB/s | peak memory | memory / weights |", "|---|---:|---:|---:|---:|---:|---:|"]
    for name, s in samples.items():
        share = [x["decode"] * size[name] / 1e9 / x["calibration"]["read_gb_s"] for x in s if "decode" in x]
        read = [x["calibration"]["read_gb_s"] for x in s]
        peak = max(x["peak"] for x in s)
        lines.append(f"| {name} | {common.spread([x['prefill'] for x in s if 'prefill' in x])} | {common.spread([x['decode'] for x in s if 'decode' in x])} "
                     f"| {median(share):.0%} | {common.spread(read)} | {peak / 1e6:.0f} MB | {peak / (size[name] + skipped):.2f} |")
    lines += ["", *ratios(samples, ("prefill", "decode"))]
    return samples, lines


def ratios(samples, keys):
    """A table of our medians divided by every peer's."""
    names = [n for n in samples if not n.startswith("AutoDev")]
    lines = ["| our median ÷ the peer's | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)] if names else []
    for ours in (n for n in samples if n.startswith("AutoDev")):
        for key in keys:
            cells = []
            for theirs in names:
                x, y = ([s[key] for s in samples[n] if key in s] for n in (ours, theirs))
                cells.append(f"{median(x) / median(y):.2f}" if x and y else "–")
            if names:
                lines.append(f"| {ours}, {key} | " + " | ".join(cells) + " |")
    return lines


def busy(a, missing, calibrate):
    def measure(e, _):
        quiet = e.sample(0, a.new)["decode"]
        neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            return {"quiet": quiet, "busy": e.sample(0, a.new)["decode"]}
        finally:
            neighbour.kill()
            neighbour.wait()

    a.new = min(a.new, 32)
    samples = rounds(a, engines(a, missing), missing, calibrate, measure)
    lines = [f"| {a.new} tokens, tok/s | quiet | one core busy | share kept |", "|---|---:|---:|---:|"]
    for name, s in samples.items():
        quiet, loaded = ([x[k] for x in s] for k in ("quiet", "busy"))
        lines.append(f"| {name} | {common.spread(quiet)} | {common.spread(loaded)} | {median(loaded) / median(quiet):.0%} |")
    return samples, lines


class Server:
    """A running server."""

    def __init__(self, engine, log):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        command, health = engine.server(self.port)
        self.engine, self.log = engine, log
        began = time.perf_counter()
        env = {"GOMAXPROCS": str(engine.a.threads)} if isinstance(engine, Ours) else {}
        self.process = subprocess.Popen([str(x) for x in command], stdout=subprocess.DEVNULL, stderr=log, env=dict(os.environ, **env))
        while True:
            if self.process.poll() is not None:
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines()
                raise Failed("the server ended: " + (lines or ["without a word"])[-1])
            with contextlib.suppress(OSError, http.client.HTTPException):
                c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                c.request("GET", health)
                if c.getresponse().status == 200:
                    break
            if time.perf_counter() - began > 300:
                self.close()
                raise Failed("the server was not ready after five minutes")
            time.sleep(0.02)
        self.load = time.perf_counter() - began

    def complete(self, ids, new):
        """Returns seconds to the first token and in total, and what the server says of itself."""
        path, body = self.engine.request(ids, new)
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        began = time.perf_counter()
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = c.getresponse()
        if response.status != 200:
            raise Failed(f"status {response.status}: {response.read()[:300]!r}")
        first, timings, generated = None, {}, None
        for line in response:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            first = first or time.perf_counter() - began
            event = json.loads(line[6:])
            timings = event.get("timings") or timings
            generated = (event.get("usage") or {}).get("completion_tokens", timings.get("predicted_n", generated))
        total = time.perf_counter() - began
        if first is None:
            raise Failed("the server sent no token")
        if generated != new:
            raise Failed(f"{generated} tokens generated, expected {new}")
        return {"first": first, "total": total, "evaluated": timings.get("prompt_n")}

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


# Name, prompt's order, whether five tokens were typed since the request before.
CASES = [("PSM, cold", "psm", False), ("PSM, five tokens typed", "psm", True), ("SPM, cold", "spm", False), ("SPM, five tokens typed", "spm", True)]


def requests(a, missing, calibrate):
    text = "".join(p.read_text(encoding="utf-8") for p in ([a.text] if a.text else sorted((ROOT / "infer").glob("*.go"))))
    ids = [int(x) for x in run([a.autodev, "tokenize", "--tokenizer", str(a.folder / "model")], text)[0].split()]
    before, after, typed, new = 1000, 300, 5, 32
    step = before + typed + after
    if len(ids) < step * a.rounds:
        sys.exit(f"the text has {len(ids)} tokens, expected at least {step * a.rounds} for {a.rounds} rounds")
    c = a.controls

    def prompt(r, order, grown):
        part = ids[r * step:(r + 1) * step]
        prefix, suffix = part[:before + typed * grown], part[before + typed:]
        if order == "psm":
            return [c["prefix"], *prefix, c["suffix"], *suffix, c["middle"]]
        return [c["prefix"], c["suffix"], *suffix, c["middle"], *prefix]

    servers = {}
    with tempfile.TemporaryDirectory() as logs:
        try:
            for i, e in enumerate(engines(a, missing)):
                common.progress(f"starting {e.name}")
                try:
                    servers[e.name] = Server(e, open(os.path.join(logs, str(i)), "w+b"))
                except (Failed, OSError) as error:
                    missing[e.name] = str(error)

            def measure(e, r):
                out = {}
                for name, order, grown in CASES:
                    if not a.orders or order in a.orders:
                        x = servers[e.name].complete(prompt(r, order, grown), new)
                        out.update({f"{name}: first token": x["first"], f"{name}: total": x["total"], f"{name}: evaluated": x["evaluated"]})
                return out

            samples = rounds(a, [s.engine for s in servers.values()], missing, calibrate, measure)
            load = {n: {"load_s": s.load, "peak": memory(s.process.pid), "resident": memory(s.process.pid, "VmRSS"), "weights": s.engine.bytes} for n, s in servers.items()}
        finally:
            for s in servers.values():
                s.close()
    lines = ["| seconds: first token / total (tokens evaluated) | " + " | ".join(samples) + " |", "|---|" + "---:|" * len(samples)]
    for name, order, _ in CASES:
        if a.orders and order not in a.orders:
            continue
        cells = []
        for s in samples.values():
            first, total = (common.spread([x[f"{name}: {k}"] for x in s]) for k in ("first token", "total"))
            evaluated = s[0][f"{name}: evaluated"]
            cells.append(f"{first} / {total}" + (f" ({evaluated})" if evaluated is not None else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| ready after, s | " + " | ".join(f"{load[n]['load_s']:.2f}" for n in samples) + " |")
    lines.append("| resident / peak memory, MB | " + " | ".join(f"{load[n]['resident'] / 1e6:.0f} / {load[n]['peak'] / 1e6:.0f}" for n in samples) + " |")
    lines.append("| resident / weights | " + " | ".join(f"{load[n]['resident'] / load[n]['weights']:.2f}" for n in samples) + " |")
    ours, theirs = ([n for n in samples if n.startswith("AutoDev") == own] for own in (True, False))
    if ours and theirs:
        lines += ["", "| their median ÷ ours, total | " + " | ".join(theirs) + " |", "|---|" + "---:|" * len(theirs)]
        for n in ours:
            for name, order, _ in CASES:
                if not a.orders or order in a.orders:
                    mine = median([x[f"{name}: total"] for x in samples[n]])
                    lines.append(f"| {n}, {name} | " + " | ".join(f"{median([x[f'{name}: total'] for x in samples[t]]) / mine:.2f}" for t in theirs) + " |")
    return {"rounds": samples, "servers": load}, lines


def controls(a):
    """The ids of the tokens that end a completion, by role where it is one of fill-in-the-middle."""
    with open(a.folder / "model" / "tokenizer.json", encoding="utf-8") as f:
        added = json.load(f)["added_tokens"]
    out = {}
    for t in added:
        role = re.search(r"fim[-_](prefix|middle|suffix)", t["content"])
        out[role.group(1) if role else t["content"]] = t["id"]
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["speed", "requests", "busy"])
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("--llama")
    p.add_argument("--ik")
    p.add_argument("--python")
    p.add_argument("--types", nargs="+", default=None, help="GGUF files of the peers (default: q8_0 q4_0, for speed also bf16)")
    p.add_argument("--weights", nargs="+", default=["int8", "int4"], help="formats of ours")
    p.add_argument("--orders", nargs="*", choices=["psm", "spm"])
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--rounds", type=int)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--new", type=int, default=64)
    p.add_argument("--text", type=pathlib.Path, help="source code for requests (default: our own)")
    p.add_argument("--quick", action="store_true", help="2 rounds, Q8_0 and int8 only")
    p.add_argument("--json", help="file for everything measured")
    a = p.parse_args()
    if a.quick:
        a.weights = a.weights[:1]
    a.types = a.types or (["q8_0"] if a.quick else ["q8_0", "q4_0", "bf16"] if a.what == "speed" else ["q8_0", "q4_0"])
    a.rounds = a.rounds or (2 if a.quick else {"speed": 4, "requests": 3, "busy": 3}[a.what])
    missing = {}
    with tempfile.TemporaryDirectory() as tools:
        a.autodev, tool = os.path.join(tools, "autodev"), os.path.join(tools, "gemm")
        common.go_build(ROOT, "./cmd/autodev", a.autodev)
        common.go_build(ROOT, "./bench/gemm", tool)
        a.controls = controls(a)
        calibrate = Calibration(tool, a.threads)
        try:
            samples, lines = {"speed": speed, "requests": requests, "busy": busy}[a.what](a, missing, calibrate)
        finally:
            calibrate.close()
    machine, versions = common.machine(), {}
    for title, folder in (("llama.cpp", a.llama), ("ik_llama.cpp", a.ik)):
        if folder:
            with contextlib.suppress(Failed, OSError):
                done = subprocess.run([program(folder, "llama-server"), "--version"], capture_output=True, text=True)
                found = re.search(r"version: .*", done.stdout + done.stderr)
                versions[title] = found.group(0) if found else "unknown"
    print(f"{machine['processor']}, {machine['cores']} cores, {a.threads} threads, {a.rounds} rounds; {machine['date']}. "
          + " ".join(f"{k}: {v}." for k, v in versions.items()))
    for name, why in missing.items():
        print(f"{name} left out: {why}")
    print("\n" + "\n".join(lines))
    if a.json:
        common.write_json(a.json, {"machine": machine, "what": a.what, "threads": a.threads, "rounds": a.rounds, "versions": versions, "missing": missing, "samples": samples})


if __name__ == "__main__":
    main()
