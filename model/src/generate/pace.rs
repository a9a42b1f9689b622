//! How many drafts a step verifies: as many as make the tokens come fastest.
//!
//! A step's time is nearly that of reading the weights, plus a little for each row; how little depends on the
//! processor, the float type and the batch, and how often drafts are accepted on heads and text. So both are measured
//! while generating: the time of steps against their rows (a line through recent ones with drafts and one through
//! those without, since the first draft may cost a processor more than the next ones), that of drafting, and how
//! often a draft is accepted against the probability that the heads gave it. Before each step the candidates of all
//! texts are taken in the order of their probabilities as long as the expected tokens per second grow. Where drafting
//! has not paid for some steps it rests, longer each time. The text does not hang on any of this.

use std::time::Duration;

/// Steps without drafts at the beginning: the first is not counted, because it finds cold caches.
const PLAIN_STEPS: usize = 3;
/// One step in this many has no drafts, so that the time of such steps stays known.
const PLAIN_EVERY: usize = 64;
/// Drafting steps after which it may rest.
const TRIAL: usize = 8;
/// How much faster than plain steps drafting has to be.
const WORTHWHILE: f64 = 1.02;
/// Steps of the first rest, and of the longest.
const REST: [usize; 2] = [64, 1024];
/// What is kept of older measurements with each new one.
const KEPT: f64 = 0.95;
/// What a row more is taken to cost before it is measured, as a share of a step's time by the rows of its texts.
const ROW: f64 = 0.1;
/// How many squared rows of measurements that is worth.
const ROW_WEIGHT: f64 = 4.0;

/// What a step was.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Texts of the batch.
    pub texts: usize,
    /// Drafts that were verified, and the sum of their probabilities.
    pub drafts: usize,
    pub probability: f64,
    /// Of all texts: accepted drafts, and those that head 2, 3, ... gave.
    pub accepted: usize,
    pub by_head: Vec<usize>,
    /// Of verifying, and of drafting for the next step with this many heads.
    pub time: Duration,
    pub drafting: Duration,
    pub heads: usize,
}

/// The measurements and what follows from them.
#[derive(Debug)]
pub struct Pace {
    /// Heads that may draft.
    most_heads: usize,
    /// Heads that do.
    heads: usize,
    /// Whether anything is decided here; otherwise all heads draft and every candidate is verified.
    adaptive: bool,
    steps: usize,
    /// Of steps without drafts and with them.
    plain_line: Line,
    drafted_line: Line,
    /// Seconds of drafting.
    drafting: Mean,
    /// Accepted drafts, and the sum of the probabilities of verified ones.
    accepted: f64,
    probability: f64,
    /// Accepted drafts of a text in a step, by head.
    by_head: Vec<Mean>,
    /// Seconds that the tokens would have taken without drafts, and that they took.
    plain: f64,
    taken: f64,
    /// Drafting steps since drafting began or was given up last.
    tried: usize,
    /// Steps that are left of a rest, and the length of the next.
    resting: usize,
    rest: usize,
}

impl Pace {
    /// For `heads` that may draft.
    pub fn new(adaptive: bool, heads: usize) -> Self {
        Self {
            most_heads: heads,
            heads,
            adaptive,
            steps: 0,
            plain_line: Line::default(),
            drafted_line: Line::default(),
            drafting: Mean::default(),
            accepted: 0.0,
            probability: 0.0,
            by_head: vec![Mean::default(); heads],
            plain: 0.0,
            taken: 0.0,
            tried: 0,
            resting: 0,
            rest: REST[0],
        }
    }

    /// How many of the heads draft after the coming step.
    pub fn heads(&self) -> usize {
        let plain = self.steps + 1 < PLAIN_STEPS || self.resting > 0;
        match self.adaptive && plain {
            true => 0,
            false => self.heads,
        }
    }

    /// How many of the candidates of `texts` texts the coming step verifies; `probabilities`, the highest first.
    pub fn count(&self, texts: usize, probabilities: &[f64]) -> usize {
        if !self.adaptive {
            return probabilities.len();
        }
        if self.steps < PLAIN_STEPS || self.steps.is_multiple_of(PLAIN_EVERY) {
            return 0;
        }
        // Copies from the text take no time.
        let drafting = if self.heads() > 0 { self.drafting.value } else { 0.0 };
        let mut tokens = texts as f64;
        let (mut best, mut count) = (WORTHWHILE * tokens / (self.plain_line.at(texts) + drafting), 0);
        for (drafts, probability) in (1..).zip(probabilities) {
            tokens += probability * self.confidence();
            let rate = tokens / (self.seconds(texts, drafts) + drafting);
            if rate > best {
                (best, count) = (rate, drafts);
            }
        }
        count
    }

