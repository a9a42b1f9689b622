//! The labels do not leak: features that ignore the description do not separate right programs from wrong.

use wmtp_data::{
    labels::Labelled,
    leak::{BOUND, Feature, measure_all, table},
};
use wmtp_world::{Task, World, WorldConfig};

fn labelled(tasks: &[Task]) -> Vec<Labelled> {
    let program = |task: &Task, code: &str, pair: usize, correct: bool| Labelled {
        problem: task.name.clone(),
        pair: Some(100 * task.id + pair as u32),
        code: code.to_owned(),
        correct,
        language: "python".into(),
        edit: None,
        difficulty: None,
    };
    let each = tasks.iter().flat_map(|task| {
        let right = task.right.iter().enumerate();
        let right = right.map(|(pair, right)| program(task, &right.code, pair, true));
        let wrong = task.wrong.iter();
        right.chain(wrong.map(|wrong| program(task, &wrong.code, wrong.of, false)))
    });
    each.collect()
}

#[test]
fn right_programs_are_not_known_by_their_words_their_length_or_their_layout() {
    let world = World::new(&WorldConfig::default());
    let everything: Vec<Task> = [world.training.clone(), world.held_out].concat();
    for (name, tasks) in [("training tasks", world.training), ("all tasks", everything)] {
        let reports = measure_all(&labelled(&tasks));
        println!("{}", table([(name, reports.as_slice())]));
        for report in &reports {
            let across = report.across.expect("both labels are there");
            assert!(
                across < BOUND && across > 1.0 - BOUND,
                "{}, {name}: {across}",
                report.feature
            );
        }
    }
}

/// The test of the test: labels that leak are found.
#[test]
fn a_leak_is_seen() {
    let world = World::new(&WorldConfig {
        training: 600,
        ..WorldConfig::default()
    });
    let mut renamed = labelled(&world.training);
    for program in renamed.iter_mut().filter(|program| !program.correct) {
        program.code = program.code.replace("return", "other = 0\n    return");
    }
    let found: Vec<(Feature, f64)> = measure_all(&renamed)
        .iter()
        .filter_map(|report| Some((report.feature, report.across?)))
        .collect();
    assert_eq!(found.len(), 3);
    for (feature, across) in found {
        let least = if feature == Feature::Identifiers { 0.95 } else { 0.6 };
        assert!(across > least, "{feature}: {across}");
    }
}
