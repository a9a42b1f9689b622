//! Benchmarks with a stand-in for a model that writes the reference solutions as token ids, through
//! tokenizers of several kinds: prompt ids, new ids, text, stop, sandboxed verdict. Needs `python3`.

use std::{collections::HashMap, path::Path};
use wmtp::{
    data::{PromptStyle, Tokenizer},
    eval::bench::{humaneval, mbpp},
    eval::{Benchmark, EvalRequest, HumanEval, Mbpp, MbppVariant, Source, sandbox::Sandbox},
    pipeline::{ModelGenerator, TokenWriter},
};
use wmtp_model::{Decoding, Finish, Generation, ModelError, Request, Sampling, Totals};

/// Continues known prompts with known texts, token by token.
struct Reference {
    /// New ids by the prompt's ids.
    answers: HashMap<Vec<u32>, Vec<u32>>,
}

impl Reference {
    /// `texts`: prompt and what follows it.
    fn new(tokenizer: &Tokenizer, texts: &[(String, String)]) -> Self {
        let answers = texts.iter().map(|(prompt, answer)| {
            let before = tokenizer.prompt_ids(prompt).expect("a prompt");
            let whole = tokenizer.prompt_ids(&format!("{prompt}{answer}")).expect("a text");
            let new = match whole.strip_prefix(&before[..]) {
                Some(new) => new.to_vec(),
                // The prompt's last token would be another one in the whole text. After these ids a
                // model writes other tokens, of the same text.
                None => tokenizer.encode(answer).expect("an answer"),
            };
            (before, new)
        });
        Self {
            answers: answers.collect(),
        }
    }
}

impl TokenWriter for Reference {
    fn write_tokens(
        &self,
        requests: &[Request],
        decoding: &Decoding,
        stop: &mut dyn FnMut(usize, &[u32]) -> bool,
        done: &mut dyn FnMut(usize, Generation),
    ) -> Result<Totals, ModelError> {
        for (index, request) in requests.iter().enumerate() {
            let answer = self.answers.get(&request.tokens).expect("a known prompt");
            assert!(!answer.iter().any(|id| decoding.eos.contains(id)));
            let most = answer.len().min(request.sampling.max_new_tokens);
            let stopped = (1..=most).find(|&n| stop(index, &answer[..n]));
            let finish = if stopped.is_some() { Finish::Stop } else { Finish::Eos };
            let generation = Generation {
                tokens: answer[..stopped.unwrap_or(most)].to_vec(),
                finish,
                effort: Default::default(),
            };
            done(index, generation);
        }
        Ok(Totals::default())
    }
}

fn tokenizer(kind: &str) -> Tokenizer {
    let kinds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/data/src/tests/fixtures/kinds");
    Tokenizer::load(&kinds.join(kind)).expect("a tokenizer")
}

/// Problems passed, problems in all.
fn passed(
    tokenizer: Tokenizer,
    benchmark: &dyn Benchmark,
    tasks: Vec<u32>,
    texts: &[(String, String)],
) -> (usize, usize) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let runner = Sandbox::new().expect("this test needs python3 and every layer of the sandbox");
    let reference = Reference::new(&tokenizer, texts);
    let sampling = Sampling::greedy(4096);
    let mut generator = ModelGenerator::new(reference, tokenizer, sampling);
    let mut request = EvalRequest::new(tasks, home.path().join("run"));
    request.temperatures = vec![0.0];
    request.max_new_tokens = 4096;
    // The machine may be busy; the programs are right.
    request.limits.wall = std::time::Duration::from_secs(60);
    let source = Source::Generator(&mut generator);
    let mut failed = Vec::new();
    wmtp::eval::run(benchmark, &request, source, &runner, &mut |_| {}).expect("an evaluation");
    let lines = crate::common::lines(&home.path().join("run/samples.jsonl"));
    for line in &lines {
        if line["passed"] != true {
            failed.push(format!(
                "{}: {}: {:?}",
                line["task_id"], line["result"], line["completion"]
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    (lines.len() - failed.len(), lines.len())
}

fn humaneval(kind: &str) {
    let benchmark = HumanEval::load("builtin:humaneval", false, PromptStyle::ZeroShot, None).expect("HumanEval");
    let problems = humaneval::load("builtin:humaneval", false).expect("HumanEval");
    // What follows the solution is cut off by the stop.
    let texts: Vec<(String, String)> = problems
        .iter()
        .map(|p| {
            (
                p.prompt.clone(),
                format!("{}\n\nraise ValueError('not cut')\n", p.canonical_solution),
            )
        })
        .collect();
    // All of them pass as they are (ground_truth.rs); here the tokenizers are tested.
    let tasks: Vec<u32> = benchmark.default_tasks().into_iter().step_by(3).collect();
    assert_eq!(passed(tokenizer(kind), &benchmark, tasks, &texts), (55, 55), "{kind}");
}

#[test]
fn humaneval_solutions_pass_through_a_legacy_llama_2_tokenizer() {
    humaneval("llama2");
}

#[test]
fn humaneval_solutions_pass_through_a_llama_2_file_that_prepends_a_space() {
    humaneval("metaspace-file");
}

#[test]
fn humaneval_solutions_pass_through_a_non_legacy_llama_2_tokenizer() {
    humaneval("llama2-nonlegacy");
}

#[test]
fn humaneval_solutions_pass_through_byte_level_tokenizers() {
    humaneval("gpt2");
    humaneval("llama3");
}

#[test]
fn humaneval_solutions_pass_through_a_byte_fallback_tokenizer() {
    humaneval("codellama");
}

#[test]
fn mbpp_solutions_pass_through_a_llama_2_tokenizer() {
    let problems = mbpp::load("builtin:mbpp").expect("MBPP");
    let style = PromptStyle::FewShot;
    let benchmark = Mbpp::load("builtin:mbpp", MbppVariant::Full, false, style, None).expect("MBPP");
    let tasks: Vec<u32> = (11..=60).collect();
    let texts: Vec<(String, String)> = problems
        .iter()
        .filter(|p| tasks.contains(&p.task_id))
        .map(|p| {
            let prompt = benchmark.prompt(p.task_id).expect("a prompt").to_owned();
            (prompt, format!("{}\n\nYou are", mbpp::response(&p.code)))
        })
        .collect();
    for kind in ["llama2", "codellama", "qwen2"] {
        assert_eq!(
            passed(tokenizer(kind), &benchmark, tasks.clone(), &texts),
            (50, 50),
            "{kind}"
        );
    }
}
