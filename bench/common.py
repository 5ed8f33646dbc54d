"""What the comparisons share: the machine's description, medians, building our side, files."""
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys

median = statistics.median


def machine():
    """Describes this machine."""
    processor = platform.machine()
    try:
        with open("/proc/cpuinfo") as f:
            processor = next(line.split(":", 1)[1].strip() for line in f if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count()
    return {"processor": processor, "cores": cores, "system": platform.platform(), "date": datetime.date.today().isoformat()}


def spread(values, digits=None):
    """The median and half the range, with as many decimals as three digits need."""
    if not values:
        return "–"
    m, half = median(values), (max(values) - min(values)) / 2
    if digits is None:
        digits = 0 if m >= 100 else 1 if m >= 10 else 2
    return f"{m:.{digits}f} ±{half:.{digits}f}"


def go_build(root, package, binary):
    subprocess.run(["go", "build", "-trimpath", "-o", binary, package], cwd=root, check=True, env=dict(os.environ, CGO_ENABLED="0"))


def progress(text):
    """Says on standard error what is under way: one line that is written over on a terminal."""
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"{text:<78}", end=end, file=sys.stderr, flush=True)


def write_json(name, value):
    """Writes a file that is there whole or not at all."""
    with open(name + ".part", "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, ensure_ascii=False)
        f.write("\n")
    os.replace(name + ".part", name)
