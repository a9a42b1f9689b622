//! Words of the formats, as many on a line as fit.

#[rustfmt::skip]
pub(super) const SETTINGS: &[&str] = &[
    "model", "data", "train", "weights", "scorer", "batching", "optim", "eval", "storage", "tracking", "devices",
    "paths", "project", "seed", "kind", "base", "mtp", "n_heads", "lora", "rank", "alpha", "source", "split",
    "columns", "prompt", "seq_len", "epochs", "steps", "micro_batch", "accumulate", "lr", "warmup", "schedule",
    "temperature", "eps", "w_max", "critic", "rho1", "baseline", "uniform", "random", "shuffled", "offline", "given",
    "over", "when", "reward", "gamma", "lambda_gae", "checkpoint", "last_every", "best", "keep", "dtype", "record",
    "documents", "special_tokens", "builtin:micro", "builtin:mbpp", "s3://bucket/key", "hf://o/n", "uri", "kinds",
    "mlflow", "http://user:pass@host", "runs", "cache", "max_size", "10 GB", "offline", "samples", "k", "tasks", "<<",
    "&a", "*a", "? ", ": ", "- ", "|", ">", "%YAML 1.2", "---", "...", "!!float", "!!binary", "#", "\t",
    "WMTP_TRAIN__EPOCHS=1", "WMTP_SEED=", "model.mtp.n_heads=", "=", ".", "__",
];

#[rustfmt::skip]
pub(super) const SWEEP: &[&str] = &[
    "name", "pipeline", "config", "recipe", "set", "grid", "random", "n", "seed", "draw", "seeds", "baseline",
    "evaluate", "benchmark", "profile", "quick", "rank_by", "parallel", "auto", "time_limit_seconds", "on_failure",
    "go-on", "stop", "kind", "choice", "values", "uniform", "log-uniform", "integers", "low", "high", "mbpp",
    "humaneval", "optim.lr", "weights.temperature", "weights.eps", "train.epochs", "train.steps", "data.seq_len",
    "model.mtp.n_heads", "scorer.kind", "seed", "valid_loss", "mbpp.pass_at_1", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]",
    "[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]", "<<", "&a", "*a", "- ", "{}", "[]",
];

#[rustfmt::skip]
pub(super) const ROWS: &[&str] = &[
    "messages", "conversations", "tools", "functions", "system", "chosen", "rejected", "chosen_messages",
    "rejected_messages", "prompt", "completion", "completions", "rewards", "labels", "instruction", "input", "output",
    "history", "text", "segments", "reward", "label", "weight", "spans", "task_id", "tests", "test_setup", "language",
    "code", "test_list", "test_setup_code", "test_imports", "canonical_solution", "test", "entry_point", "name",
    "description", "public_tests", "private_tests", "generated_tests", "solutions", "incorrect_solutions", "role",
    "content", "user", "assistant", "tool", "from", "value", "human", "gpt", "tool_calls", "function", "arguments",
    "type", "parameters", "train", "reasoning_content", "thinking", "null", "true", "start", "end", "id", "image",
];

#[rustfmt::skip]
pub(super) const TEMPLATE: &[&str] = &[
    "{% for m in messages %}", "{% endfor %}", "{% if ", " %}", "{% else %}", "{% elif x %}", "{% endif %}", "{{ ",
    " }}", "{%- ", " -%}", "{# ", " #}", "{% set x = ", "{% set ns = namespace(s='') %}",
    "{% set ns.s = ns.s ~ ns.s %}", "{% set x %}", "{% endset %}", "{% macro f(a, b=1) %}", "{% endmacro %}",
    "{{ f(1, *x, **y) }}", "{% call f() %}", "{% endcall %}", "{% filter upper %}", "{% endfilter %}", "{% raw %}",
    "{% endraw %}", "{% generation %}", "{% endgeneration %}", "{% break %}", "{% continue %}", "{% with a = 1 %}",
    "{% endwith %}", "{% print x %}", "{{ loop(messages) }}", "{% for a in x recursive %}", "loop.index",
    "loop.cycle(1, 2)", "loop.previtem", "loop.changed(1)", "range(100000)", "range(0, 9, 0)", "'x' * 1000000",
    "[1] * 100000", "messages", "m.content", "m['role']", "tools", "bos_token", "add_generation_prompt",
    "raise_exception('x')", "strftime_now('%d %b %Y')", "| tojson(indent=2)", "| length", "| trim", "| join(',')",
    "| map(attribute='role')", "| selectattr('role')", "| batch(2)", "| slice(3)", "| groupby('role')", "| sort",
    "| unique", "| default('x')", "| replace('a', 'bb')", "| indent(4)", "| center(1000000)", "| format(1)",
    "'%s %d' % (1, 2)", "'%1000000d' % 1", "'{:>1000000}'.format(1)", "'{0[a]}'.format(m)", ".split('a')", ".join(x)",
    ".strip()", ".items()", ".keys()", ".get('a')", ".startswith('a')", ".zfill(1000000)", ".ljust(99999)",
    ".replace('', 'xx')", "x[1:2:-1]", "x[::0]", "is defined", "is string", "not ", " and ", " or ", " in ",
    " if x else y", "+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "9223372036854775807", "1e308", "none",
    "true", "dict(a=1)", "namespace()", "[x for x in y]", "{'a': [1]}", "varargs", "kwargs", "caller()", "import 'x'",
    "extends 'y'", "self", "super()",
];

