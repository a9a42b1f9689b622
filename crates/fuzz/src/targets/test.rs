//! Targets that are wrong on purpose: that findings are found is tested with them.

use super::none;
use crate::{
    Kind, Outcome, Target,
    mutate::Shape,
    target::{FIRST, POOL},
};
use std::{hint::black_box, thread, time::Duration};

const TEST: Target = Target {
    name: "",
    what: "nothing: a test of the program",
    kind: Kind::Memory,
    shape: Shape::Text,
    words: &["boom"],
    stack: FIRST,
    seeds: || vec![b"text".to_vec()],
    open: |_| Box::new(|_| Outcome::Accepted),
};

fn is_meant(input: &[u8]) -> bool {
    input.windows(4).any(|window| window == b"boom")
}

pub(super) const PANIC: Target = Target {
    name: "test-panic",
    open: |_| {
        Box::new(|input| {
            assert!(!is_meant(input), "a panic on purpose");
            Outcome::Accepted
        })
    },
    ..TEST
};

pub(super) const SLOW: Target = Target {
    name: "test-slow",
    seeds: || vec![b"boom".to_vec()],
    open: |_| {
        Box::new(|input| {
            if is_meant(input) {
                thread::sleep(Duration::from_secs(60));
            }
            Outcome::Accepted
        })
    },
    ..TEST
};

pub(super) const MEMORY: Target = Target {
    name: "test-memory",
    open: |_| {
        Box::new(|input| {
            if is_meant(input) {
                black_box(vec![0u8; 400 << 20]);
            }
            Outcome::Accepted
        })
    },
    ..TEST
};

pub(super) const OVERFLOW: Target = Target {
    name: "test-overflow",
    stack: POOL,
    open: |_| {
        fn deep(levels: usize) -> usize {
            let here = black_box([levels; 64]);
            if levels == 0 {
                0
            } else {
                deep(levels - 1) + here[levels % 64]
            }
        }
        Box::new(|input| {
            if is_meant(input) {
                black_box(deep(1 << 20));
            }
            Outcome::Accepted
        })
    },
    ..TEST
};

pub(super) const REFUSES: Target = Target {
    name: "test-refuses",
    seeds: || [none(), vec![b"x".to_vec()]].concat(),
    open: |_| Box::new(|_| Outcome::Refused(0)),
    ..TEST
};
