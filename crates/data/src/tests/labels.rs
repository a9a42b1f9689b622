//! The shipped sources of labels: what is in them, and what is refused.

use crate::{
    Body, Tests,
    labels::{
        CONDEFECTS_PROMPT, LabelledSource,
        contest::{self, Filter},
        edit, unix_line_ends,
    },
    rows,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::HashSet, io::Write};

#[test]
fn the_shipped_files_are_those_of_their_readmes() {
    let readmes = [
        include_str!("../../../../data/mbpp/README.md"),
        include_str!("../../../../data/condefects/README.md"),
        include_str!("../../../../data/contest/README.md"),
    ];
    let expected = [
        (
            5447,
            949,
            "440763f57b4033415e4bb2fc3974f277e4733f8cbfb1205fb7c31477f890940d",
        ),
        (
            2441,
            858,
            "81166d160244ca144eefcab3dd4df075815e5082ef7ea68ea7360df1a2c0f752",
        ),
        (
            654,
            167,
            "7af411edd64f5846ca51039dab28bce10d6a4c155bdc04d99af1b5728dcd0bca",
        ),
    ];
    for ((source, readme), (pairs, problems, sha256)) in LabelledSource::ALL.into_iter().zip(readmes).zip(expected) {
        let name = source.name();
        assert_eq!(hex::encode(Sha256::digest(source.text().unwrap())), sha256, "{name}");
        assert!(readme.contains(sha256), "{name}");
        let all = source.pairs().unwrap();
        assert_eq!(all.len(), pairs, "{name}");
        let names: HashSet<&str> = all.iter().map(|pair| pair.problem.as_str()).collect();
        assert_eq!(names.len(), problems, "{name}");
        for (pair, number) in all.iter().zip(0..) {
            assert_eq!((pair.number, pair.language.as_str()), (number, "python"), "{name}");
            assert!(
                !pair.correct.contains("\r\n") && !pair.incorrect.contains("\r\n"),
                "{name} {number}"
            );
        }
        let programs = source.load().unwrap();
        assert_eq!(
            programs.iter().filter(|program| program.correct).count(),
            pairs,
            "{name}"
        );
        assert_eq!(programs.len(), 2 * pairs, "{name}");
    }
}

#[test]
fn the_edit_is_what_differs() {
    assert_eq!(edit("return a + b", "return a - b"), 9..10);
    // Something was deleted: nothing is left to show.
    assert_eq!(edit("aéb", "ab"), 1..1);
    // The prefix goes first: of "aa" and "aaa" the last `a` was added.
    assert_eq!(edit("aa", "aaa"), 2..3);
    // Characters, not bytes.
    assert_eq!(edit("é = 'ü'", "é = 'ä'"), 5..6);
    assert_eq!(edit("same", "same"), 4..4);
}

/// `make_matched.py` wrote where the programs differ, in characters of the text with its CRLF line ends.
#[test]
fn the_edits_of_mbpp_are_those_that_its_script_wrote() {
    let source = LabelledSource::MbppMatched;
    let text = source.text().unwrap();
    let rows: Vec<(usize, Value)> = rows("", &text).unwrap();
    let pairs = source.pairs().unwrap();
    for ((_, row), pair) in rows.iter().zip(&pairs) {
        let incorrect: Vec<char> = row["incorrect"].as_str().unwrap().chars().collect();
        let place = |key: &str| {
            let end = row[key].as_u64().unwrap() as usize;
            incorrect[..end].iter().filter(|c| **c != '\r').count()
        };
        let ours = pair.edit.clone().unwrap();
        assert_eq!(ours, place("start")..place("end"), "{}", row["pair"]);
        assert_eq!(pair.mbpp_task(), row["task_id"].as_u64().map(|id| id as u32));
    }
}

#[test]
fn a_pair_is_a_row_with_two_rewards() {
    let pairs = LabelledSource::Condefects.pairs().unwrap();
    let record = pairs[0].code_alone();
    assert_eq!(record.place.to_string(), "builtin:condefects/python_pairs.jsonl, row 1");
    assert_eq!(record.task_id.as_deref(), Some("abc221_g"));
    assert_eq!(
        record.samples.iter().map(|s| s.reward).collect::<Vec<_>>(),
        [Some(1.0), Some(0.0)]
    );
    for (sample, code) in record.samples.iter().zip([&pairs[0].correct, &pairs[0].incorrect]) {
        let Body::Completion { prompt, completion } = &sample.body else {
            panic!("{sample:?}")
        };
        assert_eq!((prompt.as_str(), completion), (CONDEFECTS_PROMPT, code));
    }
    // The prompt is one and the same, so it says nothing about task and label.
    assert!(!CONDEFECTS_PROMPT.is_empty() && !CONDEFECTS_PROMPT.contains("abc"));
    let [right, wrong] = pairs[0].labelled();
    assert_eq!((right.correct, right.edit), (true, None));
    assert_eq!((wrong.correct, wrong.edit), (false, pairs[0].edit.clone()));
}