    /// The expected seconds of a step.
    fn seconds(&self, texts: usize, drafts: usize) -> f64 {
        match drafts {
            0 => self.plain_line.at(texts),
            _ if self.drafted_line.is_empty() => self.plain_line.at(texts + drafts),
            _ => self.drafted_line.at(texts + drafts),
        }
    }

    /// How many times its probability a draft is accepted.
    fn confidence(&self) -> f64 {
        (self.accepted + 1.0) / (self.probability + 1.0)
    }

    /// Learns from a step.
    pub fn learn(&mut self, step: &Step) {
        self.steps += 1;
        if !self.adaptive || self.steps == 1 || step.texts == 0 {
            return;
        }
        let seconds = step.time.as_secs_f64();
        let line = match step.drafts {
            0 => &mut self.plain_line,
            _ => &mut self.drafted_line,
        };
        line.add(step.texts + step.drafts, seconds);
        self.resting = self.resting.saturating_sub(1);
        self.accepted = KEPT * self.accepted + step.accepted as f64;
        self.probability = KEPT * self.probability + step.probability;
        if step.heads == 0 {
            return;
        }
        let drafting = step.drafting.as_secs_f64();
        self.drafting.add(drafting);
        if step.drafts > 0 {
            for (mean, accepted) in self.by_head.iter_mut().zip(&step.by_head) {
                mean.add(*accepted as f64 / step.texts as f64);
            }
        }
        let each = (step.texts + step.accepted) as f64 / step.texts as f64;
        self.plain = KEPT * self.plain + each * self.seconds(step.texts, 0);
        self.taken = KEPT * self.taken + seconds + drafting;
        self.tried += 1;
        if self.tried >= TRIAL && self.plain < WORTHWHILE * self.taken {
            self.resting = self.rest;
            self.rest = (self.rest * 4).min(REST[1]);
            (self.tried, self.plain, self.taken) = (0, 0.0, 0.0);
        } else if self.tried.is_multiple_of(32 * TRIAL) {
            (self.heads, self.rest) = (self.most_heads, REST[0]);
        } else if self.tried.is_multiple_of(2 * TRIAL) {
            self.drop_a_head(each, seconds + drafting);
        }
    }

    /// Lets the last head rest whose drafts are accepted too rarely for the time that it takes; a step has `each`
    /// tokens for each text.
    fn drop_a_head(&mut self, each: f64, seconds: f64) {
        let last = self.by_head.get(self.heads.wrapping_sub(1));
        let share = self.drafting.value / self.heads.max(1) as f64 / seconds;
        if self.heads > 1 && last.is_some_and(|mean| mean.value / each < share) {
            self.heads -= 1;
        }
    }
}

/// A mean in which older values fade.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    value: f64,
    weight: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.weight = KEPT * self.weight + 1.0;
        self.value += (value - self.value) / self.weight;
    }
}

/// A line through times by numbers of rows, in which older ones fade.
#[derive(Debug, Default)]
struct Line {
    rows: Mean,
    seconds: Mean,
    /// Sums of squared distances of rows from their mean, and of their products with those of seconds.
    squares: f64,
    products: f64,
}

impl Line {
    fn add(&mut self, rows: usize, seconds: f64) {
        let rows = rows as f64;
        let before = rows - self.rows.value;
        self.rows.add(rows);
        self.seconds.add(seconds);
        self.squares = KEPT * self.squares + before * (rows - self.rows.value);
        self.products = KEPT * self.products + before * (seconds - self.seconds.value);
    }

    fn is_empty(&self) -> bool {
        self.rows.weight == 0.0
    }

