"""Greedy generation by llama.cpp, as a process: a line of JSON in, a line out (see benches/generation/peer.rs).

With --quantize it first writes the file of 4 bits (Q4_0) next to the given one. Needs llama-cpp-python, which is
built from source where it is installed: pip install llama-cpp-python==0.3.36 gguf.
"""
import argparse
import json
import sys
import time

import llama_cpp


def say(**fields):
    print(json.dumps(fields), flush=True)


def quantized(source):
    """The file's copy in Q4_0."""
    target = source.removesuffix(".gguf") + "-q4_0.gguf"
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), parameters) != 0:
        sys.exit(f"{source} could not be quantized")
    return target


def generate(model, prompt, new_tokens):
    """One prompt; end tokens do not end it."""
    model.reset()
    tokens = []
    start = time.perf_counter()
    for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0, reset=True):
        tokens.append(token)
        if len(tokens) == new_tokens:
            break
    return {"seconds": time.perf_counter() - start, "tokens": [tokens]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--quantize", action="store_true")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    path = quantized(args.model) if args.quantize else args.model
    model = llama_cpp.Llama(path, n_ctx=2048, n_threads=args.threads, n_threads_batch=args.threads, verbose=False)
    sets = llama_cpp.llama_print_system_info().decode()
    say(ready=True, llama_cpp=llama_cpp.__version__, instruction_sets=sets)
    for line in sys.stdin:
        if line.strip() == "quit":
            return
        request = json.loads(line)
        if len(request["prompts"]) != 1:
            sys.exit("llama.cpp's peer takes one prompt at a time")
        say(**generate(model, request["prompts"][0], request["new_tokens"]))


if __name__ == "__main__":
    main()
