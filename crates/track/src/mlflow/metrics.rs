//! Metric values: sent in batches, asked for after a break.

use super::{
    client::{CallError, Client},
    runs::{self, Run, cut},
};
use crate::{Point, TrackError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Most values in a request.
pub(super) const MOST: usize = 1000;
const KEY: usize = 250;
const PAGE: &str = "20000";

pub(super) fn log(client: &Client, run: &Run, points: &[&Point]) -> Result<(), TrackError> {
    for part in points.chunks(MOST) {
        let metrics: Vec<Value> = part
            .iter()
            .map(|p| json!({"key": cut(&p.key, KEY), "value": number(p.value), "timestamp": p.at, "step": p.step}))
            .collect();
        client.post("runs/log-batch", &json!({"run_id": run.id, "metrics": metrics}))?;
    }
    Ok(())
}

/// What JSON has no number for goes as a text.
fn number(value: f64) -> Value {
    if value.is_finite() {
        value.into()
    } else if value.is_nan() {
        "NaN".into()
    } else if value > 0.0 {
        "Infinity".into()
    } else {
        "-Infinity".into()
    }
}

/// The largest step of each metric. Asked twice, and believed if both answers agree: a wrong digit
/// on the way would lose values for good.
pub(super) fn latest(client: &Client, run: &Run) -> Result<BTreeMap<String, i64>, TrackError> {
    let steps = || -> Result<BTreeMap<String, i64>, CallError> {
        let answer = runs::get(client, &run.id)?;
        let metrics = answer["data"]["metrics"].as_array().into_iter().flatten();
        Ok(metrics
            .filter_map(|m| Some((m["key"].as_str()?.to_owned(), whole(&m["step"]).unwrap_or(0))))
            .collect())
    };
    let (first, second) = (steps()?, steps()?);
    if first == second {
        Ok(first)
    } else {
        Err(client.not_understood("two answers about the same run differ").into())
    }
}

/// Those points that the run does not have.
pub(super) fn missing<'a>(client: &Client, run: &Run, points: &'a [Point]) -> Result<Vec<&'a Point>, TrackError> {
    let keys: BTreeSet<&str> = points.iter().map(|p| cut(&p.key, KEY)).collect();
    let mut there = BTreeSet::new();
    for key in keys {
        let mut token = String::new();
        loop {
            let answer = client.get(
                "metrics/get-history",
                &[
                    ("run_id", &run.id),
                    ("metric_key", key),
                    ("max_results", PAGE),
                    ("page_token", &token),
                ],
            )?;
            for m in answer["metrics"].as_array().into_iter().flatten() {
                if let (Some(step), Some(at)) = (whole(&m["step"]), whole(&m["timestamp"])) {
                    there.insert((key.to_owned(), step, at));
                }
            }
            let next = answer["next_page_token"].as_str().unwrap_or_default();
            if next.is_empty() {
                break;
            }
            if next == token {
                return Err(client
                    .not_understood("it gives the same page of a metric again and again")
                    .into());
            }
            token = next.to_owned();
        }
    }
    Ok(points
        .iter()
        .filter(|p| !there.contains(&(cut(&p.key, KEY).to_owned(), p.step, p.at)))
        .collect())
}

/// Some servers write large numbers as texts.
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_lacks_are_texts() {
        assert_eq!(number(1.5), json!(1.5));
        assert_eq!(number(f64::NAN), json!("NaN"));
        assert_eq!(number(f64::NEG_INFINITY), json!("-Infinity"));
    }
}
