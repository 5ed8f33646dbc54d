"""Makes peft/: adapters written by PEFT, and what PEFT computes with them. Run with transformers, peft, torch installed.

For each case: model/ (tiny random gpt_bigcode or gpt2), adapter/ (random A and B), expected.safetensors with
  logits            of the adapted model on ids
  merged.<param>    the adapted weights after merge_and_unload, in the layout of the model's own checkpoint
  step.<tensor>     the adapter after one AdamW step on ids (gradient clipped to norm 0.1), PEFT's tensor names
"""

import json
import pathlib
import shutil

import peft
import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent / "peft"
IDS = torch.tensor([[(7 * i + 3 * j * j) % 60 for i in range(12)] for j in (1, 2)])

CASES = {
    "all-linear": ("gpt_bigcode", dict(r=4, lora_alpha=8, target_modules="all-linear")),
    "patterns": (
        "gpt_bigcode",
        dict(
            r=2,
            lora_alpha=4,
            use_rslora=True,
            target_modules=["c_attn", "mlp.c_proj"],
            rank_pattern={"h.1.attn.c_attn": 5},
            alpha_pattern={"mlp.c_proj": 6},
        ),
    ),
    "conv1d": ("gpt2", dict(r=3, lora_alpha=6, target_modules=["c_attn", "attn.c_proj", "c_fc"], fan_in_fan_out=True)),
    "regex": ("gpt_bigcode", dict(r=2, lora_alpha=2, target_modules=r".*\.attn\.c_(attn|proj)")),
    "multi-head": ("gpt_bigcode_mha", dict(r=2, lora_alpha=4, target_modules=["c_attn", "c_fc"])),
    "layers": ("gpt_bigcode", dict(r=2, lora_alpha=2, target_modules=["c_fc"], layers_to_transform=[1])),
}


def base(kind):
    torch.manual_seed(11)
    size = dict(vocab_size=60, n_positions=32, n_embd=16, n_layer=2, n_head=4)
    none = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
    if kind != "gpt2":
        cfg = transformers.GPTBigCodeConfig(**size, **none, n_inner=40, multi_query=kind == "gpt_bigcode")
        m = transformers.GPTBigCodeForCausalLM(cfg)
    else:
        cfg = transformers.GPT2Config(**size, **none, n_inner=40)
        m = transformers.GPT2LMHeadModel(cfg)
    with torch.no_grad():
        for p in m.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return m.eval()


def main():
    if HERE.exists():
        shutil.rmtree(HERE)
    for kind in ("gpt_bigcode", "gpt_bigcode_mha", "gpt2"):
        base(kind).save_pretrained(HERE / kind)
    for name, (kind, options) in CASES.items():
        m = base(kind)
        pm = peft.get_peft_model(m, peft.LoraConfig(task_type="CAUSAL_LM", **options))
        torch.manual_seed(5)
        with torch.no_grad():
            for n, p in pm.named_parameters():
                if "lora_" in n:
                    p.copy_(0.3 * torch.randn_like(p))
        pm.save_pretrained(HERE / name / "adapter")
        (HERE / name / "adapter" / "README.md").unlink(missing_ok=True)
        out = {}
        pm.eval()
        with torch.no_grad():
            out["logits"] = pm(IDS).logits
        merged = peft.PeftModel.from_pretrained(base(kind), HERE / name / "adapter").merge_and_unload()
        before = dict(base(kind).named_parameters())
        for n, p in merged.named_parameters():
            if not torch.equal(p, before[n]):
                out["merged." + n] = p.detach().clone()
        opt = torch.optim.AdamW([p for p in pm.parameters() if p.requires_grad], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
        loss = pm(input_ids=IDS, labels=IDS).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([p for p in pm.parameters() if p.requires_grad], 0.1)
        opt.step()
        for n, p in peft.get_peft_model_state_dict(pm).items():
            out["step." + n] = p.detach().clone()
        save_file({k: v.contiguous() for k, v in out.items()}, HERE / name / "expected.safetensors", metadata={"format": "pt"})
        (HERE / name / "expected.json").write_text(
            json.dumps(
                {
                    "peft": peft.__version__,
                    "torch": torch.__version__,
                    "transformers": transformers.__version__,
                    "base": kind,
                    "ids": IDS.tolist(),
                    "loss": loss.item(),
                    "grad_norm": norm.item(),
                    "adamw": {"lr": 1e-2, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "clip": 0.1},
                },
                indent=1,
            )
            + "\n"
        )
    # The same adapter in the older file format.
    legacy = HERE / "legacy-bin" / "adapter"
    shutil.copytree(HERE / "all-linear" / "adapter", legacy)
    from safetensors.torch import load_file

    torch.save(load_file(legacy / "adapter_model.safetensors"), legacy / "adapter_model.bin")
    (legacy / "adapter_model.safetensors").unlink()


main()
