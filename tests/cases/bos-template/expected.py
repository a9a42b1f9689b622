#!/usr/bin/env python3
"""What transformers gives for this case: `python expected.py > expected.json` (transformers 5, torch)."""
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

here = Path(__file__).parent
text = (here / "text.txt").read_text()
tokenizer = AutoTokenizer.from_pretrained(here / "model")
model = AutoModelForCausalLM.from_pretrained(here / "model", dtype=torch.float32).eval()
out = {}
for name, special in (("auto", True), ("never", False)):
    ids = tokenizer(text, add_special_tokens=special, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model(ids).logits[0].double()
    ce = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
    top = logits[-1].topk(20)
    out[name] = {
        "token_ids": ids[0].tolist(),
        "ce": [round(x, 6) for x in ce.tolist()],
        "top20_ids": top.indices.tolist(),
        "top20_logits": [round(x, 6) for x in top.values.tolist()],
    }
print(json.dumps(out))
