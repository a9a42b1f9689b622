//! How Meta's names and rows correspond to transformers'.
//!
//! Both store the same matrices; only the rows of the query and key projections differ. Meta's rotary
//! embedding turns neighbouring dimensions of an attention head together, transformers' turns
//! dimension `j` with `j + head_dim / 2`.

use std::borrow::Cow;

use crate::config::LlamaConfig;
use crate::names;

/// (transformers' name within a layer, Meta's).
const LAYER: [(&str, &str); 9] = [
    ("input_layernorm.weight", "attention_norm.weight"),
    ("self_attn.q_proj.weight", "attention.wq.weight"),
    ("self_attn.k_proj.weight", "attention.wk.weight"),
    ("self_attn.v_proj.weight", "attention.wv.weight"),
    ("self_attn.o_proj.weight", "attention.wo.weight"),
    ("post_attention_layernorm.weight", "ffn_norm.weight"),
    ("mlp.gate_proj.weight", "feed_forward.w1.weight"),
    ("mlp.up_proj.weight", "feed_forward.w3.weight"),
    ("mlp.down_proj.weight", "feed_forward.w2.weight"),
];

/// Meta's name of the embedding.
pub(super) const EMBEDDING: &str = "tok_embeddings.weight";
/// Meta's name of the unembedding, which is always stored.
pub(super) const UNEMBEDDING: &str = "output.weight";
/// Prefix of Meta's decoder layers; the last one is head 1.
pub(super) const LAYERS: &str = "layers.";
/// Prefix of Meta's heads 2..H, counted from 0.
pub(super) const HEADS: &str = "extra_heads.";

/// Meta's name of the tensor that transformers (or this crate, for heads) calls `name`.
pub(super) fn meta_name(name: &str) -> Option<String> {
    match name {
        names::EMBEDDING => return Some(EMBEDDING.to_owned()),
        names::NORM => return Some("norm.weight".to_owned()),
        names::UNEMBEDDING => return Some(UNEMBEDDING.to_owned()),
        _ => {}
    }
    let (prefix, first, rest) = match name.strip_prefix("model.layers.") {
        Some(rest) => (LAYERS, 0, rest),
        None => (HEADS, 2, name.strip_prefix("mtp.heads.")?),
    };
    let (index, part) = rest.split_once('.')?;
    let index = index.parse::<usize>().ok()?.checked_sub(first)?;
    let (_, part) = LAYER.iter().find(|(own, _)| *own == part)?;
    Some(format!("{prefix}{index}.{part}"))
}

/// Attention heads whose rows differ in order, for the tensor that transformers calls `name`.
fn rotated_heads(name: &str, config: &LlamaConfig) -> Option<usize> {
    if name.ends_with("self_attn.q_proj.weight") {
        Some(config.num_attention_heads)
    } else if name.ends_with("self_attn.k_proj.weight") {
        Some(config.num_key_value_heads)
    } else {
        None
    }
}

/// Which layout rows are brought into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// From neighbouring pairs to halves.
    ToHalves,
    /// From halves to neighbouring pairs.
    ToPairs,
}

/// The bytes of the tensor that transformers calls `name`, its rows in the other layout.
pub(super) fn reorder<'a>(name: &str, config: &LlamaConfig, bytes: Cow<'a, [u8]>, rows: Rows) -> Cow<'a, [u8]> {
    match rotated_heads(name, config) {
        Some(heads) if !bytes.is_empty() => Cow::Owned(reorder_rows(&bytes, heads, config.head_dim, rows)),
        _ => bytes,
    }
}

/// `bytes` hold `heads * width` rows of equal length.
fn reorder_rows(bytes: &[u8], heads: usize, width: usize, rows: Rows) -> Vec<u8> {
    let row = bytes.len() / (heads * width).max(1);
    let half = width / 2;
    let mut out = Vec::with_capacity(bytes.len());
    for head in bytes.chunks(row * width) {
        for to in 0..width {
            // Place `(side, j)` of the halves is place `(j, side)` of the pairs.
            let from = match rows {
                Rows::ToHalves => 2 * (to % half) + to / half,
                Rows::ToPairs => (to % 2) * half + to / 2,
            };
            out.extend(head.get(from * row..(from + 1) * row).unwrap_or_default());
        }
    }
    out
}
