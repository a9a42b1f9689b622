//! Token ids and text as the tokenizer means them.
