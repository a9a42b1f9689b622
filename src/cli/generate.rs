//! `wmtp generate`: continue a prompt, or answer a conversation.

use super::{
    Failure, Output,
    common::read_text,
    conversation::{parse_message, read_messages},
    writer::WriterArgs,
};
use crate::data::chat::{Message, message};
use std::{io::IsTerminal, time::Instant};
use wmtp_model::Effort;

/// `wmtp generate --model URI`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    writer: WriterArgs,
    /// The text to continue, with --chat the user's message; `-` or nothing reads standard input.
    #[arg(long, value_name = "TEXT|-", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// End before this text; may be given several times.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Put the prompt through the model's chat template, and print the answer alone.
    #[arg(long)]
    chat: bool,
    /// With --chat: the system prompt.
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    system: Option<String>,
    /// With --chat: a turn before the prompt, such as `user:Hi`; may be given several times.
    #[arg(long, value_name = "ROLE:TEXT", requires = "chat")]
    message: Vec<String>,
    /// With --chat: a JSON file with the turns before the prompt, a list of objects with role and content.
    #[arg(long, value_name = "FILE", requires = "chat", conflicts_with_all = ["message", "system"])]
    messages: Option<String>,
}

/// Generates; the text is printed as it comes.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let settings = args.writer.settings()?;
    if args.stop.iter().any(String::is_empty) {
        return Err(Failure::usage("--stop must not be empty"));
    }
    let messages = conversation(&args)?;
    let given = match (&messages, &args.prompt) {
        (Some(_), _) => String::new(),
        (None, prompt) => prompt_text(prompt.as_deref())?,
    };
    let writer = args.writer.open(&settings, args.chat, output)?;
    let prompt = match &messages {
        Some(messages) => writer.generator.tokenizer.conversation(messages, true)?,
        None => given,
    };
    let stops: Vec<&str> = args.stop.iter().map(String::as_str).collect();
    let started = Instant::now();
    let mut ends_line = prompt.ends_with('\n');
    if messages.is_none() {
        output.piece(&prompt)?;
    }
    let written = writer.write(&prompt, 0, &stops, &|| false, &mut |piece| {
        ends_line = piece.ends_with('\n');
        output.piece(piece)
    })?;
    let seconds = started.elapsed().as_secs_f64();
    if !ends_line {
        output.piece("\n")?;
    }
    let mut json = serde_json::json!({
        "prompt": prompt,
        "completion": written.text,
        "token_ids": written.tokens,
        "finish": written.finish,
        "seconds": seconds,
    });
    if let Some(messages) = messages {
        json["messages"] = messages.into();
    }
    if args.writer.speculative {
        let tokens = written.tokens.len();
        json["speculative"] = speculation(&written.effort, tokens);
        if !output.is_json() {
            say!("{}", speculation_text(&written.effort, tokens));
        }
    }
    if output.is_json() {
        return output.result(&json, "");
    }
    Ok(())
}

/// The messages of a chat; None for a prompt that is continued as it is.
fn conversation(args: &Args) -> Result<Option<Vec<Message>>, Failure> {
    if !args.chat {
        return Ok(None);
    }
    let mut messages: Vec<Message> = args.system.iter().map(|text| message("system", text)).collect();
    for text in &args.message {
        messages.push(parse_message(text)?);
    }
    if let Some(path) = &args.messages {
        messages = read_messages(path)?;
    }
    let ends_with_user = messages
        .last()
        .is_some_and(|last| !["assistant", "system"].iter().any(|role| last["role"] == *role));
    // Turns that end with the user's are a question already.
    if args.prompt.is_some() || !ends_with_user {
        let text = prompt_text(args.prompt.as_deref())?;
        messages.push(message("user", text.trim_end_matches('\n')));
    }
    Ok(Some(messages))
}

/// The prompt's text; without one that of standard input.
fn prompt_text(given: Option<&str>) -> Result<String, Failure> {
    let text = match given {
        Some(text) if text != "-" => text.to_owned(),
        _ => {
            if std::io::stdin().is_terminal() {
                say!("reading the prompt from standard input: end it with Ctrl-D (or give --prompt TEXT)");
            }
            read_text("-")?
        }
    };
    if text.is_empty() {
        return Err(Failure::usage(
            "the prompt is empty: give --prompt TEXT, or text on standard input",
        ));
    }
    Ok(text)
}

/// Passes through the trunk and what became of each head's drafts, head 2 first.
pub(super) fn speculation(effort: &Effort, tokens: usize) -> serde_json::Value {
    let heads: Vec<serde_json::Value> = (2..)
        .zip(effort.drafted.iter().zip(&effort.accepted))
        .map(|(head, (drafted, accepted))| {
            serde_json::json!({
                "head": head,
                "drafted": drafted,
                "accepted": accepted,
                "acceptance": share(*accepted, *drafted),
            })
        })
        .collect();
    serde_json::json!({
        "trunk_forwards": effort.trunk_forwards,
        "tokens_per_forward": share(tokens, effort.trunk_forwards),
        "tokens_judged": effort.verified,
        "copied": effort.copied,
        "heads": heads,
    })
}

/// The same for people.
pub(super) fn speculation_text(effort: &Effort, tokens: usize) -> String {
    let mut text = format!(
        "{tokens} tokens in {} passes through the trunk, {:.2} tokens each; {} drafts judged, passes in which one was accepted:",
        effort.trunk_forwards,
        share(tokens, effort.trunk_forwards).unwrap_or(0.0),
        effort.verified
    );
    for (head, (drafted, accepted)) in (2..).zip(effort.drafted.iter().zip(&effort.accepted)) {
        text += &format!("\n  head {head}: {accepted} of {drafted}");
    }
    text += &format!("\n  copied from the text, of no head: {} accepted", effort.copied);
    text
}

/// None where there is nothing to take a share of.
fn share(part: usize, all: usize) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}
