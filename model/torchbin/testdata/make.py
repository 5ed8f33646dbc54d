"""Makes with torch (pip: torch) the state dicts the Go tests read: new.bin (zip), legacy.bin (the stream format before torch 1.6) and
bad ones that name other things than tensors. Usage: make.py FOLDER"""
import collections
import os
import pathlib
import sys
import torch

out = pathlib.Path(sys.argv[1])


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def state():
    base = torch.arange(24, dtype=torch.float32)
    d = collections.OrderedDict()
    d["plain"] = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 4
    d["shared.a"] = base[2:8].view(2, 3)
    d["shared.b"] = base[2:8].view(3, 2).t()  # strides (1, 2)
    d["every.third"] = base[1::3]  # stride 3
    d["permuted"] = base.view(2, 3, 4).permute(2, 0, 1)
    d["parameter"] = torch.nn.Parameter(torch.tensor([1.5, -2.0]))
    d["half"] = torch.tensor([1.0, -0.5, 65504.0], dtype=torch.float16)
    d["bf16"] = torch.tensor([1.0, -0.5, 3.0], dtype=torch.bfloat16)
    d["double"] = torch.tensor([0.25], dtype=torch.float64)
    d["scalar"] = torch.tensor(2.5)
    d["empty"] = torch.zeros(0, 3)
    d["long"] = torch.tensor([1, -1])
    d["mask"] = torch.tril(torch.ones(2, 2, dtype=torch.bool))
    return d


torch.save(state(), out / "new.bin")
torch.save(state(), out / "legacy.bin", _use_new_zipfile_serialization=False)
torch.save(torch.nn.Linear(2, 1).state_dict(), out / "module.bin")  # carries _metadata
torch.save({"a": Evil()}, out / "evil.bin")
torch.save({"a": Evil()}, out / "evil-legacy.bin", _use_new_zipfile_serialization=False)
torch.save({"epoch": 3, "a": torch.zeros(1)}, out / "number.bin")
torch.save([torch.zeros(1)], out / "list.bin")
torch.save({"a": torch.zeros(1).expand(1000)}, out / "expanded.bin")
torch.save(torch.nn.Linear(2, 1), out / "whole-module.bin")
