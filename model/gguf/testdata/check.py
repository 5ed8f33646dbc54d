"""Reads GGUF files with gguf, the Python package of llama.cpp, and prints what it finds as JSON: per file the metadata and the
tensors with their shapes, types, offsets and the SHA-256 of their values as float32. Where a file has a tensor x.F32, every
x.TYPE is compared with what the package's own quantiser makes of it. The element types' blocks are printed, too.

    python check.py FILE...
"""
import hashlib
import json
import sys

import numpy as np
import gguf

files = []
for name in sys.argv[1:]:
    f = gguf.GGUFReader(name)
    data = {t.name: t for t in f.tensors}
    fields = {k: v.contents() for k, v in f.fields.items() if not k.startswith("GGUF.")}
    tensors, differ = [], []
    for t in f.tensors:
        values = gguf.dequantize(t.data, t.tensor_type).astype("<f4")
        shape = [int(n) for n in reversed(t.shape)]
        tensors.append({"name": t.name, "type": t.tensor_type.name, "shape": shape, "offset": int(t.data_offset), "size": int(t.n_bytes),
                        "sha256": hashlib.sha256(values.tobytes()).hexdigest()})
        stem, _, kind = t.name.rpartition(".")
        full = data.get(stem + ".F32")
        if full is not None and kind == t.tensor_type.name:
            want = gguf.quantize(np.array(full.data).reshape(shape), t.tensor_type)
            if want.tobytes() != np.array(t.data).tobytes():
                differ.append(t.name)
    files.append({"fields": fields, "tensors": tensors, "differ": differ})
sizes = {t.name: [int(t), b, s] for t, (b, s) in gguf.GGML_QUANT_SIZES.items()}
print(json.dumps({"files": files, "sizes": sizes}))
