use super::*;
use crate::{
    report::run::Evaluation,
    run::{EventLine, LongDocument, RunRecord, StepLine, TrainerState, ValidLine},
};
use serde_json::json;

/// A run of 40 steps that went well.
fn good() -> Run {
    let steps = (1..=40).map(|step| StepLine {
        step,
        tokens: 100 * step as u64,
        applied: true,
        grad_norm: Some(0.5),
        weight_min: Some(0.2),
        weight_max: Some(2.0),
        weight_entropy: Some(0.95),
        other: json!({"ce_head_1": 5.0 - step as f64 / 20.0})
            .as_object()
            .cloned()
            .unwrap_or_default(),
        ..StepLine::default()
    });
    let mut run = Run {
        record: RunRecord {
            documents: Some(100),
            documents_too_long: Some(Vec::new()),
            steps: Some(40),
            ..RunRecord::default()
        },
        steps: steps.collect(),
        validations: vec![valid(20, 3.0), valid(40, 2.5)],
        trainer: Some(trainer(1000, 0)),
        ..Run::default()
    };
    run.recipe.insert("scorer.kind".into(), "critic".into());
    run.recipe.insert("optim.clip_norm".into(), 1.0.into());
    run.evaluations.push(evaluation(
        json!({"benchmark": "mbpp", "ci95": [0.10, 0.15], "not_verified": 0, "shares": {"parse": 0.99}}),
    ));
    run
}

/// A run that has ended.
fn trainer(groups: u64, fallbacks: u64) -> TrainerState {
    TrainerState {
        finished: true,
        groups,
        fallbacks,
        ..TrainerState::default()
    }
}

fn valid(step: usize, loss: f64) -> ValidLine {
    ValidLine {
        step,
        valid_loss: Some(loss),
        valid_ce_heads: Vec::new(),
    }
}

fn evaluation(report: Value) -> Evaluation {
    Evaluation {
        name: "eval-mbpp".into(),
        report,
    }
}

fn event(event: &str, reason: &str) -> EventLine {
    EventLine {
        step: 7,
        event: event.to_owned().into(),
        reason: reason.into(),
        ..EventLine::default()
    }
}

fn found(run: &Run) -> Vec<(Level, &'static str)> {
    findings(run).iter().map(|f| (f.level, f.rule)).collect()
}

/// The findings after `change`, without the note that the run has one seed.
fn after(change: impl FnOnce(&mut Run)) -> Vec<(Level, &'static str)> {
    let mut run = good();
    change(&mut run);
    found(&run)
        .into_iter()
        .filter(|(_, rule)| *rule != "one-seed")
        .collect()
}

#[test]
fn a_run_that_went_well_has_only_the_note_that_it_is_one_run() {
    assert_eq!(found(&good()), [(Level::Note, "one-seed")]);
}

#[test]
fn an_error_an_interruption_and_a_run_under_way_are_told_apart() {
    let unfinished = |run: &mut Run| run.trainer = Some(TrainerState::default());
    assert_eq!(after(unfinished), [(Level::Warning, "unfinished")]);
    let failed = after(|run| {
        unfinished(run);
        run.events
            .push(event("failed", "the loss was not finite 3 times in a row"));
    });
    assert_eq!(failed, [(Level::Problem, "failed")]);
    let mended = after(|run| run.events.push(event("failed", "disk full")));
    assert_eq!(mended, [], "a run that failed, was resumed and ended is whole");
    let mut run = good();
    unfinished(&mut run);
    run.events.push(event("interrupted", "asked to"));
    assert!(findings(&run)[0].seen.contains("was interrupted: 40 steps of 40"));
}

#[test]
fn skips_and_returns_are_counted() {
    let rolled = after(|run| run.events.push(event("rollback", "back to step 5")));
    assert_eq!(rolled, [(Level::Problem, "rollbacks")]);
    let skipped = after(|run| run.steps[3].applied = false);
    assert_eq!(skipped, [(Level::Warning, "skips")]);
    let few = after(|run| {
        run.steps = (0..400).filter_map(|i| run.steps.get(i / 10).cloned()).collect();
        run.steps[3].applied = false;
    });
    assert_eq!(few, [(Level::Note, "skips")]);
    assert_eq!(
        after(|run| run.events.push(event("damaged-checkpoint", "x"))),
        [(Level::Warning, "damaged-checkpoints")]
    );
    assert_eq!(
        after(|run| run.events.push(event("resume", "x"))),
        [(Level::Note, "resumes")]
    );
}

#[test]
fn a_loss_that_does_not_fall_and_a_validation_that_rises_are_seen() {
    let flat = after(|run| {
        for line in &mut run.steps {
            line.other.insert("ce_head_1".into(), 5.0.into());
        }
    });
    assert_eq!(flat, [(Level::Problem, "loss-not-falling")]);
    let pretrained = after(|run| {
        run.recipe.insert("train.pretrain.steps".into(), 350.into());
        for line in &mut run.steps {
            line.other.insert("ce_head_1".into(), 5.0.into());
        }
    });
    assert_eq!(pretrained, []);
    let rising = after(|run| run.validations.push(valid(60, 2.6)));
    assert_eq!(rising, [(Level::Warning, "validation-rising")]);
    let hardly = after(|run| run.validations.push(valid(60, 2.51)));
    assert_eq!(hardly, []);
    assert_eq!(
        after(|run| run.validations.clear()),
        [(Level::Warning, "no-validation")]
    );
}

