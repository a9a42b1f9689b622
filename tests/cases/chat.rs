//! Chat templates rendered as transformers renders them.

use crate::{case::Case, common::lines};

/// The text of the prompt of MBPP 602, as training tokenises it.
fn prompt(case: &Case) -> String {
    let args = "train baseline --model model --max-steps 1 --plain --output out --set data.prompt=chat \
                --set data.train_tasks=[602,602] --set data.valid_tasks=[511,511] --set model.mtp.n_heads=1 \
                --set train.record.documents=1 --set train.record.max_tokens=4096";
    let args: Vec<&str> = args.split_whitespace().collect();
    crate::common::succeed(&mut case.command(&args));
    let run = std::fs::read_dir(case.path("out"))
        .expect("runs")
        .next()
        .expect("a run")
        .expect("an entry");
    let line = &lines(&run.path().join("tokens.jsonl"))[0];
    let length = line["prompt_tokens"].as_u64().expect("a number") as usize;
    let tokens = line["tokens"].as_array().expect("tokens");
    tokens
        .iter()
        .take(length)
        .map(|token| token.as_str().expect("text"))
        .collect()
}

/// The message of that prompt, from the problem itself.
fn message() -> String {
    let problems = wmtp::eval::bench::mbpp::load("builtin:mbpp").expect("MBPP");
    let problem = problems
        .iter()
        .find(|problem| problem.task_id == 602)
        .expect("task 602");
    format!(
        "You are an expert Python programmer, and here is your task: {} Your code should pass these tests:\n\n{}",
        problem.text,
        problem.test_list.join("\n")
    )
}

fn gives(name: &'static str, expected: &str) {
    let prompt = prompt(&Case::new(name));
    assert_eq!(prompt, expected.replace("MSG", &message()), "{name}");
}

#[test]
fn tools_and_documents_are_none() {
    gives("chat-tools-none", "no toolsMSG");
}

#[test]
fn line_ends_of_a_template_become_newlines() {
    gives("chat-crlf", "user:\nMSG\nA:");
}

#[test]
fn generation_blocks_are_transparent() {
    gives("chat-generation-tag", "<user>MSG<assistant>");
}

#[test]
fn loops_can_break_and_continue() {
    gives("chat-break-continue", "MSG");
}

#[test]
fn texts_are_formatted_by_percent() {
    gives("chat-percent-format", "user|3MSG");
}

#[test]
fn dictionaries_keep_their_order() {
    gives("chat-dict-order", "b1a2rolecontentMSG");
}

/// By Python: `s.title()[:10]`, `s.find('Python')`, `s.count('a')`, lines, `'ab'.join(…)`.
#[test]
fn texts_have_the_methods_of_python() {
    let message = message();
    let expected = format!(
        "You Are An{}{}{}xaby{}",
        message.find("Python").expect("the word"),
        message.matches('a').count(),
        message.lines().count(),
        message.strip_prefix("You").expect("the word")
    );
    assert_eq!(prompt(&Case::new("chat-str-methods")), expected);
}

/// The date is today's, and is recorded; another one can be set.
#[test]
fn the_date_is_known_and_recorded() {
    let case = Case::new("chat-strftime-guarded");
    let before = jiff::Zoned::now();
    let text = prompt(&case);
    let months = [before, jiff::Zoned::now()].map(|now| now.strftime("%Y-%m").to_string());
    let dated = |month: &String| text == format!("Date: {month}\n{}", message());
    assert!(months.iter().any(dated), "{text}");
    let run = std::fs::read_dir(case.path("out"))
        .expect("runs")
        .next()
        .expect("a run")
        .expect("an entry");
    let record = std::fs::read_to_string(run.path().join("run.json")).expect("run.json");
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    let date = record["chat_date"].as_str().expect("a date").to_owned();
    assert!(months.iter().any(|month| date.starts_with(month.as_str())), "{date}");
    // On another day the run's own recipe keeps it.
    let recipe = std::fs::read_to_string(run.path().join("recipe.yaml")).expect("recipe.yaml");
    assert!(recipe.contains("chat_date:") && recipe.contains(&date), "{recipe}");

    let args = "train baseline --model model --dry-run --set data.prompt=chat --set data.chat_date=2024-13-01";
    let args: Vec<&str> = args.split_whitespace().collect();
    let error = case.refused(2, &args);
    assert!(
        error.contains("`data.chat_date` must be a day such as 2026-07-26"),
        "{error}"
    );
}
