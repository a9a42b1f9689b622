//! What `wmtp generate` and `wmtp chat` share: flags, the opened model, text that is printed as it comes.

use super::{
    Failure, Output, SettingsArgs,
    base::open_model,
    common::{generation_dtype, open_device, prepared_weights, resolve_model},
};
use crate::{
    eval::{GenerationRequest, Generator, StopRule},
    pipeline::{ModelGenerator, PipelineError, Written},
    settings::Settings,
};
use wmtp_model::Sampling;

/// Which model writes, and how.
#[derive(Debug, clap::Args)]
pub(super) struct WriterArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// builtin:micro, a directory, a run (its best checkpoint), auto for the newest run, or
    /// hf://OWNER/NAME.
    #[arg(long, value_name = "URI")]
    model: String,
    /// Maximum new tokens per completion: 128 by default, 512 for chat.
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Sampling temperature; 0 is greedy.
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Top-p (nucleus) sampling threshold: the smallest set of tokens with at least this probability.
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f64,
    /// Seed of all random draws (seed).
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Speculative decoding: heads 2..H draft tokens, head 1 verifies them, as many as make the text come fastest.
    /// The text stays the same.
    #[arg(long)]
    pub speculative: bool,
    /// With --speculative: maximum number of draft tokens verified in one forward pass. More than H - 1 verify
    /// several draft-tree branches at once.
    #[arg(long, value_name = "N", requires = "speculative")]
    drafts: Option<usize>,
}

impl WriterArgs {
    /// The settings; refuses flags that make no sense before a model is loaded.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let settings = self.settings.sources(None).flag("--seed", "seed", self.seed).load()?;
        for (bad, rule) in [
            (self.max_new_tokens == Some(0), "--max-new-tokens must be 1 or more"),
            (
                !(self.temperature >= 0.0 && self.temperature.is_finite()),
                "--temperature must be 0 (greedy) or more",
            ),
            (
                !(self.top_p > 0.0 && self.top_p <= 1.0),
                "--top-p must be above 0 and at most 1",
            ),
            (self.drafts == Some(0), "--drafts must be 1 or more"),
        ] {
            if bad {
                return Err(Failure::usage(rule));
            }
        }
        Ok(settings)
    }

    /// Loads the model, for prompts that its chat template writes or for plain ones.
    pub fn open(&self, settings: &Settings, chat: bool, output: &Output) -> Result<Writer, Failure> {
        let (device_name, device) = open_device(settings)?;
        let dtype = generation_dtype(settings, &device_name, &device)?;
        let model = resolve_model(&self.model, &settings.config, output)?;
        // Without speculation only head 1 writes: the others need not be loaded.
        let heads = (!self.speculative).then_some(1);
        let (model, tokenizer) = open_model(&model, heads, dtype, settings, &device, output)?;
        let tokenizer = settings.recipe.data.dated(tokenizer);
        let tokenizer = if chat { tokenizer.for_chat() } else { tokenizer };
        let sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            max_new_tokens: self.max_new_tokens.unwrap_or(if chat { 512 } else { 128 }),
        };
        let prepared = prepared_weights(settings, &model, self.speculative)?;
        let mut generator = ModelGenerator::new(model, tokenizer, sampling);
        generator.decoding.prepared = prepared;
        generator.decoding.speculative = self.speculative;
        if let Some(drafts) = self.drafts {
            generator.decoding.drafts = drafts;
        }
        Ok(Writer {
            generator,
            seed: settings.config.seed,
        })
    }
}

/// A model that continues prompts one by one.
pub(super) struct Writer {
    pub generator: ModelGenerator,
    seed: u64,
}

impl Writer {
    /// Continues a prompt up to one of `stops`. New text goes to `show` as it comes; `cancelled` ends the
    /// completion at its next token. The seed is the run's plus `turn`.
    pub fn write(
        &self,
        prompt: &str,
        turn: u64,
        stops: &[&str],
        cancelled: &dyn Fn() -> bool,
        show: &mut dyn FnMut(&str) -> Result<(), Failure>,
    ) -> Result<Written, Failure> {
        let request = GenerationRequest {
            prompt: prompt.to_owned(),
            seed: self.seed.wrapping_add(turn),
            temperature: self.generator.sampling.temperature,
        };
        if let Some(length) = self.generator.prompt_too_long(&request)? {
            return Err(Failure::failed(format!(
                "the prompt has {} tokens, more than the model's {} positions: shorten it",
                length.tokens, length.positions
            )));
        }
        let mut shown = 0;
        let mut failure = None;
        let mut result = None;
        self.generator.write_watched(
            &[request],
            &StopRule::Strings(stops),
            &mut |_, text| {
                let end = settled(text, stops);
                if let Some(new) = text.get(shown..end).filter(|new| !new.is_empty())
                    && failure.is_none()
                {
                    failure = show(new).err();
                    shown = end;
                }
                failure.is_some() || cancelled()
            },
            &mut |_, written| {
                result = Some(written);
                Ok(())
            },
        )?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let written = result.ok_or_else(|| PipelineError::Setting("the model gave no continuation".into()))?;
        if let Some(rest) = written.text.get(shown..).filter(|rest| !rest.is_empty()) {
            show(rest)?;
        }
        Ok(written)
    }
}

/// How much of a text can no longer become part of a stop string, in bytes. (What comes after a stop
/// string is not text any more.)
fn settled(text: &str, stops: &[&str]) -> usize {
    if let Some(end) = StopRule::Strings(stops).end(text) {
        return end;
    }
    let begun = |stop: &&str| {
        (1..stop.len())
            .rev()
            .find(|&length| stop.get(..length).is_some_and(|begin| text.ends_with(begin)))
    };
    text.len() - stops.iter().filter_map(begun).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_may_become_a_stop_string_is_held_back() {
        assert_eq!(settled("abc", &[]), 3);
        assert_eq!(settled("abc\n", &["\n\n"]), 3);
        assert_eq!(settled("abc\n\ndef", &["\n\n"]), 3);
        assert_eq!(settled("abc<|e", &["<|end|>", "|e"]), 4);
        assert_eq!(settled("abé", &["éx"]), 2);
        assert_eq!(settled("<|en", &["<|end|>"]), 0);
        assert_eq!(settled("<|ex", &["<|end|>"]), 4);
    }
}
