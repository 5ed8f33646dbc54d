"""PyTorch's side: transformers (and PEFT) train the same model folder on the same windows, and print the same fields as `gpu step`.

    python peer.py --model M --tokens-file T [--rank 64 --adapter A --checkpointing] [--compile] [--steps 50]

As people train there: float32 weights under bf16 autocast, scaled_dot_product_attention, fused AdamW; with --rank a bf16 base with
PEFT's float32 adapters. Not as slowly as they may: no Trainer, no data loader, float32 products in TF32, the loss compiled along with the
model. If the card's memory does not suffice, the micro-batch is halved and the run begins again.
"""
import argparse
import array
import gc
import json
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import torch.nn.functional as F
import transformers

UNMEASURED = 3


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--tokens-file", required=True)
    p.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    p.add_argument("--precision", default="bf16", choices=("bf16", "float32"))
    p.add_argument("--sequences", type=int, default=16)
    p.add_argument("--micro-batch", type=int, default=0)
    p.add_argument("--length", type=int, default=2048)
    p.add_argument("--rank", type=int, default=0)
    p.add_argument("--adapter", help="PEFT folder to begin with, written by `gpu step`")
    p.add_argument("--checkpointing", action="store_true")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--rate", type=float, default=1e-4)
    p.add_argument("--evaluations", type=int, default=0)
    return p.parse_args()


class Windows:
    def __init__(self, file, length, device):
        ids = array.array("H", pathlib.Path(file).read_bytes())
        if sys.byteorder == "big":
            ids.byteswap()
        self.ids, self.length, self.device = torch.tensor(ids, dtype=torch.long), length, device

    def batch(self, first, n):
        count = (len(self.ids) - 1) // self.length
        at = [i % count * self.length for i in range(first, first + n)]
        take = lambda shift: torch.stack([self.ids[a + shift:a + shift + self.length] for a in at]).to(self.device)
        return take(0), take(1)


def load(a):
    half = a.precision == "bf16" and a.rank > 0
    config = transformers.AutoConfig.from_pretrained(a.model)
    for name in ("attn_pdrop", "embd_pdrop", "resid_pdrop"):  # AutoDev trains without the model's dropout unless it is asked to
        setattr(config, name, 0.0)
    config.use_cache = False
    model = transformers.AutoModelForCausalLM.from_pretrained(a.model, config=config, attn_implementation="sdpa", dtype=torch.bfloat16 if half else torch.float32)
    model.to(a.device)
    if a.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if a.rank:
        import peft
        model = peft.PeftModel.from_pretrained(model, a.adapter, is_trainable=True)
        model.to(a.device)
    return model.train()


def run(a, micro):
    cuda = a.device == "cuda"
    begun = time.perf_counter()
    windows = Windows(a.tokens_file, a.length, a.device)
    model = load(a)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=a.rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, fused=True)

    def nll(ids, targets):
        with torch.autocast(a.device, dtype=torch.bfloat16, enabled=a.precision == "bf16"):
            logits = model(input_ids=ids).logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")

    loss_of = torch.compile(nll) if a.compile else nll
    loaded = time.perf_counter() - begun
    seconds, losses, first = [], [], 0.0
    for n in range(a.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=a.device)
        for m in range(0, a.sequences, micro):
            loss = loss_of(*windows.batch(n * a.sequences + m, micro)) / (a.sequences * a.length)
            loss.backward()
            total += loss.detach()
            del loss
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(total.item())  # waits for the device
        took = time.perf_counter() - start
        if n == 0:
            first = took
        if n >= UNMEASURED:
            seconds.append(took)
    counted = sum(p.numel() for p in model.parameters())
    layers, embed = model.config.n_layer, model.config.n_embd
    flop = (4 if a.rank else 6) * counted + 6 * layers * embed * a.length
    rate = a.sequences * a.length / statistics.median(seconds) if seconds else 0
    result = {
        "software": f"torch {torch.__version__}, transformers {transformers.__version__}", "compiled": a.compile, "precision": a.precision,
        "parameters": counted, "trained": sum(p.numel() for p in trained), "micro_batch": micro, "sequences": a.sequences, "length": a.length,
        "step_seconds": seconds, "tokens_per_second": rate, "flop_per_token": flop, "tflop_per_second": flop * rate / 1e12, "losses": losses,
        "load_seconds": loaded, "first_step_seconds": first,
    }
    if cuda:
        free, total = torch.cuda.mem_get_info()
        result |= {"device_used_bytes": total - free, "allocated_bytes": torch.cuda.max_memory_allocated(), "reserved_bytes": torch.cuda.max_memory_reserved()}
    if a.evaluations:
        optimizer.zero_grad(set_to_none=True)
        model.eval()
        times, score = [], 0.0
        with torch.no_grad():
            for i in range(a.evaluations + 2):
                start = time.perf_counter()
                value = loss_of(*windows.batch(i * micro, micro)).item()
                if i >= 2:
                    times.append(time.perf_counter() - start)
                    score += value
        result |= {"eval_tokens_per_second": micro * a.length / statistics.median(times), "eval_nll": score / (micro * a.length * a.evaluations)}
    return result


def main():
    a = arguments()
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if a.precision == "bf16" else "highest")
    micro = a.micro_batch or a.sequences
    while True:
        try:
            result = run(a, micro)
            break
        except torch.OutOfMemoryError:
            if micro == 1:
                raise
        print(f"a micro-batch of {micro} does not fit", file=sys.stderr, flush=True)
        micro //= 2
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