    /// The expected seconds of a step with this many rows.
    fn at(&self, rows: usize) -> f64 {
        let usual = ROW * self.seconds.value / self.rows.value.max(1.0);
        let slope = (self.products + ROW_WEIGHT * usual) / (self.squares + ROW_WEIGHT);
        let found = self.seconds.value + slope.max(0.0) * (rows as f64 - self.rows.value);
        // However steep the line: no step takes less than a small part of the mean.
        found.max(0.05 * self.seconds.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::generator;
    use rand::RngExt;

    /// Costs of a machine and a model, in milliseconds: of a step, of a row of it, of having drafts at all, and of
    /// drafting.
    struct Costs {
        step: f64,
        row: f64,
        drafts: f64,
        drafting: f64,
    }

    /// How many times as fast as without drafts `steps` steps of `texts` texts are, whose candidates are accepted as
    /// often as they are probable, times `honesty`.
    fn speed(costs: &Costs, texts: usize, steps: usize, honesty: f64) -> (f64, Pace) {
        let mut rng = generator(3, "test");
        let mut pace = Pace::new(true, 3);
        let (mut tokens, mut taken, mut heads) = (0, 0.0, 0);
        for _ in 0..steps {
            // One text in two is predictable.
            let first = [0.7, 0.3, 0.12, 0.06, 0.03, 0.02, 0.01, 0.01];
            let of = |sure: bool| first.map(|p| if sure { p } else { p / 4.0 });
            let mut candidates: Vec<(f64, usize)> = Vec::new();
            for text in 0..texts {
                let sure = rng.random::<f64>() < 0.5;
                candidates.extend(of(sure).iter().filter(|_| heads > 0).map(|p| (*p, text)));
            }
            candidates.sort_by(|(p, _), (q, _)| q.total_cmp(p));
            let probabilities: Vec<f64> = candidates.iter().map(|(p, _)| *p).collect();
            let count = pace.count(texts, &probabilities);
            let mut accepted = vec![0; texts];
            for (p, text) in &candidates[..count] {
                accepted[*text] |= usize::from(rng.random::<f64>() < p * honesty);
            }
            let accepted: usize = accepted.iter().sum();
            tokens += texts + accepted;
            let noise = 1.0 + 0.1 * rng.random::<f64>();
            let of_drafts = if count > 0 { costs.drafts } else { 0.0 };
            let milliseconds = noise * (costs.step + costs.row * (texts + count) as f64 + of_drafts);
            heads = pace.heads();
            let drafting = if heads > 0 { costs.drafting } else { 0.0 };
            taken += milliseconds + drafting;
            pace.learn(&Step {
                texts,
                drafts: count,
                probability: probabilities[..count].iter().sum(),
                accepted,
                by_head: vec![accepted, 0, 0],
                time: Duration::from_secs_f64(milliseconds * 1e-3),
                drafting: Duration::from_secs_f64(drafting * 1e-3),
                heads,
            });
        }
        let plain = 1.05 * (costs.step + costs.row * texts as f64) / texts as f64;
        (tokens as f64 * plain / taken, pace)
    }

    #[test]
    fn where_rows_cost_little_drafts_make_it_faster() {
        let costs = Costs {
            step: 38.0,
            row: 0.8,
            drafts: 0.0,
            drafting: 2.0,
        };
        let (speed, pace) = speed(&costs, 1, 200, 1.0);
        assert!(speed > 1.25, "{speed}");
        // Of three heads the two are given up that are never right.
        assert_eq!(pace.heads, 1);
    }

    #[test]
    fn where_they_cost_as_much_as_a_step_nothing_is_lost() {
        let costs = Costs {
            step: 2.0,
            row: 20.0,
            drafts: 0.0,
            drafting: 20.0,
        };
        let (speed, pace) = speed(&costs, 8, 128, 1.0);
        assert!(speed > 0.97, "{speed}");
        assert!(pace.resting > 0);
    }

    /// As where a processor multiplies eight rows at a time and a batch has eight.
    #[test]
    fn where_the_first_draft_costs_more_than_all_bring_nothing_is_lost() {
        let costs = Costs {
            step: 14.0,
            row: 0.4,
            drafts: 12.0,
            drafting: 0.2,
        };
        let (speed, pace) = speed(&costs, 8, 600, 1.0);
        assert!(speed > 0.97, "{speed}");
        assert!(pace.seconds(8, 1) > 1.4 * pace.seconds(8, 0), "{pace:?}");
    }

    #[test]
    fn heads_that_boast_are_not_believed() {
        let costs = Costs {
            step: 30.0,
            row: 3.0,
            drafts: 0.0,
            drafting: 4.0,
        };
        let (speed, _) = speed(&costs, 1, 400, 0.1);
        assert!(speed > 0.97, "{speed}");
    }

    #[test]
    fn the_line_is_that_of_least_squares() {
        let mut line = Line::default();
        for _ in 0..400 {
            for (rows, seconds) in [(1, 3.0), (4, 3.6), (9, 4.6)] {
                line.add(rows, seconds);
            }
        }
        // Times are 2.8 + 0.2 rows; what is taken for granted at first draws the slope to 0.1 * 3.73 / 4.67.
        for (rows, seconds) in [(1, 3.0), (16, 6.0)] {
            assert!((line.at(rows) - seconds).abs() < 0.12, "{rows}: {}", line.at(rows));
        }
        assert!(Line::default().at(5) == 0.0);
    }

    #[test]
    fn all_are_verified_where_nothing_is_decided() {
        let mut pace = Pace::new(false, 3);
        for _ in 0..300 {
            assert_eq!((pace.heads(), pace.count(2, &[0.5, 0.1, 0.0])), (3, 3));
            pace.learn(&Step {
                texts: 2,
                heads: 3,
                time: Duration::from_secs(1),
                drafting: Duration::from_secs(9),
                ..Step::default()
            });
        }
    }
}
