"""PyTorch's training step with the dimensions, data and output of the Go program beside this file.

    python peer.py --case a --precision bf16 --steps 5 --threads 2

The best that PyTorch offers without compiling: scaled_dot_product_attention, fused AdamW, autocast for bf16 with float32
weights. As in AutoDev's step the gradient is clipped to norm 1. torch.compile needs a C++ compiler and changes little here:
the time is in matrix products, which it leaves to oneDNN and MKL (--compile to see).
"""
import argparse
import json
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn

CASES = {  # layers, embed, heads, key heads, inner, vocab, sequence, batch
    "a": (6, 256, 4, 1, 1024, 8192, 512, 8),
    "b": (12, 768, 12, 1, 3072, 49280, 512, 4),
    "c": (12, 768, 12, 12, 3072, 49280, 512, 4),
}


class Block(nn.Module):
    def __init__(self, embed, heads, kv_heads, inner):
        super().__init__()
        self.heads, self.kv_heads, self.dim = heads, kv_heads, embed // heads
        self.ln_1, self.ln_2 = nn.LayerNorm(embed), nn.LayerNorm(embed)
        self.qkv = nn.Linear(embed, embed + 2 * kv_heads * self.dim)
        self.proj = nn.Linear(embed, embed)
        self.up, self.down = nn.Linear(embed, inner), nn.Linear(inner, embed)

    def forward(self, x):
        b, t, e = x.shape
        q, k, v = self.qkv(self.ln_1(x)).split((e, self.kv_heads * self.dim, self.kv_heads * self.dim), 2)
        q, k, v = (y.view(b, t, -1, self.dim).transpose(1, 2) for y in (q, k, v))
        if self.kv_heads < self.heads:  # a view: the kernel reads the one head again
            k, v = (y.expand(b, self.heads, t, self.dim) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, e))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Model(nn.Module):
    def __init__(self, layers, embed, heads, kv_heads, inner, vocab):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, embed), nn.Embedding(2048, embed)
        self.blocks = nn.ModuleList(Block(embed, heads, kv_heads, inner) for _ in range(layers))
        self.ln = nn.LayerNorm(embed)
        for m in self.modules():
            if isinstance(m, (nn.Linear, nn.Embedding)):
                nn.init.normal_(m.weight, std=0.02)
            if isinstance(m, nn.Linear):
                nn.init.zeros_(m.bias)
        for block in self.blocks:  # as GPT-2 and ours begin
            for m in (block.proj, block.down):
                nn.init.normal_(m.weight, std=0.02 / (2 * layers) ** 0.5)

    def forward(self, ids):
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return F.linear(self.ln(x), self.tokens.weight)


def data(batch, seq, vocab):
    x, rows = 1, []
    for _ in range(batch):
        row = []
        for _ in range(seq + 1):
            x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
            row.append((x >> 33) % vocab)
        rows.append(row)
    return torch.tensor(rows)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--case", default="a", choices=CASES)
    p.add_argument("--precision", default="float32", choices=("float32", "bf16"))
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--compile", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    layers, embed, heads, kv_heads, inner, vocab, seq, batch = CASES[a.case]
    model = Model(layers, embed, heads, kv_heads, inner, vocab)
    step_of = torch.compile(model) if a.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    tokens = data(batch, seq, vocab)
    seconds, processor, losses = [], [], []
    for n in range(a.steps + 1):
        start, busy = time.perf_counter(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.precision == "bf16"):
            logits = step_of(tokens[:, :-1])
        loss = F.cross_entropy(logits.float().reshape(-1, vocab), tokens[:, 1:].reshape(-1))
        del logits
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if n:
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - busy)
    median = sorted(seconds)[len(seconds) // 2]
    dim = embed // heads
    matmul = layers * (embed * (embed + 2 * kv_heads * dim) + embed * embed + 2 * embed * inner) + vocab * embed
    flop = batch * seq * (6 * matmul + 12 * layers * embed * seq)
    print(json.dumps({
        "software": "torch " + torch.__version__, "case": a.case, "precision": a.precision, "threads": a.threads,
        "parameters": sum(q.numel() for q in model.parameters()), "step_seconds": seconds, "cpu_seconds": processor,
        "tokens_per_second": batch * seq / median, "gflop_per_second": flop / median / 1e9, "losses": losses,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }))


if __name__ == "__main__":
    main()
