//! Progress on standard error, the report and the estimate for people.

use crate::{
    cli::bar::CountBar,
    eval::{Finished, Progress, estimate::Estimate, passk::IntervalMethod},
    text::duration,
};
use std::{fmt::Write, time::Instant};

/// Samples drawn and judged.
pub(super) struct Bar {
    bar: CountBar,
    started: Instant,
}

impl Bar {
    pub fn new() -> Self {
        Self {
            bar: CountBar::new("samples"),
            started: Instant::now(),
        }
    }

    pub fn set(&mut self, progress: &Progress) {
        let seconds = self.started.elapsed().as_secs_f64();
        // What was found done says nothing about how fast this process is.
        let here = progress.done - progress.resumed;
        let left = match here {
            0 => "time left unknown".to_owned(),
            here => {
                let left = seconds / here as f64 * (progress.total - progress.done) as f64;
                format!("about {} left", duration(left))
            }
        };
        let speed = progress.tokens as f64 / seconds.max(1e-9);
        let message = format!("{} passed  {speed:.0} tok/s  {left}", progress.passed);
        self.bar.set(progress.done, progress.total, message);
    }

    pub fn finish(&self) {
        self.bar.finish();
    }
}

pub(super) fn estimate(e: &Estimate) -> String {
    let measured = match e.probe {
        0 => "at the stated speed; every completion as long as it may get, so this is the most".to_owned(),
        probe => format!("measured on {probe} completions; judging runs in parallel"),
    };
    format!(
        "{} completions to {} problems, about {} tokens ({:.0} each) at {:.0} tok/s: {}\n({measured})",
        e.samples,
        e.tasks,
        e.tokens,
        e.tokens_per_sample,
        e.tokens_per_second,
        duration(e.hours * 3600.0)
    )
}

pub(super) fn report(finished: &Finished, from: &str) -> String {
    let r = &finished.report;
    let from = r
        .origin
        .get("model")
        .or(r.origin.get("predictions"))
        .map_or(from, String::as_str);
    let set = match r.variant.as_str() {
        "full" => r.benchmark.clone(),
        variant => format!("{} ({variant})", r.benchmark),
    };
    let several = r.temperatures.len() > 1;
    let how = match (r.temperature, several) {
        (Some(_), true) => format!(" at each of {} temperatures", r.temperatures.len()),
        (Some(temperature), false) => format!(", temperature {temperature}"),
        (None, _) => String::new(),
    };
    let mut text = format!(
        "{from} on {} problem{} of {set}, {} sample{} each{how}\n",
        r.tasks,
        if r.tasks == 1 { "" } else { "s" },
        r.samples,
        if r.samples == 1 { "" } else { "s" }
    );
    for (k, share) in &r.pass_at_k {
        let [low, high] = r.ci95_at_k.get(k).copied().unwrap_or_default();
        let method = match r.ci95_method_at_k.get(k) {
            Some(IntervalMethod::Wilson) => "Wilson",
            _ => "bootstrap",
        };
        let _ = write!(
            text,
            "pass@{k:<4} {share:.4}  (95% {method} interval {low:.3} to {high:.3}"
        );
        if let (true, Some(Some(best))) = (several, r.best_temperature.get(k)) {
            let _ = write!(text, "; best temperature {best}");
        }
        text.push(')');
        if r.not_verified > 0 {
            let verified = r.verified_pass_at_k.get(k).copied().unwrap_or_default();
            let _ = write!(text, "  verified {verified:.4}");
        }
        text.push('\n');
    }
    for (k, share) in r.base.iter().flat_map(|base| &base.pass_at_k) {
        let interval = r.base.as_ref().and_then(|base| base.ci95_at_k.get(k).copied());
        let [low, high] = interval.unwrap_or_default();
        let _ = writeln!(
            text,
            "pass@{k:<4} {share:.4}  (95% interval {low:.3} to {high:.3})  by the base tests alone"
        );
    }
    if several {
        let _ = writeln!(
            text,
            "each k at its best temperature, chosen by the test score itself: an oracle choice, so an optimistic figure"
        );
        for t in &r.temperatures {
            let scores: Vec<String> = t
                .pass_at_k
                .iter()
                .map(|(k, share)| format!("pass@{k} {share:.4}"))
                .collect();
            let _ = writeln!(
                text,
                "  at {:<4} {}",
                t.temperature.unwrap_or_default(),
                scores.join("  ")
            );
        }
    }
    if r.not_verified > 0 {
        let _ = writeln!(
            text,
            "not verified: {} of the passes (`reason` in samples.jsonl): {}{}",
            r.not_verified,
            r.not_verified_samples.join(", "),
            if r.not_verified > r.not_verified_samples.len() {
                ", …"
            } else {
                ""
            }
        );
    }
    for sentence in r.training_tasks.sentences() {
        let _ = writeln!(text, "seen     {sentence}: the score is not one on unseen problems");
    }
    for (k, share) in r.pass_at_k_unseen.iter().flatten() {
        let _ = writeln!(text, "unseen   pass@{k} {share:.4} over the other problems");
    }
    let _ = writeln!(text, "exact    {:.4}", r.exact);
    let results: Vec<String> = r
        .results
        .0
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(class, n)| format!("{class} {n}"))
        .collect();
    let _ = writeln!(
        text,
        "results  {}; {:.1}% parse",
        results.join(", "),
        100.0 * r.shares.parse
    );
    let speed = finished.tokens_here as f64 / finished.seconds.max(1e-9);
    if r.temperature.is_some() {
        let _ = write!(
            text,
            "{} tokens in {:.1} s ({speed:.0} tok/s)",
            finished.tokens_here, finished.seconds
        );
    } else {
        let _ = write!(text, "judged in {:.1} s", finished.seconds);
    }
    if finished.resumed > 0 {
        let _ = write!(text, ", {} samples found done", finished.resumed);
    }
    if finished.cached_verdicts > 0 {
        let _ = write!(text, ", {} verdicts from the cache", finished.cached_verdicts);
    }
    let _ = writeln!(text, "; sandbox level `{}`, Python {}", r.sandbox, r.python);
    if r.temperature.is_some() {
        let of = finished.shares;
        let percent = |share: f64| format!("{:.0}%", 100.0 * share);
        let _ = writeln!(
            text,
            "time     model {}, waiting for judges {}, each judge busy {}, idle {}",
            percent(of.model),
            percent(of.waiting),
            percent(of.judges),
            percent(of.idle)
        );
    }
    let _ = write!(text, "samples and report: {}", finished.run_dir.display());
    text
}