/// A problem with Python 3 solutions of 3 and 9 characters, and a C++ one of 6.
fn problem() -> Value {
    json!({
        "name": "1_A. Made up", "description": "Print it.", "difficulty": 7, "source": 2,
        "public_tests": {"input": ["1\n"], "output": ["1\n"]},
        "private_tests": {"input": ["2\n"], "output": ["2\n"]},
        "generated_tests": {"input": [], "output": []},
        "solutions": {"language": [3, 2, 3], "solution": ["abc", "int x;", "abcdefghi"]},
        "incorrect_solutions": {"language": [3, 2, 3, 4], "solution": ["abd", "int y;", "abcdef\r\nh", "class X"]},
    })
}

fn parse(problem: &Value) -> Vec<contest::Problem> {
    contest::parse("made.jsonl", &format!("\n{problem}\n")).unwrap()
}

#[test]
fn a_wrong_solution_is_paired_with_the_nearest_right_one_in_length() {
    let problems = parse(&problem());
    let texts = |filter: &Filter| -> Vec<(String, String, String)> {
        let pairs = contest::pairs("made.jsonl", &problems, filter);
        pairs
            .into_iter()
            .map(|pair| (pair.language, pair.correct, pair.incorrect))
            .collect()
    };
    let row = |language: &str, right: &str, wrong: &str| -> (String, String, String) {
        (language.into(), right.into(), wrong.into())
    };
    let python = [row("python", "abc", "abd"), row("python", "abcdefghi", "abcdef\nh")];
    assert_eq!(texts(&Filter::default()), python);
    let [a, b] = python;
    // Java has no right solution.
    let all = Filter {
        languages: vec![2, 3, 4],
        ..Filter::default()
    };
    assert_eq!(texts(&all), [a, row("cpp", "int x;", "int y;"), b]);
    let harder = Filter {
        difficulty: 8..=28,
        ..Filter::default()
    };
    assert!(texts(&harder).is_empty());
    let pair = &contest::pairs("made.jsonl", &problems, &all)[0];
    assert_eq!(
        (pair.place.to_string().as_str(), pair.difficulty),
        ("made.jsonl, row 2", Some(7))
    );
    // People wrote both: they differ in more than an edit.
    assert_eq!(pair.edit, None);
    let mut made = problem();
    made["incorrect_origin"] = json!([{"mutation": "off_by_one"}]);
    assert_eq!(
        contest::pairs("", &parse(&made), &Filter::default())[0].edit,
        Some(2..3)
    );
}

#[test]
fn a_problem_is_a_row_with_all_its_solutions() {
    let problems = parse(&problem());
    let body = |problem: &contest::Problem, code: &str| Body::Completion {
        prompt: problem.description.clone(),
        completion: code.to_owned(),
    };
    let file = "made.jsonl".into();
    let record = problems[0].record(&file, &Filter::default(), body).unwrap();
    let rewards: Vec<_> = record.samples.iter().map(|sample| sample.reward).collect();
    assert_eq!(rewards, [Some(1.0), Some(1.0), Some(0.0), Some(0.0)]);
    assert_eq!(record.language.as_deref(), Some("python"));
    let tests = vec![("1\n".into(), "1\n".into()), ("2\n".into(), "2\n".into())];
    assert_eq!(record.tests, Some(Tests::InputOutput(tests)));
    let several = Filter {
        languages: vec![2, 3],
        ..Filter::default()
    };
    assert_eq!(problems[0].record(&file, &several, body).unwrap().language, None);
    let none = Filter {
        languages: vec![1],
        ..Filter::default()
    };
    assert_eq!(problems[0].record(&file, &none, body), None);
}