#[rustfmt::skip]
pub(super) const TOKENIZER: &[&str] = &[
    "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder",
    "model", "type", "BPE", "WordPiece", "WordLevel", "Unigram", "vocab", "merges", "unk_token", "unk_id",
    "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "dropout", "id",
    "content", "single_word", "lstrip", "rstrip", "normalized", "special", "ByteLevel", "add_prefix_space",
    "trim_offsets", "use_regex", "Metaspace", "replacement", "prepend_scheme", "Split", "pattern", "Regex", "String",
    "behavior", "Isolated", "Removed", "invert", "Sequence", "normalizers", "pretokenizers", "processors", "decoders",
    "NFC", "NFKC", "Lowercase", "Prepend", "Replace", "Strip", "Precompiled", "precompiled_charsmap",
    "TemplateProcessing", "single", "pair", "SpecialToken", "Digits", "Punctuation", "Fuse", "ByteFallback",
    "max_input_chars_per_word", "(a+)+$", "(?:x{1,1000}){1,1000}", "\\p{L}", "(?<!a)(?=b)", "<s>", "</s>", "<unk>",
    "tokenizer_class", "LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "PreTrainedTokenizerFast",
    "add_bos_token", "add_eos_token", "bos_token", "eos_token", "pad_token", "additional_special_tokens",
    "extra_special_tokens", "added_tokens_decoder", "chat_template", "legacy", "wmtp", "special_tokens",
    "special_in_text", "always", "plain", "eos_token_id", "bos_token_id", "model_type", "llama", "gemma", "name",
    "default", "template", "▁", "Ġ", "<0x0A>",
];

#[rustfmt::skip]
pub(super) const MODEL: &[&str] = &[
    "architectures", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "SmolLM3ForCausalLM", "model_type", "llama", "mistral", "qwen2", "qwen3", "smollm3", "vocab_size", "hidden_size",
    "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "rope_type", "type",
    "factor", "linear", "dynamic", "yarn", "llama3", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow",
    "mscale", "mscale_all_dim", "attention_factor", "truncate", "original_max_position_embeddings",
    "tie_word_embeddings", "bos_token_id", "eos_token_id", "initializer_range", "hidden_act", "silu",
    "attention_bias", "mlp_bias", "sliding_window", "use_sliding_window", "layer_types", "full_attention",
    "sliding_attention", "no_rope_layers", "quantization_config", "quant_method", "fp8", "weight_block_size",
    "activation_scheme", "torch_dtype", "dtype", "wmtp", "n_heads", "format", "head_norms", "prediction_heads", "dim",
    "n_layers", "n_kv_heads", "multiple_of", "ffn_dim_multiplier", "norm_eps", "use_scaled_rope",
];

#[rustfmt::skip]
pub(super) const ADAPTER: &[&str] = &[
    "peft_type", "LORA", "task_type", "CAUSAL_LM", "r", "lora_alpha", "lora_dropout", "target_modules", "all-linear",
    "q_proj", "v_proj", "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head",
    "modules_to_save", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "exclude_modules",
    "bias", "none", "use_rslora", "use_dora", "fan_in_fan_out", "init_lora_weights", "gaussian",
    "base_model_name_or_path", "revision", "inference_mode", "(a+)+$", ".*", "(?:x{1,1000}){1,1000}", "[a-z]*q_proj",
    "(?=.*)*", "((((", "\\d", "ensure_weight_tying", "trainable_token_indices",
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", "lora_magnitude_vector", "lora_embedding_A",
];

#[rustfmt::skip]
pub(super) const TENSORS: &[&str] = &[
    "F32", "F16", "BF16", "F64", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F4", "dtype", "shape",
    "data_offsets", "__metadata__", "format", "pt", "model.embed_tokens.weight", "lm_head.weight",
    "model.norm.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.weight_scale_inv",
    "model.layers.0.self_attn.q_proj.weight_scale", "model.layers.0.mlp.up_proj.qweight",
    "model.layers.1.mlp.up_proj.weight", "transformer.wte.weight", "mtp.heads.2.self_attn.q_proj.weight",
    "score.weight", "value_head.0.weight", "value_head.0.bias", "weight_map", "metadata", "total_size",
    "model.safetensors", "../model.safetensors", "torch._utils\n_rebuild_tensor_v2\n", "torch\nFloatStorage\n",
    "collections\nOrderedDict\n", "os\nsystem\n", "storage", "cpu", "tok_embeddings.weight",
    "layers.0.attention.wq.weight", "output.weight",
];

