#!/usr/bin/env python3
"""Does peft compute with our adapter what we do?

    adapter.py base MODEL DIR                                        MODEL as bitsandbytes stores it, NF4, double
    adapter.py check MODEL ADAPTER LOGITS [--nf4] [--save DIR] [--limit X]

check loads MODEL in fp32 and ADAPTER through peft, and compares logits of fixed ids with LOGITS (raw fp32, from
adapter_logits): the largest difference as a share of the largest logit. Linears that bitsandbytes quantized (MODEL's own,
or with --nf4 all of the layers, now) are its values in fp32: its own product would round them to bfloat16. Every tensor
of the adapter must have its place in peft's model and the values of the file. With --save peft writes the adapter again
into DIR. One JSON line; exit code 1 above the limit, or where the adapter changes next to nothing.
"""
import argparse, json, os, sys
import numpy as np
import torch
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

TOKENS = 96


def nf4():
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)


def write_base(path, folder):
    AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, quantization_config=nf4()).save_pretrained(folder)


def in_fp32(module):
    state = module.weight.quant_state
    state.dtype = torch.float32
    plain = torch.nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
    plain.weight.data = functional.dequantize_4bit(module.weight.data, state).float()
    if module.bias is not None:
        plain.bias.data = module.bias.data.float()
    return plain


def base(path, quantize):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager",
                                                 **({"quantization_config": nf4()} if quantize else {}))
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, in_fp32(module))
    for attribute in ("is_quantized", "is_loaded_in_4bit", "hf_quantizer", "quantization_method"):
        if hasattr(model, attribute):
            delattr(model, attribute)
    return model.float().eval()


def logits_of(model):
    vocabulary = model.config.vocab_size
    ids = torch.tensor([[(37 * i + 11) % vocabulary for i in range(TOKENS)]])
    with torch.no_grad():
        return model(input_ids=ids).logits[0].double().numpy()


def same_tensors(model, folder):
    ours = load_file(os.path.join(folder, "adapter_model.safetensors"))
    theirs = get_peft_model_state_dict(model)
    if set(ours) != set(theirs):
        sys.exit(f"names differ: {sorted(set(ours) ^ set(theirs))[:4]}")
    for name in ours:
        if not torch.equal(ours[name], theirs[name].to(ours[name].dtype)):
            sys.exit(f"{name}: other values")
    return len(ours)


def check(a):
    model = PeftModel.from_pretrained(base(a.model, a.nf4), a.adapter).eval()
    tensors = same_tensors(model, a.adapter)
    theirs = logits_of(model)
    with model.disable_adapter():
        without = logits_of(model)
    ours = np.fromfile(a.logits, np.float32).astype(np.float64).reshape(theirs.shape)
    largest = np.abs(theirs).max()
    off, gain = np.abs(ours - theirs).max() / largest, np.abs(theirs - without).max() / largest
    print(json.dumps({"adapter": os.path.basename(a.adapter), "tensors": tensors, "largest_logit": float(largest),
                      "difference": float(off), "limit": a.limit, "adapter_changes": float(gain)}))
    if a.save:
        model.save_pretrained(a.save)
    sys.exit(not (off <= a.limit and gain > 10 * a.limit))


def main():
    p = argparse.ArgumentParser()
    commands = p.add_subparsers(dest="command", required=True)
    b, c = commands.add_parser("base"), commands.add_parser("check")
    b.add_argument("model"), b.add_argument("folder")
    c.add_argument("model"), c.add_argument("adapter"), c.add_argument("logits")
    c.add_argument("--nf4", action="store_true")
    c.add_argument("--save")
    c.add_argument("--limit", type=float, default=1e-5)
    a = p.parse_args()
    write_base(a.model, a.folder) if a.command == "base" else check(a)


main()
