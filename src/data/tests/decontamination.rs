use crate::data::{
    DataConfig, DataError, EvaluationProblem, Example, Tokenizer,
    decontaminate::{check, normalised_code},
    load, mbpp, pairs,
};
use std::collections::BTreeSet;

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
        "mine may not be trained on: its code equals that of the evaluation problem bench/7; leave it out, or set \
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
    let solutions = pairs::load("builtin:mbpp").unwrap();
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
