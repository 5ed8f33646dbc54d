"""Makes classes.json: the code points that the Hugging Face tokenizers package takes for letters (L), numbers (N),
white space (S) in patterns, and for digits (D) in its Digits step, as ranges; and nfc.json: what its NFC makes of texts.

    python classes.py        # tokenizers 0.23.3
"""
import json
import pathlib
import random
from tokenizers import Regex, normalizers, pre_tokenizers

here = pathlib.Path(__file__).parent
points = [*range(0xD800), *range(0xE000, 0x110000)]


def ranges(member):
    out = []
    for c in points:
        if member(chr(c)):
            if out and out[-1][1] == c - 1:
                out[-1][1] = c
            else:
                out.append([c, c])
    return out


def pattern(p):
    removed = pre_tokenizers.Split(Regex(p), "removed")
    return lambda c: not removed.pre_tokenize_str(c)


digits = pre_tokenizers.Digits(individual_digits=True)
classes = {"L": ranges(pattern(r"\p{L}")), "N": ranges(pattern(r"\p{N}")), "S": ranges(pattern(r"\s")),
           "D": ranges(lambda c: len(digits.pre_tokenize_str(f"!{c}!")) == 3)}
(here / "classes.json").write_text(json.dumps(classes, separators=(",", ":")) + "\n")

nfc = normalizers.NFC()
rng = random.Random(1)
marks = "\u0301\u0323\u0302\u0308\u0327\u031B\u0345\u0334"
pool = ["a", "e", "o", "A", "s", " ", "\n", "\u00E9", "\u1EBF", "\u212B", "\u1100", "\u1161", "\u11A8", "\uAC00", "\uAC01", "\u0DD9", "\u0DCF",
        "\u0DCA", "\u0CC6", "\u0CC2", "\u0CD5", "\u09C7", "\u09BE", "\u0F71", "\u0F72", "\u0958", "\u2126", "\uFB1D", "\u0344", "\U0001D15E", "\U000110A5"]
texts = ["e" + "\u0301" * 40, "a" + "\u0323\u0301" * 40 + "b", "x" + "\u0301\u0323" * 16 + "e\u0301", "\u0301" * 35 + "e\u0301"]
for _ in range(300):
    texts.append("".join(rng.choice(pool if rng.random() < 0.5 else marks) for _ in range(rng.randint(1, 12))))
(here / "nfc.json").write_text(json.dumps([[s, nfc.normalize_str(s)] for s in texts], separators=(",", ":")) + "\n")
