#!/usr/bin/env python3
"""Makes a tiny Llama for these tests, as other tools would write it.

    make_llama.py TEXT_FILE DIR [--attention-bias]

Random bfloat16 weights from a fixed seed, saved by transformers, on request with biases in the attention
sublayers; a tokenizer of Llama 2's kind
(sentencepiece BPE with byte fallback) trained on TEXT_FILE, both as tokenizer.model and as
tokenizer.json; a chat template; generation settings. The two tokenizer files must give the same ids
for every line of TEXT_FILE.

Llama 2's kind of tokenizer, because llama.cpp's converter takes any sentencepiece model, but only those
byte-level BPE tokenizers that it knows by a hash.
"""
import io
import json
import sys
from pathlib import Path

import sentencepiece
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

VOCABULARY = 600
SPECIAL = ["<unk>", "<s>", "</s>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}]\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


def train(lines):
    """A serialised sentencepiece model of Llama 2's kind."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, vocab_size=VOCABULARY, model_type="bpe",
        byte_fallback=True, split_digits=True, allow_whitespace_only_pieces=True,
        remove_extra_whitespaces=False, normalization_rule_name="identity",
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, num_threads=1, minloglevel=2)
    return out.getvalue()


def fast(model):
    """The same tokenizer for the `tokenizers` library, which has merges instead of scores."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    merges = []
    for piece, i in vocab.items():
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if left in vocab and right in vocab:
                merges.append((-pieces.get_score(i), vocab[left], vocab[right], left, right))
    tokenizer = Tokenizer(models.BPE(
        vocab, [merge[3:] for merge in sorted(merges)], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    return tokenizer, pieces


def main():
    biased = sys.argv[3:] == ["--attention-bias"]
    if len(sys.argv) != 3 and not biased:
        sys.exit(__doc__)
    lines = [line for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines() if line.strip()]
    directory = Path(sys.argv[2])
    torch.manual_seed(20)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=1024, rms_norm_eps=1e-5, initializer_range=0.05,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=None, attention_bias=biased)
    llama = LlamaForCausalLM(config)
    for name, parameter in llama.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    llama.to(torch.bfloat16).save_pretrained(directory)
    GenerationConfig(bos_token_id=1, eos_token_id=2, do_sample=True, temperature=0.6, top_p=0.9).save_pretrained(directory)

    model = train(lines)
    tokenizer, pieces = fast(model)
    (directory / "tokenizer.model").write_bytes(model)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "add_bos_token": True, "add_eos_token": False, "legacy": True, "model_max_length": 1024,
        "clean_up_tokenization_spaces": False}, indent=2) + "\n", encoding="utf-8")
    (directory / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    for line in lines:
        ours, theirs = tokenizer.encode(line, add_special_tokens=False).ids, pieces.encode(line)
        if ours != theirs:
            sys.exit(f"the two tokenizer files differ for {line!r}: {ours} and {theirs}")
    print(f"{directory}: {len(lines)} lines have the same ids in both tokenizer files")


if __name__ == "__main__":
    main()