#[test]
fn gradients_that_jump_or_are_always_clipped_are_noted() {
    assert_eq!(
        after(|run| run.steps[9].grad_norm = Some(6.0)),
        [(Level::Note, "gradient-spikes")]
    );
    let clipped = after(|run| run.steps.iter_mut().for_each(|line| line.grad_norm = Some(2.0)));
    assert_eq!(clipped, [(Level::Note, "always-clipped")]);
}

#[test]
fn weights_that_collapse_or_do_nothing_are_seen() {
    let collapsed = |run: &mut Run| run.steps.iter_mut().for_each(|line| line.weight_entropy = Some(0.4));
    assert_eq!(after(collapsed), [(Level::Warning, "weights-collapsed")]);
    let selecting = after(|run| {
        collapsed(run);
        run.recipe.insert("scorer.mode".into(), "select".into());
    });
    assert_eq!(selecting, [], "selecting few tokens is what that mode is for");
    let flat = |run: &mut Run| {
        for line in &mut run.steps {
            (line.weight_min, line.weight_max) = (Some(1.0), Some(1.001));
        }
    };
    assert_eq!(after(flat), [(Level::Warning, "weights-flat")]);
    let uniform = after(|run| {
        flat(run);
        run.recipe.insert("scorer.kind".into(), "uniform".into());
    });
    assert_eq!(uniform, []);
    let fallbacks = |n: u64| after(move |run| run.trainer = Some(trainer(10_000, n)));
    assert_eq!(fallbacks(3), [(Level::Note, "weight-fallbacks")]);
    assert_eq!(fallbacks(30), [(Level::Warning, "weight-fallbacks")]);
}

#[test]
fn a_critic_at_chance_is_named() {
    let critic = |auroc: f64| after(move |run| run.value_stage = Some(json!({"held_out": {"auroc_last": auroc}})));
    assert_eq!(critic(0.51), [(Level::Warning, "critic-knows-nothing")]);
    assert_eq!(critic(0.8), []);
    let within = |within: f64| {
        let report = json!({"held_out": {"auroc_last": 0.51, "within_mean": within}});
        after(move |run| run.value_stage = Some(report))
    };
    assert_eq!(within(0.74), []);
    assert_eq!(within(0.55), [(Level::Warning, "critic-knows-nothing")]);
    let beats = |beats: bool| {
        let report = json!({"held_out": {"auroc_last": 0.8}, "beats_likelihood": beats});
        after(move |run| run.value_stage = Some(report))
    };
    assert_eq!(beats(false), [(Level::Note, "critic-below-likelihood")]);
    assert_eq!(beats(true), []);
}

#[test]
fn documents_left_out_are_counted() {
    let dropped = |n: usize| after(move |run| run.record.documents_too_long = Some(vec![LongDocument::default(); n]));
    assert_eq!(dropped(5), []);
    assert_eq!(dropped(10), [(Level::Warning, "documents-too-long")]);
}

#[test]
fn evaluations_that_are_missing_or_say_little_are_named() {
    assert_eq!(after(|run| run.evaluations.clear()), [(Level::Note, "not-evaluated")]);
    let with = |report: Value| after(move |run| run.evaluations = vec![evaluation(report)]);
    assert_eq!(
        with(json!({"benchmark": "mbpp", "ci95": [0.1, 0.3]})),
        [(Level::Note, "wide-interval")]
    );
    assert_eq!(
        with(json!({"benchmark": "mbpp", "not_verified": 2})),
        [(Level::Warning, "passes-not-verified")]
    );
    let broken = with(json!({"benchmark": "mbpp", "shares": {"parse": 0.5, "timeout": 0.3, "output_limit": 0.0}}));
    assert_eq!(broken, [(Level::Warning, "broken-samples"); 2]);
    let of_a_stage = json!({"benchmark": "world", "shares": {"parse": 0.1}, "intermediate": true});
    assert_eq!(with(of_a_stage), []);
}

#[test]
fn the_worst_comes_first() {
    let all = after(|run| {
        run.events.push(event("resume", "x"));
        run.events.push(event("rollback", "x"));
        run.validations.push(valid(60, 3.0));
    });
    let levels: Vec<Level> = all.iter().map(|(level, _)| *level).collect();
    assert_eq!(levels, [Level::Problem, Level::Warning, Level::Note]);
}

#[test]
fn shares_have_the_digits_they_need() {
    let shown: Vec<String> = [0.0, 0.0004, 0.004, 0.0312, 0.5, 1.0]
        .into_iter()
        .map(percent)
        .collect();
    assert_eq!(shown, ["0%", "0.04%", "0.4%", "3.1%", "50%", "100%"]);
}
