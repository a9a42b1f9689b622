use crate::bench::{
    evaluation_problems_of, humaneval,
    mbpp::training,
    mbpp::{self, load, pairs},
};
use std::collections::BTreeSet;
use wmtp_data::{
    DataConfig, DataError, EvaluationProblem, Example, Tokenizer,
    decontaminate::{check, normalised_code, parts},
};

fn sample(task: &str, code: &str) -> Example {
    Example {
        sample: 0,
        name: "mine".into(),
        problem: 1,
        prompt: "p".into(),
        response: code.into(),
        task: task.into(),
        code: code.into(),
        reward: None,
    }
}

fn problem(task: &str, code: &str) -> EvaluationProblem {
    EvaluationProblem {
        name: "bench/7".into(),
        task: task.into(),
        code: code.into(),
    }
}

#[test]
fn layout_and_comments_do_not_hide_a_copy() {
    let a = normalised_code("def f(x): # twice\r\n    return 2*x  # done\n");
    let b = normalised_code("def f( x ) :\n\treturn 2 * x");
    assert_eq!(a, b);
    assert_ne!(a, normalised_code("def f(x):\n    return 3 * x"));
    // A hash inside a string is no comment, with escapes, triple quotes and an open end.
    let inside = normalised_code("s = '#a' + \"\\\"#b\" + '''\n#c''' #d\nt = '#e");
    assert!(["a", "b", "c", "e"].iter().all(|w| inside.contains(&(*w).to_string())));
    assert!(!inside.contains(&"d".to_string()));

    let error = check(
        &[sample("x", "def f(x): return 2*x # mine")],
        &[problem("y", "def f( x ):\n return 2 *x")],
        false,
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "mine may not be trained on: its code equals that of the evaluation problem bench/7; leave it out (`data.copies: drop` does so with rows), or set \
         `data.i_know_this_trains_on_evaluation_data: true` and report no score on that benchmark"
    );
}

#[test]
fn more_than_half_is_a_copy_and_half_is_not() {
    // 26 words: 14 n-grams of 13. The first 19 of them hold 7 n-grams, the first 20 hold 8.
    let words: Vec<String> = (0..26).map(|i| format!("w{i}")).collect();
    let evaluation = |n: usize| [problem(&words[..n].join(" "), "other")];
    let mine = [sample(&words[..20].join(" "), &words[20..].join(" "))];
    let half = check(&mine, &evaluation(19), false).unwrap();
    assert_eq!((half.checked, half.partial, half.copies), (1, 1, 0));
    assert_eq!(half.largest, Some(("mine".into(), "bench/7".into(), 0.5)));
    let message = check(&mine, &evaluation(20), false).unwrap_err().to_string();
    assert!(
        message.contains("57% of its 13-token n-grams are in the evaluation problem bench/7"),
        "{message}"
    );
    let allowed = check(&mine, &evaluation(20), true).unwrap();
    assert_eq!((allowed.partial, allowed.copies), (0, 1));
    let none = check(&mine, &evaluation(12), false).unwrap();
    assert_eq!((none.partial, none.copies), (0, 0));
}

#[test]
fn n_grams_of_two_problems_are_not_added_up() {
    let words: Vec<String> = (0..26).map(|i| format!("w{i}")).collect();
    let mine = [sample(&words.join(" "), "")];
    let evaluation = [
        problem(&words[..18].join(" "), "a"),
        problem(&words[8..].join(" "), "b"),
    ];
    assert_eq!(check(&mine, &evaluation, false).unwrap().partial, 1);
}

#[test]
fn the_default_exclusions_are_exactly_what_the_rule_names_in_mbpp() {
    let tokenizer = Tokenizer::builtin_micro().unwrap();
    let config = DataConfig::default();
    let problems = load("builtin:mbpp").unwrap();
    let evaluation: Vec<_> = problems
        .iter()
        .filter(|p| mbpp::within(p.task_id, mbpp::TEST_TASKS))
        .map(|p| problem(&mbpp::content(p), &p.code))
        .collect();
    let train = |id| mbpp::within(id, config.train_tasks);
    let solutions = pairs::load_labelled("builtin:mbpp").unwrap();
    let mut samples = [
        mbpp::examples(&problems, train, config.prompt, &tokenizer).unwrap(),
        pairs::examples(&solutions, &problems, train, config.prompt, &tokenizer).unwrap(),
    ]
    .concat();
    let mut named = BTreeSet::new();
    while let Err(DataError::Contaminated { sample, .. }) = check(&samples, &evaluation, false) {
        let problem = samples.iter().find(|s| s.name == sample).unwrap().problem;
        assert!(named.insert(problem));
        samples.retain(|s| s.problem != problem);
    }
    assert_eq!(named.into_iter().collect::<Vec<_>>(), config.exclude_tasks);
}

