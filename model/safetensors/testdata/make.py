"""Makes mixed.safetensors with the reference implementation (pip: safetensors, torch): every element type, an empty tensor, a scalar,
a name that needs JSON escapes, metadata. The Go test expects the same bytes from Write."""
import sys
import torch
from safetensors.torch import save_file

t = {
    "f64": torch.tensor([0.1, -2.0], dtype=torch.float64),
    "f32": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7,
    "f16": torch.tensor([1.0, -0.5, 65504.0], dtype=torch.float16),
    "bf16": torch.tensor([1.0, -0.5, 3.0], dtype=torch.bfloat16),
    "i64": torch.tensor([-1, 1 << 40]),
    "i32": torch.tensor([-1, 7], dtype=torch.int32),
    "i16": torch.tensor([-1, 7], dtype=torch.int16),
    "i8": torch.tensor([-1, 7], dtype=torch.int8),
    "u8": torch.tensor([255, 7], dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 4),
    "scalar": torch.tensor(2.5),
    'a"<é': torch.tensor([1.5]),
    "b": torch.tensor([2.5]),
}
save_file(t, sys.argv[1], metadata={"format": "pt"})
