use super::*;
use crate::{
    data::source::SourceOptions,
    eval::{Completion, Done, PromptLength},
};
use std::{fs, path::PathBuf};

/// A model that writes the prompt's last word, a number of the seed and an end mark; nothing for `empty`.
struct Echo {
    /// Fails after this many completions.
    fails_after: usize,
    written: usize,
    /// Prompts that are longer than this are too long.
    positions: usize,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            fails_after: usize::MAX,
            written: 0,
            positions: 100,
        }
    }
}

impl Generator for Echo {
    fn prompt_too_long(&self, request: &GenerationRequest) -> Result<Option<PromptLength>, EvalError> {
        let tokens = request.prompt.len();
        Ok((tokens > self.positions).then_some(PromptLength {
            tokens,
            positions: self.positions,
        }))
    }

    /// The last request first, as a model may finish them.
    fn generate(
        &mut self,
        requests: &[GenerationRequest],
        _: &StopRule<'_>,
        done: &mut Done<'_>,
    ) -> Result<(), EvalError> {
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.chunks_mut(2).for_each(<[usize]>::reverse);
        for index in order {
            if self.written == self.fails_after {
                return Err(EvalError::Generate("out of power".into()));
            }
            self.written += 1;
            let request = &requests[index];
            let word = request.prompt.split_whitespace().last().unwrap_or_default();
            let text = match word == "empty" || (word == "half" && request.seed.is_multiple_of(2)) {
                true => " ".to_owned(),
                false => format!("{word} {}", request.seed % 1000),
            };
            let text = format!("{text}\ndef g(): END and more");
            let text = match word {
                "empty" | "half" => text.split('\n').next().unwrap_or_default().to_owned(),
                _ => text,
            };
            done(index, Completion { text, tokens: 3 })?;
        }
        Ok(())
    }
}

struct Home {
    dir: tempfile::TempDir,
    tokenizer: Tokenizer,
    data: DataConfig,
    temperature: f64,
}

