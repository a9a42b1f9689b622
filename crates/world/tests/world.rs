//! What a world promises: sizes, determinism, held-out combinations, matched mistakes.

use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashSet};
use wmtp_world::{MistakeKind, Program, Style, Task, World, WorldConfig};

fn world(seed: u64, training: u16, held_out: u16) -> World {
    World::new(&WorldConfig {
        seed,
        training,
        held_out,
    })
}

fn combinations(tasks: &[Task]) -> BTreeSet<&str> {
    tasks.iter().map(|task| task.combination.as_str()).collect()
}

#[test]
fn sizes_and_ids_are_as_configured() {
    let world = world(3, 700, 20);
    assert_eq!((world.training.len(), world.held_out.len()), (700, 20));
    let tasks = world.held_out.iter().chain(&world.training);
    for (id, task) in (1..).zip(tasks) {
        assert_eq!(task.id, id);
        assert_eq!(task.name, format!("world/{id}"));
    }
    assert_eq!(
        World::new(&WorldConfig {
            training: 0,
            held_out: 0,
            seed: 3
        })
        .training,
        []
    );
}

#[test]
fn the_default_world_is_the_same_everywhere() {
    let world = World::new(&WorldConfig::default());
    let bytes = serde_json::to_vec(&world).unwrap();
    assert_eq!(
        hex::encode(Sha256::digest(&bytes)),
        "5667fe84a0af447280985f02a8420f4652d2a22063f2ea685600ed6c287d63dd",
        "the world changed: models, labels and reports of earlier versions are not comparable any more"
    );
}

#[test]
fn the_seed_alone_decides_what_is_held_out() {
    let (small, large, other) = (world(1, 540, 60), world(1, 1200, 120), world(2, 540, 60));
    assert_eq!(combinations(&small.held_out), combinations(&large.held_out));
    assert_eq!(combinations(&small.held_out).len(), 50);
    assert_ne!(combinations(&small.held_out), combinations(&other.held_out));
    // Sizes decide how many tasks there are, not what they are.
    assert_eq!(small.held_out, large.held_out[..60]);
    let descriptions = |tasks: &[Task]| tasks.iter().map(|t| t.description.clone()).collect::<Vec<_>>();
    assert_eq!(descriptions(&small.training), descriptions(&large.training[..540]));
}

/// The program with the same names as every other program.
fn without_names(code: &str) -> String {
    let after = |text: &str| -> String {
        let rest = code.split_once(text).map_or("", |(_, rest)| rest);
        rest.chars().take_while(|c| c.is_alphanumeric()).collect()
    };
    let result = code
        .lines()
        .nth(1)
        .and_then(|line| line.split_once(" = "))
        .map_or("", |(name, _)| name.trim());
    let names = [after("def "), after("("), after("for "), result.to_owned()];
    let mut renamed = String::new();
    let mut word = String::new();
    for c in code.chars().chain([' ']) {
        if c.is_alphanumeric() {
            word.push(c);
            continue;
        }
        match names.iter().position(|name| *name == word) {
            Some(place) if !word.is_empty() => renamed += &format!("name{place}"),
            _ => renamed += &word,
        }
        word.clear();
        renamed.push(c);
    }
    renamed
}

#[test]
fn nothing_of_a_held_out_combination_is_trained_on() {
    let world = world(0, 5000, 590);
    assert!(combinations(&world.training).is_disjoint(&combinations(&world.held_out)));
    let programs = |task: &Task| {
        let right = task.right.iter().map(|program| without_names(&program.code));
        right
            .chain(task.wrong.iter().map(|mistake| without_names(&mistake.code)))
            .collect::<Vec<_>>()
    };
    let trained: HashSet<String> = world.training.iter().flat_map(programs).collect();
    let held_out = world.held_out.iter().flat_map(|task| &task.right);
    let held_out: HashSet<String> = held_out.map(|program| without_names(&program.code)).collect();
    assert!(
        held_out.len() > 500 && trained.len() > 5000,
        "{} {}",
        held_out.len(),
        trained.len()
    );
    assert_eq!(held_out.intersection(&trained).next(), None);
    // The comparison can find programs: those of mistakes in held-out tasks are trained on.
    let mistakes = world.held_out.iter().flat_map(|task| &task.wrong);
    assert!(
        mistakes
            .map(|mistake| without_names(&mistake.code))
            .any(|code| trained.contains(&code))
    );
}

