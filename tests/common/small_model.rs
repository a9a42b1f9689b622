//! A model of one small layer with the micro model's tokenizer: a step of it takes a few milliseconds.

use std::path::Path;

/// Writes the model that `seed` draws into `dir`.
pub fn small_model(dir: &Path, seed: u64) {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": 1024, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        "max_position_embeddings": 512, "tie_word_embeddings": true, "eos_token_id": 0,
        "wmtp": {"n_heads": 1, "format": 1}
    });
    let config = wmtp_model::LlamaConfig::parse(&config.to_string()).expect("a valid configuration");
    let model = config.init(seed, &burn::tensor::Device::flex());
    wmtp_model::save(&model, dir, wmtp_model::SaveDtype::F32).expect("the model can be saved");
    let tokenizer = wmtp::data::Tokenizer::builtin_micro().expect("the tokenizer is built in");
    tokenizer.save(dir).expect("the tokenizer can be saved");
}
