"""Makes the fixture folders beside this script with transformers (pip: torch, transformers, safetensors): tiny random models that between
them differ in everything the loader must honour, each with expected.safetensors: input_ids, logits, loss and grad.<parameter>, from
float32 on the CPU with dropout off."""
import json
import pathlib
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPTBigCodeConfig

here = pathlib.Path(__file__).parent
small = dict(vocab_size=41, n_positions=24, n_embd=16, n_layer=2, n_head=4, n_inner=40, bos_token_id=0, eos_token_id=0)


def make(name, config, seed):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for n, p in model.named_parameters():
            # Nothing may hide behind an initial value of 0 or 1, or behind logits near 0.
            p.add_(torch.randn_like(p) * (0.1 if p.dim() == 1 else 0.2))
    model.save_pretrained(here / name)
    ids = torch.randint(0, config.vocab_size, (2, 17))
    out = model(input_ids=ids, labels=ids)
    out.loss.backward()
    t = {"input_ids": ids, "logits": out.logits.detach(), "loss": out.loss.detach()}
    t |= {"grad." + n: p.grad.contiguous() for n, p in model.named_parameters()}
    save_file(t, here / name / "expected.safetensors")
    return model


make("bigcode-mha-erf-untied", GPTBigCodeConfig(**small, multi_query=False, activation_function="gelu", tie_word_embeddings=False, layer_norm_epsilon=1e-3), 1)
make("gpt2-relu-unscaled-untied", GPT2Config(**small, activation_function="relu", scale_attn_weights=False, tie_word_embeddings=False), 2)

# Padded vocabulary: 37 tokens in 41 rows. As pytorch_model.bin with the head sharing the table's storage, transposed and sliced views,
# and the mask buffers of old versions.
model = make("bigcode-padded-bin", GPTBigCodeConfig(**small, activation_function="gelu_fast", attn_pdrop=0.2, embd_pdrop=0.3, resid_pdrop=0.4), 3)
folder = here / "bigcode-padded-bin"
(folder / "model.safetensors").unlink()
state = model.state_dict()
for i in range(2):
    h = f"transformer.h.{i}."
    state[h + "attn.bias"] = torch.tril(torch.ones(24, 24, dtype=torch.bool)).view(1, 1, 24, 24)
    state[h + "attn.masked_bias"] = torch.tensor(-1e4)
    w = state[h + "mlp.c_fc.weight"]
    state[h + "mlp.c_fc.weight"] = w.t().contiguous().t()
    both = torch.cat([state[h + "ln_1.weight"], state[h + "ln_1.bias"]])
    state[h + "ln_1.weight"], state[h + "ln_1.bias"] = both[:16], both[16:]
torch.save(state, folder / "pytorch_model.bin")
config = json.loads((folder / "config.json").read_text())
config |= {"use_cache": False, "a_field_of_a_later_version": {"kept": True}}
(folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
