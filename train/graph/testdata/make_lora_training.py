"""Writes lora_training.json: LoRA training of the random model golden/tiny-gptbigcode-mqa by PEFT, in float32 on the CPU.

Usage: make_lora_training.py FOLDER_OF_THE_MODEL > lora_training.json
Adapters are filled by a formula (see fill) that the Go test repeats.
"""

import json
import math
import sys

import peft
import torch
import transformers

folder = sys.argv[1]
rank, alpha, steps = 4, 12, 6
lr, betas, eps, decay = 1e-2, (0.9, 0.95), 1e-8, 0.1
torch.set_num_threads(1)

model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
model = peft.get_peft_model(
    model,
    peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["c_attn", "c_proj", "c_fc"], task_type="CAUSAL_LM"),
)
model.train()
with open(f"{folder}/expected.json") as f:
    ids = torch.tensor(json.load(f)["input_ids"])


def short(name):
    return name.removeprefix("base_model.model.").removesuffix(".default.weight")


adapters = {short(n): p for n, p in model.named_parameters() if p.requires_grad}


def fill(name, k):
    return 0.1 * math.sin(1.7 * k + sum(name.encode()))


for name, p in adapters.items():
    p.data = torch.tensor([fill(name, k) for k in range(p.numel())], dtype=torch.float32).reshape(p.shape)

optimizer = torch.optim.AdamW(adapters.values(), lr=lr, betas=betas, eps=eps, weight_decay=decay)
losses, gradients = [], {}
for step in range(steps):
    optimizer.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    losses.append(loss.item())
    if step == 0:
        gradients = {n: [float(f"{x:.7g}") for x in p.grad.flatten().tolist()] for n, p in adapters.items()}
    optimizer.step()

json.dump(
    {
        "made_with": f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}",
        "rank": rank, "scale": alpha / rank, "lr": lr, "betas": betas, "eps": eps, "weight_decay": decay,
        "losses": losses, "gradients": gradients,
    },
    sys.stdout,
)
print()
