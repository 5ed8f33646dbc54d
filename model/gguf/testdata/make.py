"""Writes peer.gguf with gguf, the Python package of llama.cpp: metadata of every kind that its writer has, and one matrix as
F32, F16, BF16, Q8_0 and Q4_0 by its quantisers. The matrix holds what rounds in special ways: ties, zeros, numbers of one
sign, numbers too small for F16.

    pip install gguf && python make.py
"""
import numpy as np
import gguf
from gguf import GGMLQuantizationType as T

r = np.random.default_rng(3)
x = r.normal(0, 0.05, (16, 96)).astype(np.float32)
x[1, :32] = 0
x[1, 32:64] = np.arange(32) / 16                      # ties of Q4_0
x[2, :32] = np.arange(-16, 16) * 127 / 16             # ties of Q8_0: the scale is 1
x[3] = np.abs(x[3])
x[4] = -np.abs(x[4])
x[5] *= 1e-6                                          # scales below F16's normal numbers
x[6] *= 1e-9                                          # scales that F16 has no number for
x[7] *= 1e4
x[8, :32] = -8
x[9, ::2] = x[9, 1::2]                                # the largest magnitude twice, in both signs below
x[9, 1::2] *= -1

w = gguf.GGUFWriter("peer.gguf", "starcoder")
w.add_uint8("a.uint8", 200)
w.add_int8("a.int8", -100)
w.add_uint16("a.uint16", 60000)
w.add_int16("a.int16", -30000)
w.add_uint32("a.uint32", 4000000000)
w.add_int32("a.int32", -2000000000)
w.add_float32("a.float32", 0.1)
w.add_uint64("a.uint64", 1 << 63)
w.add_int64("a.int64", -(1 << 62))
w.add_float64("a.float64", 0.1)
w.add_bool("a.bool", True)
w.add_string("a.string", "naïve ☃")
w.add_array("a.ints", [1, -2, 3])
w.add_array("a.floats", [0.5, -0.25])
w.add_array("a.bools", [True, False])
w.add_array("a.strings", ["", "Ġa", "b c"])
w.add_array("a.bytes", b"\x00\xff")
for t in (T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0):
    w.add_tensor("x." + t.name, x if t == T.F32 else gguf.quantize(x, t), raw_dtype=t)
w.add_tensor("vector", x[0, :7].copy())
w.add_tensor("cube", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
