//! The labels do not leak: features that ignore the description do not separate right programs from wrong.
//!
//! Naive Bayes with add-one smoothing, ten folds by task; the AUROC is over all pairs of a right and a wrong
//! program, of whatever tasks.

use std::collections::HashMap;
use wmtp_world::{Task, World, WorldConfig};

/// The largest AUROC that counts as chance; its mirror image is the smallest.
const CHANCE: f64 = 0.57;
const FOLDS: u32 = 10;

type Features = fn(&str) -> Vec<String>;

/// One feature for each occurrence of a word.
fn identifiers(code: &str) -> Vec<String> {
    let words = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'));
    names.map(str::to_owned).collect()
}

/// One feature for each occurrence of a word, number, operator or bracket.
fn tokens(code: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut last = ' ';
    for c in code.chars() {
        let same = (last.is_alphanumeric() && c.is_alphanumeric()) || ("<>=!*/+".contains(last) && c == last);
        match found.last_mut() {
            Some(token) if same || (c == '=' && "<>=!+".contains(last)) => token.push(c),
            _ if c.is_whitespace() => {}
            _ => found.push(c.to_string()),
        }
        last = c;
    }
    found
}

fn length(code: &str) -> Vec<String> {
    vec![code.len().to_string()]
}

/// Lines, the indent of each line, and the number of blanks.
fn layout(code: &str) -> Vec<String> {
    let indents = code
        .lines()
        .map(|line| format!("indent {}", line.len() - line.trim_start().len()));
    let all = [
        format!("lines {}", code.lines().count()),
        format!("blanks {}", code.matches(' ').count()),
    ];
    indents.chain(all).collect()
}

/// (task, program, is right)
type Labelled = Vec<(u32, String, bool)>;

fn labelled(tasks: &[Task]) -> Labelled {
    let each = tasks.iter().flat_map(|task| {
        let right = task.right.iter().map(|program| (task.id, program.code.clone(), true));
        right.chain(task.wrong.iter().map(|mistake| (task.id, mistake.code.clone(), false)))
    });
    each.collect()
}

/// The share of pairs of a right and a wrong program in which the right one has the higher score.
fn auroc(programs: &Labelled, features: Features) -> f64 {
    let seen: Vec<(u32, bool, Vec<String>)> = programs
        .iter()
        .map(|(task, code, right)| (task % FOLDS, *right, features(code)))
        .collect();
    let mut scored: Vec<(f64, bool)> = Vec::new();
    for fold in 0..FOLDS {
        let mut counts: HashMap<&str, [f64; 2]> = HashMap::new();
        let mut totals = [0.0, 0.0];
        for (_, right, features) in seen.iter().filter(|(of, ..)| *of != fold) {
            for feature in features {
                counts.entry(feature).or_default()[usize::from(*right)] += 1.0;
                totals[usize::from(*right)] += 1.0;
            }
        }
        let share = |count: f64, total: f64| ((count + 1.0) / (total + counts.len() as f64)).ln();
        for (_, right, features) in seen.iter().filter(|(of, ..)| *of == fold) {
            let evidence = features.iter().map(|feature| {
                let [wrong, right] = counts.get(feature.as_str()).copied().unwrap_or_default();
                share(right, totals[1]) - share(wrong, totals[0])
            });
            scored.push((evidence.sum(), *right));
        }
    }
    // Mann and Whitney's statistic from mean ranks.
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rank, mut sum) = (0.0, 0.0);
    for ties in scored.chunk_by(|a, b| (a.0 - b.0).abs() < 1e-12) {
        let right = ties.iter().filter(|(_, right)| *right).count() as f64;
        sum += right * (rank + (ties.len() as f64 + 1.0) / 2.0);
        rank += ties.len() as f64;
    }
    let right = scored.iter().filter(|(_, right)| *right).count() as f64;
    (sum - right * (right + 1.0) / 2.0) / (right * (rank - right))
}

#[test]
fn right_programs_are_not_known_by_their_words_their_length_or_their_layout() {
    let world = World::new(&WorldConfig::default());
    let everything: Vec<Task> = [world.training.clone(), world.held_out].concat();
    let views: [(&str, Features); 4] = [
        ("identifiers", identifiers),
        ("tokens", tokens),
        ("length", length),
        ("layout", layout),
    ];
    for (of, tasks) in [("training", world.training), ("all", everything)] {
        let programs = labelled(&tasks);
        for (name, features) in views {
            let found = auroc(&programs, features);
            println!("{of} tasks: {name} {found:.3}");
            assert!(
                found < CHANCE && found > 1.0 - CHANCE,
                "{name}, {of} tasks: AUROC {found}"
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
    for (_, code, right) in &mut renamed {
        if !*right {
            *code = code.replace("return", "other = 0\n    return");
        }
    }
    let views: [Features; 3] = [identifiers, length, layout];
    let found = views.map(|features| auroc(&renamed, features));
    assert!(found[0] > 0.95 && found[1] > 0.6 && found[2] > 0.6, "{found:?}");
}