#[rustfmt::skip]
pub(super) const BENCHMARKS: &[&str] = &[
    "task_id", "completion", "solution", "text", "code", "test_list", "test_setup_code", "challenge_test_list",
    "prompt", "test_imports", "source_file", "canonical_solution", "entry_point", "test", "Mbpp/11", "HumanEval/0",
    "name", "description", "public_tests", "private_tests", "generated_tests", "input", "output", "solutions",
    "incorrect_solutions", "language", "id", "tests", "setup", "asserts", "base_input", "plus_input", "atol",
    "contract", "assertion", "correct", "incorrect", "task", "NaN", "-Infinity", "\\ud83d", "\\ud83d\\ude00", "1",
    "{}", "[[1]]", "def check(candidate):\n    assert candidate(1) == 1\n", "assert f(1) == 2", "passed", "wrong",
    "timeout",
];

#[rustfmt::skip]
pub(super) const RUNS: &[&str] = &[
    "step", "loss", "tokens", "tok_s", "lr", "grad_norm", "weight_mean", "weight_entropy", "weight_fallbacks",
    "applied", "mem", "ce_head_1", "ce_head_2", "valid_loss", "valid_ce_heads", "event", "reason", "time", "rollback",
    "skip", "checkpoint", "edges", "counts", "document", "prompt_tokens", "weight", "scores", "score", "ce",
    "problem", "split", "train", "valid", "format", "kind", "evaluation", "sweep", "uid", "name", "algorithm",
    "critic", "started", "seed", "model", "model_sha256", "data", "steps", "resumed", "recipe_id", "places", "files",
    "bytes", "sha256", "resumable", "finished", "epoch", "documents", "labelled", "names", "origin", "temperatures",
    "pass_at_k", "k", "tasks", "results", "held_out", "auroc_mean", "within_mean", "trainer.json", "manifest.json",
    "../x", "2026-11-30T00:00:00Z", "9999-12-31T23:59:59Z", "-009999-01-01T00:00:00Z",
];

#[rustfmt::skip]
pub(super) const NET: &[&str] = &[
    "sha", "siblings", "rfilename", "path", "size", "lfs", "oid", "type", "file", "private", "id", "config.json",
    "model.safetensors", "0123456789abcdef0123456789abcdef01234567", "../x", "a/b", "experiment", "experiment_id",
    "name", "lifecycle_stage", "deleted", "runs", "run", "info", "run_id", "artifact_uri", "mlflow-artifacts:/1/a",
    "file:///nowhere/a/b", "s3://b/k", "data", "tags", "key", "value", "wmtp.uid", "u", "metrics", "params", "step",
    "timestamp", "next_page_token", "models", "model_id", "outputs", "model_outputs", "creation_timestamp_ms",
    "error_code", "message", "RESOURCE_DOES_NOT_EXIST", "<Contents>", "</Contents>", "<Key>run/a</Key>",
    "<Size>1</Size>", "<ETag>&quot;a&quot;</ETag>", "<IsTruncated>true</IsTruncated>",
    "<NextContinuationToken>t</NextContinuationToken>", "<CommonPrefixes><Prefix>run/b/</Prefix></CommonPrefixes>",
    "<LastModified>2026-11-30T00:00:00.000Z</LastModified>", "<!DOCTYPE x [<!ENTITY a \"b\">]>", "&a;", "<![CDATA[",
    "]]>", "<?xml version=\"1.0\"?>", "files", "uploadMode", "shouldIgnore", "objects", "actions", "upload", "href",
    "header", "verify", "chunk_size", "commitUrl", "commitOid", "url", "auth", "fullname", "orgs", "targetCommit",
    "branches",
];

#[rustfmt::skip]
pub(super) const PYTHON: &[&str] = &[
    "def f(x):\n    ", "class A:\n    ", "return ", "'''", "\"\"\"", "r'", "f'{x!r:>{w}}'", "b\"", "#", "\\\n",
    "```python\n", "```\n", "```", "~~~", "[PYTHON]", "[/PYTHON]", "Here is the code:\n", "if x:\n", "else:",
    "lambda x: ", "(", ")", "\t", "\n\n\n", "assert f(1) == 2\n", "if __name__ == '__main__':\n", "print(",
    "import os\n", "from a import b\n", "@x\n", "0x1_f", "1e10j", "...", ":=", "->", "**", "match x:\n    case _:\n",
    "async ", "é", "\u{feff}", "\r\n", "\u{c}", "<|im_end|>", "<think>", "</think>", "[BEGIN]", "[DONE]",
];

#[rustfmt::skip]
pub(super) const ADDRESSES: &[&str] = &[
    "hf://", "s3://", "builtin:", "file:", "file://", "http://", "https://", "user:password@", "@", "/", "//", "..",
    ".", "main", "bucket", "owner/name", "%40", "%", "?", "#", ":5000", "[::1]", "GB", "MiB", "KB", " ", "1.5",
    "cuda:0", "flex", "wgpu", "2026-11-30", "0000-01-01", "9999-12-31", "-", "s3://b.c/d", "models/x", "~", "C:",
];
