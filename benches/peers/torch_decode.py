"""Greedy generation by transformers, as a process: a line of JSON in, a line out (see benches/generation/peer.rs)."""
import argparse
import json
import sys
import time

import torch
import transformers


def say(**fields):
    print(json.dumps(fields), flush=True)


def generate(model, prompts, new_tokens):
    """All prompts in one batch, padded on the left, without end tokens."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    start = time.perf_counter()
    with torch.inference_mode():
        found = model.generate(ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, pad_token_id=0)
    seconds = time.perf_counter() - start
    tokens = found[:, longest:].tolist()
    if any(len(row) != new_tokens for row in tokens):
        sys.exit(f"a text has not {new_tokens} tokens")
    return {"seconds": seconds, "tokens": tokens}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", choices=["f32", "bf16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.precision]
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).eval()
    model.generation_config = transformers.GenerationConfig(eos_token_id=None)
    say(ready=True, torch=torch.__version__, transformers=transformers.__version__)
    for line in sys.stdin:
        if line.strip() == "quit":
            return
        request = json.loads(line)
        say(**generate(model, request["prompts"], request["new_tokens"]))


if __name__ == "__main__":
    main()
