"""Makes tests/golden/models/{qwen3_moe,phi3_long}: tiny random models, and what transformers computes for them.

usage: make_more_models.py OUT        (needs torch, transformers, safetensors, numpy; made with transformers 5.17.0)

The same layout as the folders beside them: an ordinary Hugging Face folder and expected.safetensors with input_ids
(2,16), hidden.i (the residual stream after layer i; 0 is the embedding), hidden.norm, logits and router_logits.i, all in
float32 with eager attention; weights are rounded to the stored type first. A float64 forward in numpy that reads the
files checks every tensor before the script ends.

qwen3_moe  layer 0 dense (mlp_only_layers), layer 1 with 4 experts of which a token goes to 2, weights not normalized;
           heads of 32; config in the spelling of published checkpoints (num_experts)
phi3_long  fused q k v and gate up; longrope over half of each head, original context 8, so 16 tokens use the long
           factors; tied
"""
import json
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

SEED = 4011
BASE = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=160, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def configs():
    yield "qwen3_moe", tf.Qwen3MoeConfig(
        **BASE, head_dim=32, rms_norm_eps=1e-6, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64,
        norm_topk_prob=False, decoder_sparse_step=1, mlp_only_layers=[0], tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}), {"num_experts": 4}
    yield "phi3_long", tf.Phi3Config(
        **BASE, rms_norm_eps=1e-5, sliding_window=None, tie_word_embeddings=True, original_max_position_embeddings=8,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
                         "original_max_position_embeddings": 8,
                         "short_factor": [1.0, 1.05, 1.2, 1.5], "long_factor": [1.1, 1.7, 4.0, 20.0]}), {}


def randomize(model, gen):
    """Attention is peaked, some channels are stronger, and logits spread by about 2."""
    for name, p in sorted(model.named_parameters()):
        r = torch.randn(p.shape, generator=gen)
        if "norm" in name:
            v = 1 + 0.3 * r
        elif "embed_tokens" in name:
            v = r * (2 / p.shape[1] ** 0.5 if model.config.tie_word_embeddings else 0.8)
        else:
            v = r / p.shape[-1] ** 0.5
            if any(k in name for k in ("q_proj", "k_proj", "qkv_proj", "lm_head", "mlp.gate.weight")):
                v = v * 1.8
            v[..., torch.randperm(v.shape[-1], generator=gen)[:3]] *= 2
        p.data.copy_(v.bfloat16().float())


def make(folder, config, published, seed):
    gen = torch.Generator().manual_seed(seed)
    config.use_cache = False
    m = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    randomize(m, gen)
    ids = torch.randint(3, BASE["vocab_size"], (2, 16), generator=gen)
    ids[1, 5] = ids[1, 4]
    out = {"input_ids": ids}

    def keep(key):
        def hook(_m, _i, o):
            out[key] = (o[0] if isinstance(o, tuple) else o).detach()
        return hook

    m.model.embed_tokens.register_forward_hook(keep("hidden.0"))
    m.model.norm.register_forward_hook(keep("hidden.norm"))
    for i, layer in enumerate(m.model.layers):
        layer.register_forward_hook(keep(f"hidden.{i + 1}"))
        if hasattr(layer.mlp, "experts"):
            layer.mlp.gate.register_forward_hook(
                lambda _m, _i, o, i=i: out.__setitem__(f"router_logits.{i}", o[0].detach().reshape(2, 16, -1)))
    with torch.no_grad():
        out["logits"] = m(input_ids=ids).logits.float()
    m.to(torch.bfloat16).save_pretrained(folder)
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        text = json.load(f)
    for key, value in published.items():
        text.pop("num_local_experts", None)
        text[key] = value
    with open(path, "w") as f:
        json.dump(text, f, indent=2, sort_keys=True)
        f.write("\n")
    meta = {"format": "pt", "torch": torch.__version__.split("+")[0], "transformers": tf.__version__,
            "seed": str(seed), "stored": "bf16"}
    save_file({k: v.contiguous().clone() for k, v in out.items()}, os.path.join(folder, "expected.safetensors"), meta)


# ---- the check ----