/// The statement is the prompt: it has to show the public tests.
#[test]
fn shipped_statements_show_their_public_tests() {
    let problems = contest::parse("", &LabelledSource::Contest.text().unwrap()).unwrap();
    assert_eq!(problems.len(), 220);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for problem in &problems {
        let description = words(&problem.description);
        assert!(!problem.public_tests.input.is_empty(), "{}", problem.name);
        for input in &problem.public_tests.input {
            assert!(description.contains(&words(input)), "{}", problem.name);
        }
    }
    assert_eq!(
        problems.iter().filter(|p| !p.solutions.solution.is_empty()).count(),
        191
    );
}

#[test]
fn files_are_read_plain_packed_and_from_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let row = json!({"task": "abc1_a", "correct": "print(1)", "incorrect": "print(2)\r\n"}).to_string();
    let source = LabelledSource::Condefects;
    std::fs::write(dir.path().join("python_pairs.jsonl"), &row).unwrap();
    let plain = source.read(dir.path()).unwrap();
    assert_eq!(
        (plain.len(), plain[0].incorrect.as_str(), plain[0].edit.clone()),
        (1, "print(2)\n", Some(6..9))
    );
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(format!("{row}\n{row}").as_bytes()).unwrap();
    std::fs::write(dir.path().join("python_pairs.jsonl.gz"), packed.finish().unwrap()).unwrap();
    assert_eq!(source.read(dir.path()).unwrap().len(), 2);
    assert_eq!(source.read(&dir.path().join("python_pairs.jsonl")).unwrap().len(), 1);
    let error = LabelledSource::MbppMatched.read(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("mbpp_matched.jsonl") && error.contains("cannot be read"),
        "{error}"
    );
}

#[test]
fn a_wrong_row_is_refused_with_file_and_line() {
    let refused = |source: LabelledSource, row: Value, words: &str| {
        let error = source.parse("f.jsonl", &format!("\n{row}")).unwrap_err().to_string();
        assert!(
            error.starts_with("f.jsonl, line 2: ") && error.contains(words),
            "{error}"
        );
        assert!(error.split_whitespace().count() < 30, "{error}");
    };
    use LabelledSource::{Condefects, Contest, MbppMatched};
    let mbpp =
        |id: u32, correct: &str, incorrect: &str| json!({"task_id": id, "correct": correct, "incorrect": incorrect});
    refused(
        MbppMatched,
        mbpp(975, "a", "b"),
        "`975` is not one of MBPP's ids 1 to 974",
    );
    refused(MbppMatched, mbpp(1, " ", "b"), "is empty");
    // Line ends make no difference.
    refused(MbppMatched, mbpp(1, "a\r\nb", "a\nb"), "are the same program");
    refused(
        MbppMatched,
        json!({"task_id": 1, "correct": "a"}),
        "missing field `incorrect`",
    );
    refused(
        Condefects,
        json!({"task": "", "correct": "a", "incorrect": "b"}),
        "field `task` is empty",
    );
    let mut changed = problem();
    changed["solutions"]["language"] = json!([3]);
    refused(
        Contest,
        changed,
        "`solutions` has 1 entries in `language` and 3 in `solution`",
    );
    let mut changed = problem();
    changed["private_tests"]["output"] = json!([]);
    refused(
        Contest,
        changed,
        "`private_tests` has 1 entries in `input` and 0 in `output`",
    );
    let mut changed = problem();
    changed["description"] = json!(" ");
    refused(Contest, changed, "`description` is empty");
    let twice = format!("{}\n{}", problem(), problem());
    let error = contest::parse("f.jsonl", &twice).unwrap_err().to_string();
    assert_eq!(
        error,
        "f.jsonl, line 2: `1_A. Made up` is there a second time; keep one"
    );
}

#[test]
fn line_ends_are_lf() {
    assert_eq!(unix_line_ends("a\r\nb\r\n"), "a\nb\n");
    // Half of a CRLF at the end goes; one in the middle is part of the text.
    assert_eq!(unix_line_ends("a\rb\r"), "a\rb");
}

#[test]
fn rows_in_other_languages_are_left_out() {
    let mut record = LabelledSource::Condefects.pairs().unwrap()[0].code_alone();
    let of = |languages: &[&str]| crate::DataConfig {
        languages: languages.iter().map(|language| language.to_string()).collect(),
        ..crate::DataConfig::default()
    };
    assert_eq!(record.language.as_deref(), Some("python"));
    assert!(of(&[]).reads(&record) && of(&["cpp", "python"]).reads(&record));
    assert!(!of(&["cpp"]).reads(&record));
    record.language = None;
    assert!(of(&["cpp"]).reads(&record));
}
