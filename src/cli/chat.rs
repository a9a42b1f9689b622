//! `wmtp chat`: a conversation with a model, on a terminal or from standard input.

use super::{
    Failure, Output,
    conversation::read_messages,
    writer::{Writer, WriterArgs},
};
use crate::data::chat::{Message, message};
use signal_hook::{consts::SIGINT, iterator::Signals};
use std::{
    io::{BufRead, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// `wmtp chat --model URI`.
///
/// Every line is a message; a backslash at its end continues it on the next line. /reset forgets the
/// conversation, /quit or Ctrl-D ends, Ctrl-C stops an answer. From a pipe the lines are answered one
/// after the other.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    writer: WriterArgs,
    /// The system prompt.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Begin with the messages of this JSON file: a list of objects with role and content.
    #[arg(long, value_name = "FILE", conflicts_with = "system")]
    messages: Option<String>,
}

const HELP: &str = "/reset forgets the conversation, /quit or Ctrl-D ends, Ctrl-C stops an answer; a backslash at \
                    the end of a line continues the message";

/// Talks until the input ends.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let settings = args.writer.settings()?;
    let mut begin: Vec<Message> = args.system.iter().map(|text| message("system", text)).collect();
    if let Some(path) = &args.messages {
        begin = read_messages(path)?;
    }
    let writer = args.writer.open(&settings, true, output)?;
    // Without a template there is no conversation: better known before the first line.
    let mut first = begin.clone();
    first.push(message("user", "x"));
    writer.generator.tokenizer.conversation(&first, true)?;
    let interactive = std::io::stdin().is_terminal();
    let interrupt = Interrupt::listen(interactive)?;
    let mut conversation = Conversation {
        writer,
        messages: begin.clone(),
        turn: 0,
    };
    let mut input = std::io::stdin().lock();
    if interactive {
        say!("{HELP}");
    }
    while let Some(text) = read(&mut input, interactive)? {
        match text.trim() {
            "" => {}
            "/quit" | "/exit" => break,
            "/help" => say!("{HELP}"),
            "/reset" => {
                conversation.messages.clone_from(&begin);
                if interactive {
                    say!("(the conversation is forgotten)");
                }
            }
            command if interactive && is_command(command) => say!("there is no command {command}; {HELP}"),
            _ => match conversation.answer(&text, &interrupt, output) {
                Ok(()) => {}
                // On a terminal the conversation can be mended: /reset.
                Err(Failure::Failed(problem)) if interactive => say!("error: {problem}; /reset begins anew"),
                Err(failure) => return Err(failure),
            },
        }
    }
    if interactive {
        say!();
    }
    if output.is_json() {
        return output.result(&serde_json::json!({ "messages": conversation.messages }), "");
    }
    Ok(())
}

/// A slash and letters, and nothing else.
fn is_command(text: &str) -> bool {
    text.strip_prefix('/')
        .is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic()))
}

/// The next message; None at the end of the input.
fn read(input: &mut dyn BufRead, interactive: bool) -> Result<Option<String>, Failure> {
    let mut text = String::new();
    loop {
        if interactive {
            ask!("{}", if text.is_empty() { "> " } else { ". " });
            let _ = std::io::stderr().flush();
        }
        let mut line = String::new();
        let read = input
            .read_line(&mut line)
            .map_err(|e| Failure::failed(format!("cannot read standard input: {e}")))?;
        if read == 0 {
            return Ok((!text.is_empty()).then_some(text));
        }
        let line = line.trim_end_matches(['\n', '\r']);
        match line.strip_suffix('\\') {
            Some(begun) => {
                text.push_str(begun);
                text.push('\n');
            }
            None => {
                text.push_str(line);
                return Ok(Some(text));
            }
        }
    }
}

struct Conversation {
    writer: Writer,
    messages: Vec<Message>,
    turn: u64,
}

impl Conversation {
    /// Answers a message; what was written stays in the conversation, also where it was stopped.
    fn answer(&mut self, text: &str, interrupt: &Interrupt, output: &Output) -> Result<(), Failure> {
        self.messages.push(message("user", text));
        let answered = self.written(interrupt, output);
        if answered.is_err() {
            self.messages.pop();
        }
        let answer = answered?;
        self.messages.push(message("assistant", &answer));
        self.turn += 1;
        Ok(())
    }

    fn written(&self, interrupt: &Interrupt, output: &Output) -> Result<String, Failure> {
        let prompt = self.writer.generator.tokenizer.conversation(&self.messages, true)?;
        let _busy = interrupt.busy();
        let mut ends_line = false;
        let written = self
            .writer
            .write(&prompt, self.turn, &[], &|| interrupt.asked(), &mut |piece| {
                ends_line = piece.ends_with('\n');
                output.piece(piece)
            })?;
        if !ends_line {
            output.piece("\n")?;
        }
        match written.finish {
            "stop" => say!("(stopped)"),
            "length" => say!(
                "(cut after {} tokens: --max-new-tokens, or the model's positions)",
                written.tokens.len()
            ),
            _ => {}
        }
        Ok(written.text)
    }
}

/// Ctrl-C: stops an answer, and a second time ends the program.
struct Interrupt {
    busy: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    fn listen(interactive: bool) -> Result<Self, Failure> {
        let (busy, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut signals =
            Signals::new([SIGINT]).map_err(|e| Failure::failed(format!("cannot listen to signals: {e}")))?;
        let this = Self {
            busy: busy.clone(),
            asked: asked.clone(),
        };
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if busy.load(Ordering::Relaxed) && !asked.swap(true, Ordering::Relaxed) {
                    continue;
                }
                if busy.load(Ordering::Relaxed) || !interactive {
                    std::process::exit(128 + signal);
                }
                ask!("\n{HELP}\n> ");
            }
        });
        Ok(this)
    }

    /// Whether the answer is to be stopped.
    fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// An answer is being written until what is returned is dropped.
    fn busy(&self) -> Busy<'_> {
        self.asked.store(false, Ordering::Relaxed);
        self.busy.store(true, Ordering::Relaxed);
        Busy(self)
    }
}

struct Busy<'a>(&'a Interrupt);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backslash_continues_a_message() {
        let mut input = "one\\\ntwo\r\n\nlast\\\n".as_bytes();
        let mut next = || read(&mut input, false).unwrap();
        assert_eq!(next().as_deref(), Some("one\ntwo"));
        assert_eq!(next().as_deref(), Some(""));
        assert_eq!(next().as_deref(), Some("last\n"));
        assert_eq!(next(), None);
    }

    #[test]
    fn a_path_is_no_command() {
        assert!(is_command("/restart"));
        assert!(!is_command("/usr/bin") && !is_command("/why not") && !is_command("/"));
    }
}
