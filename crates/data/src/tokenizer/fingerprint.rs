//! Everything of a tokenizer that decides which token ids a row becomes, as one hash: the key of stored tokens.

use super::Tokenizer;
use sha2::{Digest, Sha256};

impl Tokenizer {
    /// SHA-256 (hex) of [`Tokenizer::hash`] with what is outside of it: special tokens, the choices about them,
    /// the chat templates, the day that they print, and the size of the model's embedding.
    pub(crate) fn fingerprint(&self) -> String {
        let Self {
            inner: _,
            anchor: _,
            place: _,
            eos_ids,
            special,
            post,
            post_processor,
            bos,
            declared,
            recorded: _,
            choice,
            chat,
            embeddings,
            chat_template,
            tool_template,
            chat_date,
            hash,
            files: _,
            pieces: _,
        } = self;
        let date = self.chat_date().map(|_| chat_date.to_string());
        let post_processor = serde_json::to_string(post_processor).unwrap_or_default();
        let numbers = format!("{eos_ids:?} {special:?} {post:?} {bos:?} {declared:?} {choice:?} {chat} {embeddings:?}");
        let texts = format!("{chat_template:?} {tool_template:?} {date:?} {post_processor}");
        // Added tokens are in `hash` as the file has them, and here as they are in force.
        let added: Vec<String> = (self.inner.get_added_tokens_decoder().iter())
            .map(|(id, token)| format!("{id} {}", serde_json::to_string(token).unwrap_or_default()))
            .collect();
        let mut added = added;
        added.sort();
        hex::encode(Sha256::digest(format!("{hash}\n{numbers}\n{texts}\n{added:?}")))
    }
}
