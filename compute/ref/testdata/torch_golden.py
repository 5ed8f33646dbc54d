"""Writes torch_golden.json: what PyTorch computes in float64 for the kernels of the vocabulary that it has.

Run: python torch_golden.py > torch_golden.json
"""
import json

import torch
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)


def flat(t):
    return [round(x, 12) for x in t.detach().flatten().tolist()]


def rand(*shape):
    # Few digits, so that the file holds the inputs exactly.
    return (torch.randn(*shape) * 64).round() / 64


out = {"torch": torch.__version__}

x, gain, bias, dy = rand(3, 8).requires_grad_(), rand(8).requires_grad_(), rand(8).requires_grad_(), rand(3, 8)
y = F.layer_norm(x, (8,), gain, bias, 1e-5)
y.backward(dy)
out["layernorm"] = dict(x=flat(x), gain=flat(gain), bias=flat(bias), dy=flat(dy), y=flat(y), dx=flat(x.grad), dgain=flat(gain.grad), dbias=flat(bias.grad))

for name, approximate in (("gelu_tanh", "tanh"), ("gelu_erf", "none")):
    x, dy = (rand(24) * 2).requires_grad_(), rand(24)
    y = F.gelu(x, approximate=approximate)
    y.backward(dy)
    out[name] = dict(x=flat(x), dy=flat(dy), y=flat(y), dx=flat(x.grad))

# Grouped attention over packed columns with document bounds.
batch, seq, heads, kv, dim = 2, 6, 4, 2, 3
start = torch.tensor([[0, 0, 0, 3, 3, 5], [0, 1, 1, 1, 4, 4]])
qkv, dy = rand(batch, seq, (heads + 2 * kv) * dim).requires_grad_(), rand(batch, seq, heads * dim)
q, k, v = qkv.split([heads * dim, kv * dim, kv * dim], 2)
q = q.view(batch, seq, heads, dim).transpose(1, 2)
k = k.view(batch, seq, kv, dim).transpose(1, 2).repeat_interleave(heads // kv, 1)
v = v.view(batch, seq, kv, dim).transpose(1, 2).repeat_interleave(heads // kv, 1)
t = torch.arange(seq)
mask = (t[None, None, :] <= t[None, :, None]) & (t[None, None, :] >= start[:, :, None])
y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None]).transpose(1, 2).reshape(batch, seq, heads * dim)
y.backward(dy)
out["attention"] = dict(qkv=flat(qkv), docStart=start.flatten().tolist(), dy=flat(dy), y=flat(y), dqkv=flat(qkv.grad))

x, w, targets = rand(5, 4).requires_grad_(), rand(7, 4).requires_grad_(), torch.tensor([3, -100, 0, 6, -100])
logits = F.linear(x, w)
nll = F.cross_entropy(logits, targets, reduction="none")
loss = F.cross_entropy(logits, targets)
loss.backward()
out["loss"] = dict(x=flat(x), w=flat(w), targets=targets.tolist(), nll=flat(nll), loss=flat(loss), dx=flat(x.grad), dw=flat(w.grad))

p = rand(6).requires_grad_()
before, grads = flat(p), []
optimizer = torch.optim.AdamW([p], lr=0.05, betas=(0.9, 0.95), eps=1e-3, weight_decay=0.1)
for _ in range(3):
    p.grad = rand(6)
    grads.append(flat(p.grad))
    optimizer.step()
state = optimizer.state[p]
out["adamw"] = dict(before=before, grads=grads, after=flat(p), m=flat(state["exp_avg"]), v=flat(state["exp_avg_sq"]))

print(json.dumps(out, sort_keys=True))
