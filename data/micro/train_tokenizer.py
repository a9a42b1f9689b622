"""Trains the micro model's tokenizer: byte-level BPE on MBPP's training split (ids 601 to 974) and nothing else.

    python3 train_tokenizer.py          needs `pip install tokenizers`; writes tokenizer.json beside itself

Each task is given as the program shows it to a model: zero-shot prompt, solution, [DONE].
"""
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent
VOCAB = 1024
EOS = "<|endoftext|>"


def texts():
    for line in (HERE.parent / "mbpp" / "mbpp.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if 601 <= row["task_id"] <= 974:
            tests = "\n".join(row["test_list"])
            text = (
                f"You are an expert Python programmer, and here is your task: {row['text']} "
                f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n{row['code']}\n[DONE]"
            )
            yield text.replace("\r\n", "\n")


tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
tokenizer.decoder = decoders.ByteLevel()
tokenizer.train_from_iterator(
    texts(),
    trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    ),
)
assert tokenizer.get_vocab_size() == VOCAB and tokenizer.token_to_id(EOS) == 0
tokenizer.save(str(HERE / "tokenizer.json"))
lengths = [len(tokenizer.encode(t).ids) for t in texts()]
print(f"{len(lengths)} texts, {sum(lengths) / len(lengths):.0f} tokens each, at most {max(lengths)}")