impl Home {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            tokenizer: Tokenizer::builtin_micro().unwrap(),
            data: DataConfig::default(),
            temperature: 0.8,
        }
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("out.jsonl")
    }

    fn sample(&self, rows: &[Value], echo: &mut Echo) -> Result<SampleReport, PipelineError> {
        let file = self.dir.path().join("rows.jsonl");
        let text: Vec<String> = rows.iter().map(Value::to_string).collect();
        fs::write(&file, text.join("\n")).unwrap();
        let source = Source::open(&file, &SourceOptions::default()).unwrap();
        let mut drawn = Map::new();
        drawn.insert("temperature".into(), json!(self.temperature));
        let request = SampleRequest {
            source: &source,
            data: &self.data,
            tokenizer: &self.tokenizer,
            samples: 2,
            temperature: self.temperature,
            seed: 42,
            stops: &["END".into()],
            drawn,
            output: &self.output(),
        };
        sample(&request, echo, &Stop::default(), &mut |_| ())
    }

    fn rows(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.output()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The number of a completion of this prompt.
fn number(prompt: &str, sample: usize) -> u64 {
    sample_seed(42, prompt, sample) % 1000
}

#[test]
fn a_row_has_the_prompt_its_completions_and_its_tests() {
    let home = Home::new();
    let row = json!({
        "id": 7, "prompt": "Write add", "completion": "old", "label": true, "tests": "assert add(1, 2) == 3",
        "task_id": "add", "language": "Python",
    });
    let report = home.sample(&[row], &mut Echo::default()).unwrap();
    let text = |sample| format!("add {}\ndef g(): ", number("Write add", sample));
    assert_eq!(
        home.rows(),
        [json!({
            "task_id": "add",
            "prompt": "Write add",
            "completions": [text(0), text(1)],
            "tests": ["assert add(1, 2) == 3"],
            "language": "python",
            "id": 7,
            "sampled": {"temperature": 0.8},
        })]
    );
    let expected = SampleReport {
        prompts: 1,
        resumed: 0,
        rows: 1,
        completions: 2,
        empty: 0,
        tokens: 6,
    };
    assert_eq!(report, expected);
    // As `wmtp label` and training read it.
    let source = Source::open(&home.output(), &SourceOptions::default()).unwrap();
    let record = source.records().next().unwrap().unwrap();
    assert_eq!((record.schema, record.samples.len()), ("prompt-completions", 2));
    assert!(record.tests.is_some());
}

#[test]
fn prompts_of_every_schema_are_read_without_answers() {
    let home = Home::new();
    let mut data = home.data.clone();
    data.prompt = crate::data::PromptStyle::ZeroShot;
    let home = Home { data, ..home };
    let contest = json!({"input": ["1"], "output": ["2"]});
    let rows = [
        json!({"prompt": "a", "test": "def check(f):\n    assert f(1)", "entry_point": "a"}),
        json!({"instruction": "b", "output": "old", "tests": [{"input": "1", "output": "2"}]}),
        json!({"text": "c", "test_list": ["assert c(1)"], "code": "old"}),
        json!({"description": "d", "public_tests": contest, "name": "D"}),
    ];
    // An instruction has words around it.
    let mut echo = Echo {
        positions: 1000,
        ..Echo::default()
    };
    home.sample(&rows, &mut echo).unwrap();
    let found = home.rows();
    let of = |name: &str| found.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
    assert_eq!(
        of("tests"),
        [
            json!(["check(a)"]),
            json!({"input": ["1"], "output": ["2"]}),
            json!(["assert c(1)"]),
            contest
        ]
    );
    assert_eq!(found[0]["test_setup"], "def check(f):\n    assert f(1)");
    assert_eq!(of("task_id"), [json!(null), json!(null), json!(null), json!("D")]);
    let prompts = of("prompt");
    assert_eq!(prompts[0], "a");
    for (prompt, word) in prompts[1..].iter().zip(["b", "c", "d"]) {
        let text = prompt.as_str().unwrap();
        assert!(
            text.ends_with(&format!("### Instruction:\n{word}\n\n### Response:\n")),
            "{text}"
        );
    }
}

#[test]
fn a_file_that_was_interrupted_is_continued_to_what_it_would_have_been() {
    let home = Home::new();
    let rows: Vec<Value> = (0..5).map(|n| json!({"prompt": format!("Write f{n}")})).collect();
    home.sample(&rows, &mut Echo::default()).unwrap();
    let whole = fs::read_to_string(home.output()).unwrap();
    fs::remove_file(home.output()).unwrap();
    let error = home
        .sample(
            &rows,
            &mut Echo {
                fails_after: 5,
                ..Echo::default()
            },
        )
        .unwrap_err();
    assert!(error.to_string().contains("out of power"), "{error}");
    assert_eq!(home.rows().len(), 2);
    // A line that was cut.
    let cut = whole.lines().take(3).collect::<Vec<_>>().join("\n");
    fs::write(home.output(), &cut[..cut.len() - 5]).unwrap();
    let mut echo = Echo::default();
    let report = home.sample(&rows, &mut echo).unwrap();
    assert_eq!((report.resumed, report.rows, echo.written), (2, 3, 6));
    assert_eq!(fs::read_to_string(home.output()).unwrap(), whole);
    let mut echo = Echo::default();
    let report = home.sample(&rows, &mut echo).unwrap();
    assert_eq!((report.resumed, report.rows, echo.written), (5, 0, 0));
    assert_eq!(fs::read_to_string(home.output()).unwrap(), whole);
}

#[test]
fn empty_completions_are_left_out() {
    let home = Home::new();
    let rows = [
        json!({"prompt": "empty"}),
        json!({"prompt": "Write f"}),
        json!({"prompt": "first half"}),
        json!({"prompt": "second half"}),
        json!({"prompt": "third half"}),
    ];
    let report = home.sample(&rows, &mut Echo::default()).unwrap();
    let odd = |prompt: &str| {
        (0..2)
            .filter(|&n| !sample_seed(42, prompt, n).is_multiple_of(2))
            .count()
    };
    let halves = ["first half", "second half", "third half"].map(odd);
    assert_eq!(report.completions, 2 + halves.iter().sum::<usize>());
    assert_eq!(report.completions + report.empty, 10);
    assert_eq!(report.rows, 1 + halves.iter().filter(|&&count| count > 0).count());
    assert_eq!(home.rows()[0]["prompt"], "Write f");
    // Rows that are not there because all was empty do not stop a continuation.
    let again = home.sample(&rows, &mut Echo::default()).unwrap();
    assert_eq!(again.resumed, report.rows);
}

#[test]
fn what_cannot_be_drawn_is_refused_before_anything_is_written() {
    let home = Home::new();
    let good = json!({"prompt": "Write f"});
    let long = "x".repeat(101);
    for (row, expected) in [
        (
            json!({"answer": "f"}),
            "row 2: no prompt is in the columns `answer`; give `prompt`",
        ),
        (
            json!({"prompt": ""}),
            "row 2, column `prompt`: is empty; write what is asked",
        ),
        (
            json!({"prompt": long}),
            "row 2: the prompt has 101 tokens, more than the model's 100 positions; shorten it or leave the row out",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": "Hi."}]}),
            "row 2, column `messages`: has no message to answer; give a user's turn",
        ),
        (
            json!({"messages": [{"role": "user", "content": "Hi."}], "tools": [{"type": "function", "function": {"name": "f"}}]}),
            "row 2: has `tools`, and completions with tool calls are not drawn; remove them",
        ),
        // The micro model has no chat template.
        (json!({"messages": [{"role": "user", "content": "Hi."}]}), "row 2: "),
    ] {
        let error = home
            .sample(&[good.clone(), row], &mut Echo::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}\n{expected}");
        assert!(!home.output().exists(), "{expected}");
    }
}

#[test]
fn only_a_file_of_the_same_request_is_continued() {
    let mut home = Home::new();
    let rows = [json!({"prompt": "Write f"}), json!({"prompt": "Write g"})];
    home.sample(&rows, &mut Echo::default()).unwrap();
    let whole = fs::read_to_string(home.output()).unwrap();
    let error = home.sample(&rows[1..], &mut Echo::default()).unwrap_err().to_string();
    assert!(
        error.contains("has rows of other prompts; give another file as --output"),
        "{error}"
    );
    home.temperature = 1.0;
    let error = home.sample(&rows, &mut Echo::default()).unwrap_err().to_string();
    assert!(
        error.contains("was drawn with `temperature` 0.8, and this command has 1.0; give another file as --output"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(home.output()).unwrap(), whole);
    fs::write(home.output(), "{\"prompt\": \"mine\"}\n").unwrap();
    let error = home.sample(&rows, &mut Echo::default()).unwrap_err().to_string();
    assert!(error.contains("its line 1 is no row of sampled completions"), "{error}");
    assert_eq!(fs::read_to_string(home.output()).unwrap(), "{\"prompt\": \"mine\"}\n");
}

#[test]
fn a_conversation_is_continued_by_the_assistant() {
    let mut home = Home::new();
    let files = tempfile::tempdir().unwrap();
    home.tokenizer.save(files.path()).unwrap();
    let config = files.path().join("tokenizer_config.json");
    let text = fs::read_to_string(&config).unwrap_or_else(|_| "{}".into());
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["chat_template"] = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
        .into();
    fs::write(&config, json.to_string()).unwrap();
    home.tokenizer = Tokenizer::load(files.path()).unwrap();
    let user = json!({"role": "user", "content": "Hi."});
    let rows = [json!({"messages": [user, {"role": "assistant", "content": "Hello."}], "tests": "assert f()"})];
    home.sample(&rows, &mut Echo::default()).unwrap();
    let row = home.rows().remove(0);
    assert_eq!(row["prompt"], json!([user]));
    let prompt = "user: Hi.\nassistant: ";
    let text = format!("assistant: {}\ndef g(): ", number(prompt, 1));
    assert_eq!(row["completions"][1], json!([{"role": "assistant", "content": text}]));
    let source = Source::open(&home.output(), &SourceOptions::default()).unwrap();
    assert_eq!(source.records().next().unwrap().unwrap().samples.len(), 2);
    // One file has one kind.
    let two = [rows[0].clone(), json!({"prompt": "Write f"})];
    fs::remove_file(home.output()).unwrap();
    let error = home.sample(&two, &mut Echo::default()).unwrap_err().to_string();
    assert!(
        error.contains("row 2: is a conversation where the first row is a text"),
        "{error}"
    );
}
