//! No shipped source of labels tells right from wrong by names, length or layout; and a source that does is found.

use crate::{
    DataError,
    labels::{Labelled, LabelledSource, unix_line_ends},
    leak::{BOUND, Feature, LeakReport, fold, measure, measure_all, table},
    rows,
};
use serde::Deserialize;
use serde_json::Value;

/// Figures by scikit-learn: `fixtures/leak/check_leak.py`.
fn reference() -> Value {
    serde_json::from_str(include_str!("fixtures/leak/leak.json")).unwrap()
}

/// The labels that were trained on before: every renamed program is correct.
fn old(kinds: &[&str]) -> Vec<Labelled> {
    #[derive(Deserialize)]
    struct Row {
        task_id: u32,
        code: String,
        is_correct: bool,
        mutation: String,
    }
    let text = include_str!("../../../../data/mbpp/mbpp_pairs.jsonl");
    let rows: Result<Vec<(usize, Row)>, DataError> = rows("mbpp_pairs.jsonl", text);
    rows.unwrap()
        .into_iter()
        .map(|(_, row)| row)
        .filter(|row| !row.is_correct || kinds.is_empty() || kinds.contains(&row.mutation.as_str()))
        .map(|row| Labelled {
            problem: format!("Mbpp/{}", row.task_id),
            pair: None,
            code: unix_line_ends(&row.code),
            correct: row.is_correct,
            language: "python".into(),
            edit: None,
            difficulty: None,
        })
        .collect()
}

fn near_reference(name: &str, reports: &[LeakReport]) {
    let expected = &reference()[name];
    for report in reports {
        assert_eq!(expected["programs"], report.programs, "{name}");
        assert_eq!(expected["problems"], report.problems, "{name}");
        let figures = &expected[report.feature.name()];
        for (key, ours) in [
            ("across", report.across),
            ("within", report.within),
            ("paired", report.paired),
        ] {
            match (ours, figures[key].as_f64()) {
                (Some(ours), Some(theirs)) => {
                    let what = format!("{name}, {}, {key}: {ours:.4}, scikit-learn {theirs:.4}", report.feature);
                    assert!((ours - theirs).abs() < 0.005, "{what}");
                }
                (ours, theirs) => assert_eq!(ours, theirs, "{name}, {}, {key}", report.feature),
            }
        }
    }
}

#[test]
fn no_shipped_source_of_labels_leaks() {
    for source in LabelledSource::ALL {
        let reports = measure_all(&source.load().unwrap());
        for report in &reports {
            let across = report.across.unwrap();
            assert!(across < 0.57, "{}: {} {across:.3}", source.name(), report.feature);
            assert!(report.holds());
        }
        near_reference(source.name(), &reports);
    }
}

#[test]
fn the_old_labels_leak_their_names() {
    let all = measure_all(&old(&[]));
    near_reference("mbpp_pairs", &all);
    let [identifiers, ..] = all.as_slice() else { panic!() };
    assert!(
        identifiers.across.unwrap() > 0.7 && !identifiers.holds(),
        "{identifiers:?}"
    );

    let renamed = measure_all(&old(&["rename"]));
    near_reference("mbpp_pairs, renamed and wrong", &renamed);
    assert!(renamed[0].across.unwrap() > 0.9, "{renamed:?}");

    // The names of references say nothing: it is the renaming that leaks.
    let references = measure_all(&old(&["reference"]));
    near_reference("mbpp_pairs, references and wrong", &references);
    assert!(references[0].across.unwrap() < BOUND);
}

/// Twenty problems with a right and a wrong program each, which differ as `right` and `wrong` do.
fn twenty(right: &str, wrong: &str) -> Vec<Labelled> {
    let one = |problem: u32, code: &str, correct: bool| Labelled {
        problem: format!("p{problem}"),
        pair: Some(problem),
        code: format!("def f{problem}(a):\n    return {code}\n"),
        correct,
        language: "python".into(),
        edit: None,
        difficulty: None,
    };
    (0..20)
        .flat_map(|problem| [one(problem, right, true), one(problem, wrong, false)])
        .collect()
}

#[test]
fn each_feature_finds_its_own_kind_of_leak() {
    let across = |right, wrong| Feature::ALL.map(|feature| measure(&twenty(right, wrong), feature).across.unwrap());
    // Another name of the same length.
    assert_eq!(across("a + b", "a + c"), [1.0, 0.5, 0.5]);
    // White space before a comment makes up for that around the operator.
    assert_eq!(across("a+b   # sum", "a + b # sum"), [0.5, 0.5, 1.0]);
    // Numbers and strings are no names and no layout; their length shows.
    assert_eq!(across("a + 1", "a + 'a long string with names in it'"), [0.5, 1.0, 0.5]);
}

#[test]
fn labels_that_cannot_be_measured_have_no_figures_and_do_not_hold() {
    let rights: Vec<Labelled> = twenty("a", "b").into_iter().filter(|program| program.correct).collect();
    for programs in [&rights[..], &[]] {
        for report in measure_all(programs) {
            assert_eq!((report.across, report.within, report.paired), (None, None, None));
            assert!(!report.holds());
        }
    }
}

#[test]
fn a_problem_is_always_in_the_same_fold() {
    // int.from_bytes(hashlib.sha256(b"Mbpp/601").digest()[:8], "big") % 5
    let names = [
        "Mbpp/601", "abc221_g", "", "Mbpp/1", "Mbpp/2", "abc230_c", "größe", "Mbpp/974",
    ];
    assert_eq!(names.map(fold), [1, 1, 2, 1, 2, 0, 4, 4]);
}

#[test]
fn the_table_has_a_line_for_each_source_and_feature() {
    let reports = measure_all(&twenty("a + b", "a + c"));
    let table = table([("twenty", reports.as_slice())]);
    assert_eq!(table.lines().count(), 5);
    let line = table.lines().nth(2).unwrap();
    assert_eq!(line, "| twenty | 20 | 40 | identifiers | 1.000 | 1.000 | 1.000 |");
}
