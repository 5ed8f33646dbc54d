"""Writes python_blocks.tsv: where statements and blocks of Python files end, by Python's own parser.

    python python_blocks.py <corpus>/test/python > python_blocks.tsv

Each line: the beginning of the SHA-256 of the file's text, what it is, and the offsets in bytes where it begins and ends. Offsets are those of the text with
"\\n" for newlines. What a comment follows in the next line is left out: whether that belongs to it is a matter of taste.
"""

import ast
import hashlib
import pathlib
import random
import sys
import warnings

import pyarrow.parquet as parquet

warnings.simplefilter("ignore")
random.seed(1)


def cuts(text):
    data = text.encode()
    starts = [0]
    for line in data.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)

    def rest(end):
        return data[end : starts[line_of(end)]]

    def line_of(at):
        low, high = 0, len(starts)
        while high - low > 1:
            mid = (low + high) // 2
            low, high = (mid, high) if starts[mid] <= at else (low, mid)
        return low + 1

    def span(first, last):
        lineno, column = first.lineno, first.col_offset
        if getattr(first, "decorator_list", None):
            lineno, column = first.decorator_list[0].lineno, first.decorator_list[0].col_offset - 1
        begin = starts[lineno - 1] + column
        end = starts[last.end_lineno - 1] + last.end_col_offset
        line_end = starts[last.end_lineno] - 1
        tail = data[end:line_end].strip()
        if tail.startswith(b"#"):
            end = line_end - (len(data[end:line_end]) - len(data[end:line_end].rstrip()))
        elif tail:
            return None
        if data[starts[lineno - 1] : begin].strip():
            return None
        for line in data[line_end + 1 :].split(b"\n"):
            if line.strip():
                if line.strip().startswith(b"#"):
                    return None
                break
        return begin, end

    for node in ast.walk(ast.parse(text)):
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if not isinstance(body, list) or not body or not isinstance(body[0], ast.stmt):
                continue
            if name == "body" and not isinstance(node, ast.Module):
                yield "body", span(body[0], body[-1])
            for statement in body:
                kind = "statement with a block" if hasattr(statement, "body") else "statement"
                yield kind, span(statement, statement)


rows = []
for file in sorted(pathlib.Path(sys.argv[1]).glob("*.parquet")):
    for text in parquet.read_table(file, columns=["content"])["content"].to_pylist():
        text = text.replace("\r\n", "\n")
        try:
            found = sorted({(kind, *at) for kind, at in cuts(text) if at and at[1] - at[0] <= 4000})
        except SyntaxError:
            continue
        for kind in ("body", "statement", "statement with a block"):
            some = [c for c in found if c[0] == kind]
            for _, begin, end in random.sample(some, min(3, len(some))):
                rows.append((hashlib.sha256(text.encode()).hexdigest()[:16], kind, begin, end))
for row in rows:
    print(*row, sep="\t")