/// A training configuration with these files as `data.text`.
fn with_text(files: &[std::path::PathBuf]) -> DataConfig {
    DataConfig {
        text: files.iter().map(|file| file.display().to_string()).collect(),
        train_tasks: (602, 607),
        valid_tasks: (511, 513),
        seq_len: 4096,
        ..DataConfig::default()
    }
}

#[test]
fn text_is_compared_with_every_benchmark() {
    let tokenizer = Tokenizer::builtin_micro().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let humaneval = humaneval::load("builtin:humaneval", false).unwrap();
    let contest = evaluation_problems_of("contest").unwrap();
    let mbpp = evaluation_problems_of("mbpp").unwrap();
    // The longest solution: a part of a file of its own has to have some n-grams.
    let longest = |problems: &[EvaluationProblem]| {
        let problem = problems.iter().max_by_key(|p| normalised_code(&p.code).len()).unwrap();
        (problem.name.clone(), problem.code.clone())
    };
    let sources = [
        (
            "humaneval/0".to_owned(),
            format!("{}{}", humaneval[0].prompt, humaneval[0].canonical_solution),
        ),
        longest(&contest),
        longest(&mbpp),
    ];
    for (number, (problem, code)) in sources.iter().enumerate() {
        let file = dir.path().join(format!("alone-{number}.py"));
        std::fs::write(&file, code).unwrap();
        let mut config = with_text(&[file]);
        let error = training::problems(&config, &tokenizer).unwrap_err().to_string();
        assert!(
            error.contains(&format!("alone-{number}.py may not be trained on")),
            "{problem}: {error}"
        );
        assert!(error.contains("the evaluation problem "), "{problem}: {error}");
        assert!(error.contains("data.i_know_this_trains_on_evaluation_data"), "{error}");
        config.i_know_this_trains_on_evaluation_data = true;
        let splits = training::problems(&config, &tokenizer).unwrap();
        assert!(splits.overlap.copies > 0, "{problem}");
    }

    // Among 163 others in one file, each is a small part of it.
    let all: Vec<String> = humaneval
        .iter()
        .map(|p| format!("{}{}\n\n", p.prompt, p.canonical_solution))
        .collect();
    let file = dir.path().join("all.py");
    std::fs::write(&file, all.concat()).unwrap();
    let mut config = with_text(&[file]);
    let error = training::problems(&config, &tokenizer).unwrap_err().to_string();
    assert!(error.contains("all.py:") && error.contains("humaneval/"), "{error}");
    config.i_know_this_trains_on_evaluation_data = true;
    let splits = training::problems(&config, &tokenizer).unwrap();
    let found: BTreeSet<&str> = splits.overlap.found.iter().map(|o| o.problem.as_str()).collect();
    assert!(found.len() >= 150, "{}", found.len());

    // And a program that is nobody's trains.
    let file = dir.path().join("own.py");
    std::fs::write(
        &file,
        "def fib(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
    )
    .unwrap();
    assert_eq!(
        training::problems(&with_text(&[file]), &tokenizer)
            .unwrap()
            .overlap
            .copies,
        0
    );
}

#[test]
fn labelled_solutions_are_compared_with_every_benchmark() {
    let tokenizer = Tokenizer::builtin_micro().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/mbpp");
    for file in ["mbpp.jsonl", "mbpp_pairs.jsonl"] {
        std::fs::copy(format!("{own}/{file}"), dir.path().join(file)).unwrap();
    }
    let source = dir.path().display().to_string();
    let config = DataConfig {
        source: source.as_str().into(),
        ..DataConfig::default()
    };
    assert_eq!(training::solutions(&config, &tokenizer).unwrap().overlap.copies, 0);
    // A solution of HumanEval/2 as one of task 601.
    let row = r#"{"task_id": 601, "code": "def truncate_number(number: float) -> float:\n    return number % 1.0\n", "is_correct": false, "mutation": "other"}"#;
    let pairs = dir.path().join("mbpp_pairs.jsonl");
    let text = std::fs::read_to_string(&pairs).unwrap();
    std::fs::write(&pairs, format!("{text}{row}\n")).unwrap();
    let error = training::solutions(&config, &tokenizer).unwrap_err().to_string();
    assert!(error.contains("mbpp/601/") && error.contains("humaneval/2"), "{error}");
}

#[test]
fn a_file_is_cut_into_its_functions_and_classes() {
    let body = "    return one + two + three + four + five + six\n";
    let file = sample(
        "",
        &format!(
            "import os\n\n@cache\ndef f(one, two, three):\n{body}\nx = 1\n# c\nclass C:\n    def g(self, a, b, c, d):\n    {body}\n\ndef h(): pass\n"
        ),
    );
    let parts = parts(&file);
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["mine:3", "mine:9"], "h has fewer tokens than an n-gram");
    assert!(parts[0].code.starts_with("@cache\ndef f") && !parts[0].code.contains("x = 1"));
}
