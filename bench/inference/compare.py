"""Inference of AutoDev and of other software with the same weights, in turns: A B C … A B C …

    python bench/inference/compare.py speed|requests|busy|edits FOLDER [--llama DIR] [--ik DIR] [--python PYTHON] [--types q8_0 q4_0 …]
        [--weights int8 int4 …] [--corpus DIR] [--threads N] [--rounds N] [--quick] [--json FILE]

FOLDER is what prepare.py made. DIR are build folders of llama.cpp and ik_llama.cpp (llama-bench and llama-server in DIR or DIR/bin); PYTHON
has ctranslate2. What is not named, or fails, is left out, and said. Needs Go. Prints Markdown.

speed     prompt of 512 tokens, 64 tokens after a prompt of one; every sample is a process of its own. Peak memory, and decoding as a
          share of what the read bandwidth measured just before and after allows (file size without position embeddings, read once
          a token)
requests  servers: a completion with 1,000 tokens before and 300 after the cursor, 32 new; cold, and again with five tokens typed since,
          with the prompt's parts in both orders. Models of random weights repeat themselves, so nothing speculates here unless
          --speculate says that the model is a real one; but "AutoDev …, file's tokens" is our engine without HTTP, with speculation,
          where the tokens of the file are followed in place of the model's choices: what a model would cost that writes that
busy      32 tokens, in turns with and without another process that keeps one core busy
edits     ours alone: decoding with speculation and without, in turns, on edits of the corpus's files. The tokens of the edit are
          followed in place of the choices of random weights: the share of guesses accepted is that of the edits, the times are
          those of the model. And the embedded model's own choices. Equal token ids are checked
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
import statistics
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

    def __init__(self, a, weights, speculate=False):
        self.a, self.weights, self.speculate = a, weights, speculate
        self.name = f"AutoDev {weights}" + ", speculation" * speculate
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
            spec = {"weights": self.weights, "kv_cache": self.a.kv_cache, "mode": "cached", "threads": self.a.threads, "huge_pages": "on", "model": str(self.folder), "prompt_tokens": p, "new_tokens": n}
            text, peak = run([self.a.autodev, "bench", "runtime-process"], json.dumps(spec), {"GOMAXPROCS": str(self.a.threads)})
            x = json.loads(text)
            out.update({what: x[what + "_tokens_s"], "load_s": x["load_s"], "peak": max(out.get("peak", 0), x["peak_bytes"] or peak)})
        return out

    def server(self, port):
        command = [self.a.autodev, "serve", "--model", self.folder, "--listen", f"127.0.0.1:{port}", "--threads", self.a.threads, "--log", "off", "--speculate", "auto" if self.speculate else "off"]
        if self.folder.name == "model":
            command += ["--weights", self.weights]
        return command, "/v1/models"

    def request(self, ids, new):
        bias = {str(i): -100 for i in self.a.controls.values()}
        return "/v1/completions", {"prompt": ids, "max_tokens": new, "temperature": 0, "stream": True, "logit_bias": bias, "stream_options": {"include_usage": True}}


class Llama:
    """llama.cpp, or a program with its commands, with one type of GGUF file."""

    def __init__(self, a, title, folder, kind, options=()):
        self.a, self.title, self.folder, self.options = a, title, folder, [str(x) for x in options]
        self.name = " ".join([title, kind.upper(), *self.options])
        self.file = a.folder / f"{kind}.gguf"
        if not self.file.exists():
            raise Failed(f"no {self.file}")
        self.bytes = self.file.stat().st_size

    def sample(self, prompt, new):
        command = [program(self.folder, "llama-bench"), "-m", str(self.file), "-p", str(prompt), "-n", str(new), "-t", str(self.a.threads), "-r", "1", "-o", "json", *self.options]
        text, peak = run(command)
        out = {"peak": peak}
        for test in json.loads(text[text.index("["):]):
            out["prefill" if test["n_prompt"] else "decode"] = test["avg_ts"]
        return out

    def server(self, port):
        return [program(self.folder, "llama-server"), "-m", self.file, "-t", self.a.threads, "-c", 2048, "-np", 1, "--host", "127.0.0.1", "--port", port,
                *self.options], "/health"

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
        if a.speculate and a.what == "requests":
            add(Ours, w, True)
    for title, folder in (("llama.cpp", a.llama), ("ik_llama.cpp", a.ik)):
        for kind in a.types if folder else []:
            add(Llama, title, folder, kind)
            if a.what == "requests" and title == "llama.cpp":
                for how in a.speculate or []:
                    add(Llama, title, folder, kind, ("--spec-type", how))
            if a.repack and a.what != "requests" and title == "ik_llama.cpp" and kind != "bf16":
                add(Llama, title, folder, kind, ("-rtr", 1))
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


def speed(a, missing, calibrate):
    def measure(e, _):
        before = calibrate()
        out = e.sample(0, a.new)
        after = calibrate()
        out["read_gb_s"] = (before["read_gb_s"] + after["read_gb_s"]) / 2
        more = e.sample(a.prompt, 0)
        return dict(out, **dict(more, peak=max(more["peak"], out["peak"])))

    found = engines(a, missing)
    samples = rounds(a, found, missing, calibrate, measure)
    # The head reads the whole embedding table, the position embeddings stay where they are.
    c = config(a)
    skipped = 4 * c["n_positions"] * c["n_embd"]
    size = {e.name: e.bytes - skipped for e in found}
    lines = [f"| | prompt of {a.prompt}, tok/s | {a.new} new, tok/s | share of the read limit | read GB/s | peak memory | memory / weights |", "|---|---:|---:|---:|---:|---:|---:|"]
    for name, s in samples.items():
        share = [x["decode"] * size[name] / 1e9 / x["read_gb_s"] for x in s if "decode" in x]
        read = [x["read_gb_s"] for x in s]
        peak = max(x["peak"] for x in s)
        lines.append(f"| {name} | {common.spread([x['prefill'] for x in s if 'prefill' in x])} | {common.spread([x['decode'] for x in s if 'decode' in x])} "
                     f"| {median(share):.0%} | {common.spread(read)} | {peak / 1e6:.0f} MB | {peak / (size[name] + skipped):.2f} |")
    lines += ["", *ratios(samples, ("prefill", "decode")), "", *best(samples, found, ("prefill", "decode"))]
    return samples, lines


def best(samples, found, keys):
    """A table of our medians divided by the best of a peer's types."""
    lines = []
    for title in dict.fromkeys(e.title for e in found if isinstance(e, Llama)):
        theirs = [e.name for e in found if isinstance(e, Llama) and e.title == title and e.name in samples]
        for key in keys:
            medians = {n: median([x[key] for x in samples[n] if key in x]) for n in theirs if any(key in x for x in samples[n])}
            if not medians:
                continue
            top = max(medians, key=medians.get)
            for ours in (n for n in samples if n.startswith("AutoDev")):
                mine = [x[key] for x in samples[ours] if key in x]
                if mine:
                    lines.append(f"| {ours}, {key} | {top} | {median(mine) / medians[top]:.2f} |")
    return ["| our median ÷ the best of a peer's types | which | |", "|---|---|---:|", *lines] if lines else []


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
        first, timings, generated, text = None, {}, None, ""
        for line in response:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            first = first or time.perf_counter() - began
            event = json.loads(line[6:])
            text += "".join(c.get("text", "") for c in event.get("choices") or []) or event.get("content", "")
            timings = event.get("timings") or timings
            generated = (event.get("usage") or {}).get("completion_tokens", timings.get("predicted_n", generated))
        total = time.perf_counter() - began
        if first is None:
            raise Failed("the server sent no token")
        if generated != new:
            raise Failed(f"{generated} tokens generated, expected {new}")
        return {"first": first, "total": total, "evaluated": timings.get("prompt_n"), "text": text}

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Completer:
    """Our engine in a process of its own, without HTTP."""

    def __init__(self, a, folder, weights, log):
        self.log, self.masked = log, list(controls(folder).values())
        self.process = subprocess.Popen([a.tool, "complete", str(folder), weights, str(a.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                        text=True, env=dict(os.environ, GOMAXPROCS=str(a.threads)))
        began = time.perf_counter()
        try:
            self.ask(prompt=[1], new=0)
        except Failed:
            self.close()
            raise
        self.load = time.perf_counter() - began

    def ask(self, **request):
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise Failed("the process ended: " + (self.log.read().decode(errors="replace").strip().splitlines() or ["without a word"])[-1])
        return json.loads(line)

    def close(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()


class Forced(Completer):
    """A Completer that follows the tokens of a file, with speculation."""

    def __init__(self, a, weights, log):
        ours = Ours(a, weights)
        self.bytes, self.name, self.engine = ours.bytes, f"{ours.name}, file's tokens", self
        super().__init__(a, ours.folder, "-" if ours.folder.name == weights else weights, log)

    def complete(self, ids, target, fresh):
        x = self.ask(prompt=ids, new=len(target), replay=target, speculate=True, fresh=fresh)
        if x["ids"] != target:
            raise Failed("the completion is not what it was to follow")
        return {"first": x["first_s"], "total": x["total_s"], "evaluated": len(ids) - x["cached"], "accepted": x["accepted"], "drafted": x["drafted"]}


# Name, prompt's order, whether five tokens were typed since the request before, and whether they were those it had proposed.
CASES = [("PSM, cold", "psm", False, False), ("PSM, five tokens typed", "psm", True, False),
         ("SPM, cold", "spm", False, False), ("SPM, five tokens typed", "spm", True, False), ("SPM, five tokens typed as proposed", "spm", True, True)]
TYPED, NEW = 5, 32


def middles(a):
    """Runs of tokens of files: before the cursor, what was there, after it."""
    if a.corpus.exists() and not a.text:
        lines = run([a.tool, "middles", str(a.corpus), str(a.folder / "model"), str(a.rounds), str(a.before), str(TYPED + NEW), str(a.after)])[0].splitlines()
        return [json.loads(x) for x in lines]
    text = "".join(p.read_text(encoding="utf-8") for p in ([a.text] if a.text else sorted((ROOT / "infer").glob("*.go"))))
    ids = [int(x) for x in run([a.autodev, "tokenize", "--tokenizer", str(a.folder / "model")], text)[0].split()]
    step = a.before + TYPED + NEW + a.after
    if len(ids) < step * a.rounds:
        sys.exit(f"the text has {len(ids)} tokens, expected at least {step * a.rounds} for {a.rounds} rounds")
    parts = [ids[r * step:(r + 1) * step] for r in range(a.rounds)]
    return [{"before": p[:a.before], "middle": p[a.before:-a.after], "after": p[-a.after:]} for p in parts]


def requests(a, missing, calibrate):
    texts, c = middles(a), a.controls
    # Only where tokens are given is it known that what was typed is what was proposed.
    cases = [x for x in CASES if (not a.orders or x[1] in a.orders) and not (a.speculate and x[3])]

    def prompt(r, order, grown):
        prefix, suffix = texts[r]["before"] + texts[r]["middle"][:TYPED * grown], texts[r]["after"]
        if order == "psm":
            return [c["prefix"], *prefix, c["suffix"], *suffix, c["middle"]]
        return [c["prefix"], c["suffix"], *suffix, c["middle"], *prefix]

    servers = {}
    with tempfile.TemporaryDirectory() as logs:
        def start(name, make):
            common.progress(f"starting {name}")
            log = open(os.path.join(logs, str(len(servers))), "w+b")
            try:
                server = make(log)
                servers[server.engine.name] = server
            except (Failed, OSError) as error:
                missing[name] = str(error)

        try:
            for e in engines(a, missing):
                start(e.name, lambda log: Server(e, log))
            if not a.speculate:
                for w in a.weights:
                    start(f"AutoDev {w}, file's tokens", lambda log: Forced(a, w, log))

            def measure(e, r):
                out = {}
                for name, order, grown, along in cases:
                    ids, server = prompt(r, order, grown), servers[e.name]
                    if isinstance(e, Forced):
                        if grown and not along:
                            # What was proposed before is not what comes now: nothing is known of it.
                            server.ask(prompt=prompt(r, order, False), new=0, fresh=True)
                        if along:
                            server.complete(prompt(r, order, False), texts[r]["middle"][:NEW], True)
                        x = server.complete(ids, texts[r]["middle"][TYPED * grown:][:NEW], not grown)
                    elif along:
                        continue
                    else:
                        x = server.complete(ids, NEW)
                    out[name] = x
                return out

            samples = rounds(a, [s.engine for s in servers.values()], missing, calibrate, measure)
            load = {n: {"load_s": s.load, "peak": memory(s.process.pid), "resident": memory(s.process.pid, "VmRSS"), "weights": s.engine.bytes} for n, s in servers.items()}
        finally:
            for s in servers.values():
                s.close()
    lines = ["| seconds: first token / total (tokens evaluated) | " + " | ".join(samples) + " |", "|---|" + "---:|" * len(samples)]
    totals = {}
    for name, *_ in cases:
        cells = []
        for n, s in samples.items():
            found = [x[name] for x in s if name in x]
            if not found:
                cells.append("–")
                continue
            first, total = (common.spread([x[k] for x in found]) for k in ("first", "total"))
            totals[n, name] = median([x["total"] for x in found])
            evaluated = found[0]["evaluated"]
            cells.append(f"{first} / {total}" + (f" ({evaluated})" if evaluated is not None else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| ready after, s | " + " | ".join(f"{load[n]['load_s']:.2f}" for n in samples) + " |")
    lines.append("| resident / peak memory, MB | " + " | ".join(f"{load[n]['resident'] / 1e6:.0f} / {load[n]['peak'] / 1e6:.0f}" for n in samples) + " |")
    lines.append("| resident / weights | " + " | ".join(f"{load[n]['resident'] / load[n]['weights']:.2f}" for n in samples) + " |")
    for n, s in samples.items():
        found = [y for x in s for y in x.values() if "accepted" in y]
        if found:
            lines += ["", f"{n}: {sum(y['accepted'] for y in found)} of {NEW * len(found)} tokens came as guesses, of {sum(y['drafted'] for y in found)}; "
                      "tokens are the file's, not the model's choices, and there is no HTTP in the times."]
    if a.speculate:
        lines += ["", *same_text(a, samples, cases)]
    ours, theirs = ([n for n in samples if n.startswith("AutoDev") == own] for own in (True, False))
    if ours and theirs:
        lines += ["", "| their median ÷ ours, total | " + " | ".join(theirs) + " |", "|---|" + "---:|" * len(theirs)]
        for n in ours:
            for name, *_ in cases:
                # However the tokens came to be typed, the peer's request is the same.
                other = name.removesuffix(" as proposed")
                if (n, name) in totals:
                    lines.append(f"| {n}, {name} | " + " | ".join(f"{totals[t, other] / totals[n, name]:.2f}" if (t, other) in totals else "–" for t in theirs) + " |")
    return {"rounds": samples, "servers": load}, lines


def same_text(a, samples, cases):
    """Says whether our completions with speculation are those without."""
    for w in a.weights:
        plain, guessed = (samples.get(n, []) for n in (f"AutoDev {w}", f"AutoDev {w}, speculation"))
        pairs = [(x[name]["text"], y[name]["text"]) for x, y in zip(plain, guessed) for name, *_ in cases if name in x and name in y]
        if any(x != y for x, y in pairs):
            sys.exit(f"AutoDev {w}: completions differ with speculation, expected them equal: {next(p for p in pairs if p[0] != p[1])}")
        yield f"AutoDev {w}: {len(pairs)} of {len(pairs)} completions are equal with speculation and without."


def edits(a, missing, calibrate):
    tiny = ROOT / "models" / "autodev-tiny"
    # What is measured, its folder, its weights, and whether the tokens are the model's own choices.
    models = [(f"{w}", a.folder / w, "-", False) for w in a.weights] + [(f"autodev-tiny {w}", tiny, w, True) for w in ("float32", "int8")]
    samples, lines = {}, []
    table = ["| | tokens | edits | without, tok/s | with, tok/s | times as fast: median | quartiles | all together | tokens a pass | guesses accepted |",
             "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    kinds, by_kind = [], {}
    for name, folder, weights, own in models:
        if not folder.exists():
            missing[name] = f"no {folder}"
            continue
        texts = [json.loads(x) for x in run([a.tool, "edits", str(a.corpus), str(folder), str(a.files)])[0].splitlines()]
        with open(folder / "config.json", encoding="utf-8") as f:
            context = json.load(f)["n_positions"]
        kinds = list(dict.fromkeys([*kinds, *(t["kind"] for t in texts)]))
        with tempfile.TemporaryFile() as log:
            try:
                found = edited(a, Completer(a, folder, weights, log), name, texts, context, own, calibrate)
            except Failed as error:
                missing[name] = str(error)
                continue
        samples[name] = found
        faster = [x["off"]["decode_s"] / x["on"]["decode_s"] for x in found]
        off, on = (sum(x[k]["decode_s"] for x in found) for k in ("off", "on"))
        # The first token comes with the prompt; every pass gives one more than it confirms.
        tokens = sum(len(x["on"]["ids"]) - 1 for x in found)
        accepted, drafted = (sum(x["on"][k] for x in found) for k in ("accepted", "drafted"))
        low, _, high = statistics.quantiles(faster, n=4, method="inclusive") if len(faster) > 1 else faster * 3
        table.append(f"| {name} | {'its own choices' if own else 'those of the edit'} | {len(found)} | {tokens / off:.1f} | {tokens / on:.1f} | {median(faster):.2f} "
                     f"| {low:.2f}–{high:.2f} | {off / on:.2f} | {tokens / (tokens - accepted):.2f} | {accepted / max(1, drafted):.0%} |")
        by_kind[name] = {k: median([f for f, x in zip(faster, found) if x["kind"] == k]) for k in kinds if any(x["kind"] == k for x in found)}
    lines = table + ["", "| times as fast, median | " + " | ".join(kinds) + " |", "|---|" + "---:|" * len(kinds)]
    lines += [f"| {n} | " + " | ".join(f"{k[x]:.2f}" if x in k else "–" for x in kinds) + " |" for n, k in by_kind.items()]
    lines += ["", f"Token ids with speculation and without were equal in all {sum(len(s) for s in samples.values())} pairs."]
    return samples, lines


def edited(a, completer, name, texts, context, own, calibrate):
    """Completes every text with speculation and without; the first one once before, uncounted."""
    out = []
    try:
        for i, t in enumerate([texts[0], *texts]):
            common.progress(f"{name}: edit {i} of {len(texts)}")
            new = min(a.new, len(t["target"]))
            request = {"prompt": t["prompt"][-(context - new):], "new": new, "replay": None if own else t["target"][:new], "masked": completer.masked}
            sample = {"kind": t["kind"], "language": t["language"], "calibration": calibrate()}
            completer.ask(prompt=request["prompt"], new=0, fresh=True)
            # The engine looks things up in completions before, this one's twin too: the one that speculates goes first.
            for how in ("on", "off"):
                sample[how] = completer.ask(speculate=how == "on", **request)
            if sample["on"]["ids"] != sample["off"]["ids"]:
                sys.exit(f"{name}: {t['kind']}, {t['language']}: with speculation {sample['on']['ids']}, without {sample['off']['ids']}: expected equal tokens")
            if sample["off"]["drafted"] or len(sample["on"]["ids"]) != new:
                sys.exit(f"{name}: {sample}: expected {new} tokens, and no guesses without speculation")
            out.append(sample)
    finally:
        completer.close()
    return out[1:]


def controls(folder):
    """The ids of the tokens that end a completion, by role where it is one of fill-in-the-middle."""
    with open(folder / "tokenizer.json", encoding="utf-8") as f:
        added = json.load(f)["added_tokens"]
    out = {}
    for t in added:
        role = re.search(r"fim[-_](prefix|middle|suffix)", t["content"])
        out[role.group(1) if role else t["content"]] = t["id"]
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["speed", "requests", "busy", "edits"])
    p.add_argument("folder", type=pathlib.Path)
    p.add_argument("--llama")
    p.add_argument("--ik")
    p.add_argument("--python")
    p.add_argument("--types", nargs="+", default=None, help="GGUF files of the peers (default: q8_0 q4_0, for speed also bf16)")
    p.add_argument("--weights", nargs="+", default=None, help="formats of ours (default: int8 int4, for speed also bf16)")
    p.add_argument("--kv-cache", default="bf16", help="format of our keys and values, for speed and busy")
    p.add_argument("--repack", action="store_true", help="of ik_llama.cpp also what it makes of a file when loading (-rtr)")
    p.add_argument("--speculate", nargs="*", metavar="TYPE", help="requests: the model is a real one, ours speculates too, and llama.cpp with --spec-type of each TYPE (ngram-simple …)")
    p.add_argument("--corpus", type=pathlib.Path, default=pathlib.Path(os.environ.get("AUTODEV_SHARED", ROOT.parent / "shared"), "corpus", "test"),
                   help="folder with a folder of files for each language, for edits and requests")
    p.add_argument("--files", type=int, default=2, help="edits: files of a language, each edited in several ways")
    p.add_argument("--before", type=int, default=1000, help="requests: tokens before the cursor")
    p.add_argument("--after", type=int, default=300, help="requests: tokens after the cursor")
    p.add_argument("--orders", nargs="*", choices=["psm", "spm"])
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--rounds", type=int)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--new", type=int, help="tokens decoded (default: 64, for edits 128)")
    p.add_argument("--text", type=pathlib.Path, help="source code for requests, in place of the corpus (without either: our own)")
    p.add_argument("--quick", action="store_true", help="2 rounds, Q8_0 and int8 only; edits of one file of a language")
    p.add_argument("--json", help="file for everything measured")
    a = p.parse_args()
    a.weights = a.weights or (["int8"] if a.quick else ["bf16", "int8", "int4"] if a.what == "speed" else ["int8", "int4"])
    a.new = a.new or (128 if a.what == "edits" else 64)
    if a.quick:
        a.files = 1
    a.types = a.types or (["q8_0"] if a.quick else ["q8_0", "q4_0", "bf16"] if a.what == "speed" else ["q8_0", "q4_0"])
    a.rounds = 1 if a.what == "edits" else a.rounds or (2 if a.quick else {"speed": 4, "requests": 3, "busy": 3}[a.what])
    missing = {}
    with tempfile.TemporaryDirectory() as tools:
        a.autodev, tool, a.tool = (os.path.join(tools, x) for x in ("autodev", "gemm", "inference"))
        common.go_build(ROOT, "./cmd/autodev", a.autodev)
        common.go_build(ROOT, "./bench/gemm", tool)
        common.go_build(ROOT, "./bench/inference", a.tool)
        a.controls = controls(a.folder / "model")
        calibrate = Calibration(tool, a.threads)
        try:
            samples, lines = {"speed": speed, "requests": requests, "busy": busy, "edits": edits}[a.what](a, missing, calibrate)
        except Failed as error:
            sys.exit(str(error))
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