def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def rotation(c, length):
    r, d = c["rope_parameters"], c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    dims = int(d * (r.get("partial_rotary_factor") or 1))
    f = r["rope_theta"] ** (-np.arange(0, dims, 2) / dims)
    scale = 1.0
    if r["rope_type"] == "longrope":
        old = c["original_max_position_embeddings"]
        f = f / np.array(r["long_factor" if length > old else "short_factor"])
        scale = np.sqrt(1 + np.log(c["max_position_embeddings"] / old) / np.log(old))
    angle = np.arange(length)[:, None] * f
    return dims, np.cos(angle) * scale, np.sin(angle) * scale


def forward(c, w, ids):
    heads, kv, eps = c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"]
    d = c.get("head_dim") or c["hidden_size"] // heads
    b, t = ids.shape
    dims, cos, sin = rotation(c, t)
    norm = lambda x, name: x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w[name + ".weight"]  # noqa: E731
    lin = lambda x, name: x @ w[name + ".weight"].T  # noqa: E731

    def rotate(x):
        p, q, rest = x[..., :dims // 2], x[..., dims // 2:dims], x[..., dims:]
        return np.concatenate([p * cos - q * sin, q * cos + p * sin, rest], -1)

    def mlp(x, p):
        g, u = np.split(lin(x, p + "gate_up_proj"), 2, -1) if p + "gate_up_proj.weight" in w else (
            lin(x, p + "gate_proj"), lin(x, p + "up_proj"))
        return lin(silu(g) * u, p + "down_proj")

    def experts(x, p, out, i):
        logits = lin(x, p + "gate")
        out[f"router_logits.{i}"] = logits
        y, prob = np.zeros_like(x), softmax(logits)
        for at in np.ndindex(b, t):
            for e in np.argsort(-prob[at], kind="stable")[:c["num_experts_per_tok"]]:
                y[at] += prob[at][e] * mlp(x[at], f"{p}experts.{e}.")
        return y

    x = w["model.embed_tokens.weight"][ids]
    out = {"hidden.0": x}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        h = norm(x, p + "input_layernorm")
        a = p + "self_attn."
        if a + "qkv_proj.weight" in w:
            q, k, v = np.split(lin(h, a + "qkv_proj"), [heads * d, (heads + kv) * d], -1)
        else:
            q, k, v = (lin(h, a + n) for n in ("q_proj", "k_proj", "v_proj"))
        q, k, v = (z.reshape(b, t, -1, d).transpose(0, 2, 1, 3) for z in (q, k, v))
        if a + "q_norm.weight" in w:
            q, k = norm(q, a + "q_norm"), norm(k, a + "k_norm")
        q, k = rotate(q), rotate(k)
        k, v = np.repeat(k, heads // kv, 1), np.repeat(v, heads // kv, 1)
        s = np.where(np.tri(t, dtype=bool), q @ k.swapaxes(-1, -2) / np.sqrt(d), -np.inf)
        x = x + lin((softmax(s) @ v).transpose(0, 2, 1, 3).reshape(b, t, -1), a + "o_proj")
        h = norm(x, p + "post_attention_layernorm")
        x = x + (experts(h, p + "mlp.", out, i) if p + "mlp.gate.weight" in w else mlp(h, p + "mlp."))
        out[f"hidden.{i + 1}"] = x
    out["hidden.norm"] = norm(x, "model.norm")
    out["logits"] = out["hidden.norm"] @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T
    return out


def check(folder):
    with open(os.path.join(folder, "config.json")) as f:
        c = json.load(f)
    w = {k: v.double().numpy() for k, v in load_file(os.path.join(folder, "model.safetensors")).items()}
    want = load_file(os.path.join(folder, "expected.safetensors"))
    got = forward(c, w, want.pop("input_ids").numpy())
    assert set(got) == set(want), (sorted(got), sorted(want))
    worst = max(np.abs(v.double().numpy() - got[k]).max() / np.sqrt((got[k] ** 2).mean()) for k, v in want.items())
    assert worst < 3e-5, (folder, worst)
    print(f"{folder}: float64 numpy against the file, largest error / rms = {worst:.1e}; tensors {sorted(want)}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number, (name, config, published) in enumerate(configs()):
        folder = os.path.join(sys.argv[1], name)
        os.makedirs(folder, exist_ok=True)
        make(folder, config, published, SEED + number)
        check(folder)
