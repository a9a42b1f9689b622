//! What a row of a data file asks: a prompt for which completions are drawn.

use super::{
    DataConfig, DataError, Instruction, Place, PromptStyle, Tests, Tokenizer,
    chat::Message,
    render::{alpaca, as_messages},
};
use serde_json::{Value, json};

/// A prompt without an answer, and how answers are judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Where it was read.
    pub place: Place,
    /// The row's own name of its problem, if it has one.
    pub task_id: Option<String>,
    /// What is asked.
    pub asked: Asked,
    /// How an answer is judged, if the row says so.
    pub tests: Option<Tests>,
    /// Programming language of the answers, in lower case, if the row says so.
    pub language: Option<String>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A text that an answer continues.
    Text(String),
    /// An instruction in the style of Alpaca, without output.
    Instruction(Instruction),
    /// A conversation that the assistant continues.
    Chat {
        /// In order.
        messages: Vec<Message>,
        /// Definitions of tools, as the template reads them.
        tools: Option<Value>,
    },
}

/// A prompt as a model reads it and as a row says it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// What the model continues.
    pub text: String,
    /// The column `prompt`: the same text, or messages.
    pub column: Value,
    /// Whether the chat template wrote the text.
    pub is_chat: bool,
}

impl Question {
    /// The prompt in the form in which training renders it (`data.prompt`): an instruction by Alpaca's template or
    /// the chat template, a conversation by the chat template up to where the assistant begins.
    ///
    /// # Errors
    /// With the row's place: a conversation with tools, which no prompt is written for; what the chat template
    /// refuses.
    pub fn prompt(&self, config: &DataConfig, tokenizer: &Tokenizer) -> Result<Prompt, DataError> {
        let plain = |text: String| Prompt {
            column: text.as_str().into(),
            text,
            is_chat: false,
        };
        let chat = |messages: &[Message]| {
            let text = tokenizer.conversation(messages, true);
            let text = text.map_err(|error| self.wrong(error.to_string()))?;
            Ok(Prompt {
                text,
                column: json!(messages),
                is_chat: true,
            })
        };
        match &self.asked {
            Asked::Text(text) => Ok(plain(text.clone())),
            Asked::Instruction(instruction) if config.prompt != PromptStyle::Chat => Ok(plain(alpaca(instruction))),
            Asked::Instruction(instruction) => {
                let mut messages = as_messages(instruction);
                // The answer, which is empty.
                messages.pop();
                chat(&messages)
            }
            Asked::Chat { tools: Some(_), .. } => {
                Err(self.wrong("has `tools`, and completions with tool calls are not drawn; remove them".into()))
            }
            Asked::Chat { messages, .. } => chat(messages),
        }
    }

    fn wrong(&self, problem: String) -> DataError {
        DataError::BadRow {
            place: self.place.clone(),
            problem,
        }
    }
}

impl Tests {
    /// The columns `tests`, `test_setup` and `entry_point` that are read as these tests.
    pub fn columns(&self) -> Vec<(&'static str, Value)> {
        match self {
            Self::Asserts {
                setup,
                asserts,
                entry_point,
            } => {
                let mut columns = vec![("tests", json!(asserts))];
                if !setup.is_empty() {
                    columns.push(("test_setup", setup.as_str().into()));
                }
                columns.extend(entry_point.as_deref().map(|name| ("entry_point", name.into())));
                columns
            }
            Self::InputOutput(pairs) => {
                let (inputs, outputs): (Vec<&str>, Vec<&str>) = pairs
                    .iter()
                    .map(|(input, output)| (input.as_str(), output.as_str()))
                    .unzip();
                vec![("tests", json!({"input": inputs, "output": outputs}))]
            }
        }
    }
}
