use super::board::{Asked, Board, Curve, Stage};
use super::{pressed, view};
use crate::scorer::WeightStats;
use crate::stop::Stop;
use crate::train::{StepOutput, TrainStepDone, ValueStep};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use std::time::{Duration, Instant};

/// The screen's lines, as characters.
fn drawn(board: &Board, width: u16, height: u16, now: Instant) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, board, now)).unwrap();
    let buffer = terminal.backend().buffer();
    let symbols: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    symbols
        .chunks(usize::from(width))
        .map(|line| line.concat().trim_end().to_owned())
        .collect()
}

fn item(loss: f64, heads: &[f64]) -> StepOutput {
    StepOutput {
        loss,
        ce_heads: heads.to_vec(),
        weights: Some(WeightStats {
            mean: 1.0,
            min: 0.05,
            max: 3.0,
            entropy: 0.912,
        }),
        ..StepOutput::default()
    }
}

/// A run of 84 steps after its 42nd, ten minutes after its first, with a validation before it.
fn halfway() -> (Board, Instant) {
    let opened = Instant::now();
    let mut board = Board::new("critic-20260101-120000", "critic of builtin:micro on flex");
    board.opened = opened;
    board.validation(0, 7.0312, &[7.1, 7.2, 7.3, 7.4]);
    let mut now = opened;
    for step in 1..=42 {
        now = opened + Duration::from_secs_f64(600.0 * (step - 1) as f64 / 41.0);
        let loss = 7.0 - 0.05 * step as f64;
        let item = item(loss, &[loss - 0.3, loss - 0.2, loss - 0.1, loss]);
        board.step(
            &TrainStepDone {
                step,
                total: 84,
                item: &item,
                norm: 1.234,
                lr: 2.5e-3,
                tok_s: 20512.0,
                memory: Some(3 << 29),
            },
            now,
        );
    }
    (board, now)
}

fn assert_shows(lines: &[String], all: &[&str]) {
    let text = lines.join("\n");
    for one in all {
        assert!(text.contains(one), "`{one}` is missing:\n{text}");
    }
}

const SHOWN: [&str; 17] = [
    "training",
    "42/84",
    "50%",
    "time left 10:15",
    "elapsed 10:00",
    "loss 4.9000",
    "lr 2.50e-3",
    "gradient norm 1.234",
    "tokens/s 20512",
    "memory 1.50 GiB",
    "weights 0.05 to 3.00",
    "validation loss 7.0312 at step 0",
    "head 1 4.600 (7.100)",
    "head 2 4.700 (7.200)",
    "head 3 4.800 (7.300)",
    "head 4 4.900 (7.400)",
    "Ctrl-C",
];

#[test]
fn every_figure_is_on_a_screen_of_80_columns() {
    let (board, now) = halfway();
    let lines = drawn(&board, 80, 24, now);
    assert_shows(&lines, &SHOWN);
    assert_shows(&lines, &["critic-20260101-120000", "critic of builtin:micro on flex"]);
    assert_shows(&lines, &["cross-entropy in nats", "step 0"]);
}

#[test]
fn every_figure_is_on_a_screen_of_50_columns() {
    let (board, now) = halfway();
    let lines = drawn(&board, 50, 20, now);
    assert_shows(&lines, &SHOWN);
    assert_shows(&lines, &["critic-20260101-120000", "cross-entropy in nats"]);
}

#[test]
fn wide_screens_have_the_weighted_loss_in_a_chart_of_its_own() {
    let (board, now) = halfway();
    let lines = drawn(&board, 120, 40, now);
    assert_shows(&lines, &SHOWN);
    assert_shows(
        &lines,
        &["training loss (weighted)", "cross-entropy in nats", "validation"],
    );
}

#[test]
fn the_smallest_screens_draw_without_a_chart() {
    let (board, now) = halfway();
    for (width, height) in [(1, 1), (20, 5), (30, 10), (200, 3)] {
        drawn(&board, width, height, now);
    }
    assert_shows(&drawn(&board, 40, 16, now), &["42/84", "loss 4.9000", "head 4"]);
}

#[test]
fn the_value_stage_has_steps_loss_and_time_left() {
    let opened = Instant::now();
    let mut board = Board::new("critic-1", "critic of builtin:micro on flex");
    board.opened = opened;
    for step in 1..=11 {
        let at = ValueStep {
            step,
            total: 94,
            loss: 0.25,
            norm: 0.5,
            lr: 1e-3,
        };
        board.value_step(&at, opened + Duration::from_secs(step as u64 - 1));
    }
    let lines = drawn(&board, 80, 24, opened + Duration::from_secs(10));
    assert_shows(
        &lines,
        &[
            "value stage: step 11/94, 11%",
            "value loss 0.2500",
            "lr 1.00e-3",
            "gradient norm 0.500",
            "time left 1:23 of the value stage",
        ],
    );
}

/// The value stage's pace says nothing about training.
#[test]
fn the_time_left_starts_anew_with_training() {
    let (mut board, now) = halfway();
    assert_eq!(board.time_left(now).unwrap().as_secs(), 614);
    let at = ValueStep {
        step: 1,
        total: 9,
        loss: 1.0,
        norm: 1.0,
        lr: 1.0,
    };
    board.value_step(&at, now);
    assert_eq!((board.stage, board.time_left(now)), (Stage::Value, None));
}

#[test]
fn long_curves_are_thinned_and_keep_their_mean() {
    let mut curve = Curve::default();
    for step in 0..10_000 {
        curve.push(step, step as f64);
        curve.push(step, f64::NAN);
    }
    let points = curve.points();
    assert!((400..1024).contains(&points.len()), "{}", points.len());
    assert!(points.iter().all(|(step, value)| step == value));
    assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

#[test]
fn keys_ask_for_what_they_say() {
    let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
    let stop = Stop::default();
    let asked = pressed(Asked::Nothing, key(KeyCode::Char('s')), &stop);
    assert_eq!(
        (asked, stop.is_asked()),
        (Asked::Nothing, false),
        "`s` needs `q` before"
    );
    let asked = pressed(asked, key(KeyCode::Char('q')), &stop);
    assert_eq!((asked, stop.is_asked()), (Asked::Choices, false));
    let asked = pressed(asked, key(KeyCode::Esc), &stop);
    assert_eq!((asked, stop.is_asked()), (Asked::Nothing, false));

    for (letter, saves) in [('s', true), ('k', false)] {
        let stop = Stop::default();
        pressed(Asked::Choices, key(KeyCode::Char(letter)), &stop);
        assert_eq!((stop.is_asked(), stop.saves()), (true, saves), "{letter}");
    }
    let stop = Stop::default();
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(pressed(Asked::Nothing, interrupt, &stop), Asked::Stop);
    assert!(stop.is_asked() && stop.saves());
}
