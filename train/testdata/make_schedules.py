"""Prints the learning-rate factors of transformers' schedules as the table of TestSchedulesEqualTransformers."""
import torch
import transformers.optimization as o


def factors(make, total):
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    s = make(opt)
    out = []
    for _ in range(total):
        out.append(s.get_last_lr()[0])
        opt.step()
        s.step()
    return out


CASES = [
    ("cosine", 3, 10, 0, lambda w, n, f: lambda p: o.get_cosine_schedule_with_warmup(p, w, n)),
    ("cosine", 2, 9, 0.1, lambda w, n, f: lambda p: o.get_cosine_with_min_lr_schedule_with_warmup(p, w, n, min_lr_rate=f)),
    ("linear", 3, 10, 0, lambda w, n, f: lambda p: o.get_linear_schedule_with_warmup(p, w, n)),
    ("constant", 4, 8, 0, lambda w, n, f: lambda p: o.get_constant_schedule_with_warmup(p, w)),
]
for kind, warmup, total, floor, make in CASES:
    values = ", ".join(repr(x) for x in factors(make(warmup, total, floor), total))
    print(f'\t\t{{"{kind}", {warmup}, {total}, {floor}, []float64{{{values}}}}},')
