//! Programs as text, and addresses: what people and models write.

use super::{file, none, words};
use crate::{
    Kind, Outcome, Target,
    mutate::Shape,
    target::{FIRST, POOL},
};
use wmtp_base::{redact, text, yaml};
use wmtp_data::{Clock, PromptStyle, decontaminate::normalised_code, labels};
use wmtp_eval::{Answer, Benchmark, HumanEval, Verdict, parse_tasks, same_output};
use wmtp_model::other_content;
use wmtp_storage::{ByteSize, Location, S3Url};
use wmtp_track::Address;

pub(super) const PYTHON: Target = Target {
    name: "code",
    what: "Python and completions as text: what is compared, cut and taken out of them",
    kind: Kind::Memory,
    shape: Shape::Text,
    words: words::PYTHON,
    stack: POOL,
    seeds: || {
        vec![
            file("data/pack.py"),
            b"Sure:\n```python\ndef f(x):\n    return x + 1\n```\n".to_vec(),
        ]
    },
    open: |_| {
        let benchmark = HumanEval::load("builtin:humaneval", false, PromptStyle::ZeroShot, None);
        let Ok(benchmark) = benchmark else {
            panic!("the built-in problems are read")
        };
        Box::new(move |input| {
            let text = String::from_utf8_lossy(input);
            let (first, second) = text.split_at(text.floor_char_boundary(text.len() / 2));
            let code = normalised_code(&text);
            let _ = labels::edit(first, second);
            let _ = same_output(first, second);
            let _ = other_content(input);
            let stop = benchmark.stop();
            let _ = (stop.end(&text), stop.cut(&text));
            let completion = benchmark.completion(0, &text);
            let _ = benchmark.is_reference(0, Answer::Completion(&completion));
            let _ = benchmark.is_reference(0, Answer::Program(&text));
            match code.is_empty() {
                true => Outcome::Refused(0),
                false => Outcome::Accepted,
            }
        })
    },
};

pub(super) const ADDRESSES: Target = Target {
    name: "addresses",
    what: "addresses, sizes, names, dates and numbers of tasks, one a line",
    words: words::ADDRESSES,
    stack: FIRST,
    seeds: none,
    open: |_| {
        Box::new(|input| {
            let text = String::from_utf8_lossy(input);
            let mut outcome = Outcome::refused("none");
            for line in text.lines() {
                let location = Location::parse(line);
                if location.is_ok() {
                    outcome = Outcome::Accepted;
                }
                if let Ok(url) = S3Url::parse(line) {
                    let _ = (url.split().1.len(), url.join("x").to_string());
                }
                let _ = line.parse::<ByteSize>().map(|size| size.to_string());
                let _ = Address::new(line, None, None).map(|address| address.url().len());
                let _ = line.parse::<Verdict>().map(|verdict| verdict.to_string());
                let _ = Clock::parse(line).map(|clock| clock.to_string());
                let _ = (
                    redact::redact(line),
                    redact::has_credentials(line),
                    redact::credentials(line),
                );
                let _ = (text::shorten(line, 5), text::synonym(line), wmtp_track::data_name(line));
                let _ = text::suggestion(line, ["model", "data"].into_iter());
                let _ = yaml::too_deep(line);
                // More than a few ranges are more than a few numbers.
                if line.len() < 40 {
                    let _ = parse_tasks(line).map(|tasks| tasks.len());
                }
            }
            outcome
        })
    },
    ..PYTHON
};