#[test]
fn each_right_program_has_a_mistake_that_differs_in_one_edit() {
    for task in world(5, 1000, 50).training {
        assert!((1..=4).contains(&task.right.len()), "{}", task.name);
        assert_eq!(task.right.len(), task.wrong.len(), "{}", task.name);
        let styles: HashSet<Style> = task.right.iter().map(|program| program.style).collect();
        assert_eq!(styles.len(), task.right.len(), "{}", task.name);
        for (of, mistake) in task.wrong.iter().enumerate() {
            assert_eq!(mistake.of, of);
            let right = &task.right[of].code;
            assert_ne!(&mistake.code, right);
            let mut mended = mistake.code.clone();
            mended.replace_range(mistake.span.clone(), &right[mistake.right_span.clone()]);
            assert_eq!(&mended, right, "{}", task.name);
            assert!(
                mistake.span.len() <= 40 && mistake.right_span.len() <= 40,
                "{}",
                task.name
            );
        }
    }
}

/// The text of each edit, before and after.
fn edits(tasks: &[Task]) -> Vec<(String, String, MistakeKind)> {
    let each = tasks.iter().flat_map(|task| {
        task.wrong.iter().map(|mistake| {
            let before = &task.right[mistake.of].code[mistake.right_span.clone()];
            (
                before.to_owned(),
                mistake.code[mistake.span.clone()].to_owned(),
                mistake.kind,
            )
        })
    });
    each.collect()
}

#[test]
fn an_edit_is_made_as_often_as_its_reverse() {
    let edits = edits(&world(0, 5000, 90).training);
    let times = |from: &str, to: &str| edits.iter().filter(|(a, b, _)| a == from && b == to).count();
    for (one, other) in [
        (">", ">="),
        ("<", "<="),
        (">", "<"),
        ("max", "min"),
        ("0", "None"),
        ("+", "-"),
        ("upper", "lower"),
        ("isdigit", "isalpha"),
        ("**", "*"),
        ("*", "//"),
        ("", "not "),
        ("", "[::-1]"),
    ] {
        let (there, back) = (times(one, other), times(other, one));
        assert!(there > 20 && back > 20, "`{one}` to `{other}`: {there}, back: {back}");
        let share = there as f64 / (there + back) as f64;
        assert!(
            (0.4..=0.6).contains(&share),
            "`{one}` to `{other}`: {there}, back: {back}"
        );
    }
    let of_kind = |kind| edits.iter().filter(|(.., k)| *k == kind).count() as f64;
    for (one, other) in [
        (MistakeKind::MissingFilter, MistakeKind::ExtraFilter),
        (MistakeKind::MissingMap, MistakeKind::ExtraMap),
    ] {
        let share = of_kind(one) / (of_kind(one) + of_kind(other));
        assert!((0.4..=0.6).contains(&share), "{one:?}: {share}");
    }
}

#[test]
fn prompts_have_mbpps_form_and_two_tests() {
    let task = Task {
        id: 7,
        name: "world/7".into(),
        description: "Write a function f that takes a list a and returns the sum of the even numbers.".into(),
        entry_point: "f".into(),
        tests: ["assert f([1, 2]) == 2", "assert f([4]) == 4", "assert f([]) == 0"]
            .map(String::from)
            .into(),
        right: vec![Program {
            code: "def f(a):\n    return sum(x for x in a if x % 2 == 0)".into(),
            style: Style::Expression,
        }],
        wrong: Vec::new(),
        combination: "numbers/even/same/sum".into(),
    };
    assert_eq!(
        task.prompt(),
        "You are an expert Python programmer, and here is your task: Write a function f that takes a list a and \
         returns the sum of the even numbers. Your code should pass these tests:\n\nassert f([1, 2]) == 2\nassert \
         f([4]) == 4\n[BEGIN]\n"
    );
    assert_eq!(
        Task::response("def f(a):\n    return 1"),
        "def f(a):\n    return 1\n[DONE]"
    );
}
