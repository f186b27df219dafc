#!/usr/bin/env python3
"""Does vLLM compute with our adapter what we do?  adapter_vllm.py MODEL ADAPTER LOGITS [--limit NATS]

MODEL in fp32 with ADAPTER as a LoRA request; log probabilities of the 20 likeliest next ids after prefixes of the ids
that adapter_logits takes, against LOGITS (its raw fp32). One JSON line: the largest difference with the adapter and,
for scale, without it; exit code 1 above the limit. (vLLM 0.32 on a CPU cannot give log probabilities of a prompt with
an adapter: its logits of a LoRA are one row a request.)
"""
import argparse, json, os, sys
import numpy as np

TOKENS = 96


def log_probs(path):
    x = np.fromfile(path, np.float32).astype(np.float64).reshape(TOKENS, -1)
    x -= x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model"), p.add_argument("adapter"), p.add_argument("logits")
    p.add_argument("--limit", type=float, default=1e-4)
    a = p.parse_args()
    os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1")
    from vllm import LLM, SamplingParams, __version__
    from vllm.lora.request import LoRARequest
    ours = log_probs(a.logits)
    ids = [(37 * i + 11) % ours.shape[1] for i in range(TOKENS)]
    prompts = [{"prompt_token_ids": ids[:n]} for n in range(4, TOKENS + 1, 4)]
    model = LLM(model=a.model, dtype="float32", max_model_len=128, enforce_eager=True, enable_lora=True, max_lora_rank=16,
                skip_tokenizer_init=True, max_num_seqs=8, seed=0)
    one = SamplingParams(max_tokens=1, temperature=0.0, logprobs=20, detokenize=False)
    worst = []
    for request in (LoRARequest("adapter", 1, a.adapter), None):
        done = model.generate(prompts, one, use_tqdm=False, lora_request=request)
        worst.append(max(abs(v.logprob - ours[len(q["prompt_token_ids"]) - 1, k])
                         for q, o in zip(prompts, done) for k, v in o.outputs[0].logprobs[0].items()))
    print(json.dumps({"adapter": os.path.basename(a.adapter), "vllm": __version__, "difference": worst[0],
                      "limit": a.limit, "without_it": worst[1]}), flush=True)
    sys.exit(not worst[0] <= a.limit < worst[1])


if __name__ == "__main__":
    main()
