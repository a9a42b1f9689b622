use super::{batch, response};
use crate::{
    FallbackTally, Normaliser, WeightGroup, WeightPolicy, WeightStats, WeightsConfig,
    weights::{normalise, zscores},
};
use proptest::{prelude::*, sample::select};
use serde_json::Value;

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn given_weights_are_taken_as_they_are_or_with_mean_1() {
    let config = WeightsConfig::default();
    let of = |weights: &[f64], mean_one| normalise(weights, &WeightPolicy::Given { mean_one }, &config);
    assert_eq!(of(&[0.0, 2.0, 4.0], false), [0.0, 2.0, 4.0]);
    assert_eq!(of(&[0.0, 2.0, 4.0], true), [0.0, 1.0, 2.0]);
    assert_eq!(of(&[0.0, 0.0], true), [0.0, 0.0]);
}

#[test]
fn weights_are_those_that_numpy_makes_from_the_formulas() {
    let cases: Value = serde_json::from_str(include_str!("fixtures/weights.json")).unwrap();
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 240);
    for case in cases {
        let number = |key: &str| case[key].as_f64().unwrap();
        let config = WeightsConfig {
            zscore: case["zscore"].as_bool().unwrap(),
            temperature: number("temperature"),
            eps: number("eps"),
            w_max: number("w_max"),
            ..Default::default()
        };
        let top_p = number("top_p");
        let policy = match case["policy"].as_str().unwrap() {
            "softmax" => WeightPolicy::Softmax,
            "lift" => WeightPolicy::Lift {
                top_p,
                emphasis: number("emphasis"),
            },
            "select" => WeightPolicy::Select { top_p },
            other => panic!("{other}"),
        };
        let weights = normalise(&floats(&case["scores"]), &policy, &config);
        for (weight, wanted) in weights.iter().zip(floats(&case["weights"])) {
            assert!(
                (weight - wanted).abs() < 2e-9,
                "{} {policy:?}: {weight} and not {wanted}",
                case["name"]
            );
        }
        assert_eq!(weights.len(), floats(&case["weights"]).len());
    }
}

#[test]
fn cases_worked_out_by_hand() {
    let plain = WeightsConfig {
        zscore: false,
        temperature: 1.0,
        ..Default::default()
    };
    // Inside the bounds it is a softmax times n: exp(ln 1), exp(ln 2) scaled to mean 1.
    let weights = normalise(&[0.0, 2f64.ln()], &WeightPolicy::Softmax, &plain);
    assert!((weights[0] - 2.0 / 3.0).abs() < 1e-12 && (weights[1] - 4.0 / 3.0).abs() < 1e-12);
    // One far above nine equals: it stops at w_max = 3, they share the other 7 of 10.
    let mut scores = vec![0.0; 10];
    scores[3] = 50.0;
    let weights = normalise(&scores, &WeightPolicy::Softmax, &plain);
    assert!((weights[3] - 3.0).abs() < 1e-12 && (weights[0] - 7.0 / 9.0).abs() < 1e-12);
    // One far below: it stops at eps = 0.05, nine share 9.95.
    scores[3] = -50.0;
    let weights = normalise(&scores, &WeightPolicy::Softmax, &plain);
    assert!((weights[3] - 0.05).abs() < 1e-12 && (weights[0] - 9.95 / 9.0).abs() < 1e-12);
    // Equal scores and one token.
    assert_eq!(
        normalise(&[4.0; 5], &WeightPolicy::Softmax, &WeightsConfig::default()),
        [1.0; 5]
    );
    assert_eq!(
        normalise(&[-7.0], &WeightPolicy::Softmax, &WeightsConfig::default()),
        [1.0]
    );
    // Select keeps round(0.2 * 8) = 2 of 8, ties to the earlier, at weight 4; at least one.
    let policy = WeightPolicy::Select { top_p: 0.2 };
    let weights = normalise(&[1.0, 5.0, 0.0, 5.0, 5.0, 2.0, 1.0, 0.0], &policy, &plain);
    assert_eq!(weights, [0.0, 4.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(normalise(&[0.0, 1.0], &policy, &plain), [0.0, 2.0]);
}

#[test]
fn scores_too_far_apart_for_f64_still_meet_both_bounds() {
    // Both others at eps = 0.05 leave 2.9 of 3. b would need more digits than f64 has here; relative to a
    // token of the group it does not.
    let config = WeightsConfig {
        zscore: false,
        ..Default::default()
    };
    let weights = normalise(&[1e30, 2e30, -3e38], &WeightPolicy::Softmax, &config);
    assert!(
        (weights[0] - 0.05).abs() < 1e-12 && (weights[2] - 0.05).abs() < 1e-12,
        "{weights:?}"
    );
    assert!((weights[1] - 2.9).abs() < 1e-12, "{weights:?}");
}

/// Scores of every unpleasant kind: huge, tiny, equal, sparse.
fn scores() -> impl Strategy<Value = Vec<f32>> {
    let one = prop_oneof![
        4 => -3f32..3f32,
        1 => select(vec![0.0f32, -0.0, 1e30, -1e30, f32::MAX, f32::MIN, 1e-30, f32::MIN_POSITIVE, 1.0]),
        1 => any::<f32>().prop_filter("finite", |s| s.is_finite()),
        1 => Just(0.5f32),
    ];
    let size = prop_oneof![1usize..4, 1usize..60];
    size.prop_flat_map(move |n| prop::collection::vec(one.clone(), n))
}

fn configs() -> impl Strategy<Value = WeightsConfig> {
    let usual = Just(WeightsConfig::default());
    let other =
        (any::<bool>(), 0.05f64..5.0, 1e-4f64..0.99, 1.001f64..50.0).prop_map(|(zscore, temperature, eps, w_max)| {
            WeightsConfig {
                zscore,
                temperature,
                eps,
                w_max,
                ..Default::default()
            }
        });
    (prop_oneof![usual, other], any::<bool>()).prop_map(|(config, step)| WeightsConfig {
        over: if step { WeightGroup::Step } else { WeightGroup::Document },
        ..config
    })
}

fn policies() -> impl Strategy<Value = WeightPolicy> {
    prop_oneof![
        Just(WeightPolicy::Softmax),
        (0.01f64..=1.0, 1.0f64..10.0).prop_map(|(top_p, emphasis)| WeightPolicy::Lift { top_p, emphasis })
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn the_mean_is_1_and_the_bounds_hold_at_once(
        scores in prop::collection::vec(scores(), 1..4), config in configs(), policy in policies(), prompt in 1usize..4,
    ) {
        let sizes: Vec<_> = scores.iter().map(|s| (prompt, s.len())).collect();
        let batch = batch(&sizes, 64);
        let mut flat = vec![f32::NAN; batch.tokens.len()];
        for document in &batch.documents {
            flat[document.response(64)].copy_from_slice(&scores[document.sample - 10]);
        }
        let normaliser = Normaliser::new(config.clone()).unwrap();
        let report = normaliser.weights(&policy, std::slice::from_ref(&batch), &[flat]);
        prop_assert!(report.fallbacks.is_empty());
        let weights = &report.weights[0];
        let (eps, w_max) = (config.eps as f32, config.w_max as f32);
        let groups: Vec<Vec<f32>> = (0..batch.documents.len()).map(|d| response(&batch, weights, d)).collect();
        let groups = if config.over == WeightGroup::Step { vec![groups.concat()] } else { groups };
        prop_assert_eq!(report.groups, groups.len());
        for group in groups {
            let mean = group.iter().map(|&w| f64::from(w)).sum::<f64>() / group.len() as f64;
            prop_assert!((mean - 1.0).abs() <= 1e-4, "mean {} of {:?}", mean, group);
            prop_assert!(group.iter().all(|&w| eps <= w && w <= w_max), "{:?} not in {}..{}", group, eps, w_max);
        }
        // Prompts and padding are untouched.
        prop_assert!(weights.iter().zip(&batch.response).all(|(&w, &r)| r || w == 1.0));
        let all: Vec<f32> = (0..batch.documents.len()).flat_map(|d| response(&batch, weights, d)).collect();
        let stats = WeightStats::of(&all).unwrap();
        prop_assert!(stats.entropy <= 1.0 + 1e-9 && stats.entropy >= 0.0);
        prop_assert!(stats.min <= stats.mean && stats.mean <= stats.max);
    }

    #[test]
    fn selection_keeps_its_share_and_mean_1(scores in scores(), top_p in 0.001f64..=1.0) {
        let scores: Vec<f64> = scores.iter().map(|&s| f64::from(s)).collect();
        let weights = normalise(&scores, &WeightPolicy::Select { top_p }, &WeightsConfig::default());
        let n = scores.len();
        let kept = weights.iter().filter(|&&w| w > 0.0).count();
        prop_assert_eq!(kept, ((top_p * n as f64).round() as usize).max(1));
        prop_assert!((weights.iter().sum::<f64>() / n as f64 - 1.0).abs() < 1e-12);
        let lowest = scores.iter().zip(&weights).filter(|(_, w)| **w > 0.0).map(|(s, _)| *s).fold(f64::INFINITY, f64::min);
        prop_assert!(scores.iter().zip(&weights).all(|(s, w)| *w > 0.0 || *s <= lowest));
    }
}

proptest! {
    #[test]
    fn a_higher_score_never_weighs_less(scores in scores(), config in configs(), policy in policies()) {
        let scores: Vec<f64> = scores.iter().map(|&s| f64::from(s)).collect();
        let weights = normalise(&scores, &policy, &config);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        prop_assert!(order.windows(2).all(|w| weights[w[0]] <= weights[w[1]] + 1e-12));
    }
}

#[test]
fn a_score_that_is_not_finite_leaves_its_group_at_1_and_is_named() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for policy in [
            WeightPolicy::Softmax,
            WeightPolicy::Lift {
                top_p: 0.2,
                emphasis: 2.0,
            },
            WeightPolicy::Select { top_p: 0.2 },
        ] {
            let batch = batch(&[(2, 3), (1, 4)], 16);
            let mut scores: Vec<f32> = (0..16).map(|i| i as f32).collect();
            scores[0] = bad; // a prompt token: of no account
            scores[3] = bad;
            let all = [batch];
            let report = Normaliser::new(WeightsConfig::default())
                .unwrap()
                .weights(&policy, &all, &[scores.clone()]);
            assert_eq!((report.groups, report.fallbacks.len()), (2, 1));
            assert_eq!(
                (report.fallbacks[0].document.as_str(), report.fallbacks[0].position),
                ("doc/10", 3)
            );
            assert_eq!(response(&all[0], &report.weights[0], 0), [1.0; 3]);
            assert_ne!(response(&all[0], &report.weights[0], 1), [1.0; 4]);
            let step = WeightsConfig {
                over: WeightGroup::Step,
                ..Default::default()
            };
            let report = Normaliser::new(step).unwrap().weights(&policy, &all, &[scores]);
            assert_eq!((report.groups, report.fallbacks.len()), (1, 1));
            assert!(report.weights[0].iter().all(|&w| w == 1.0));
        }
    }
}

#[test]
fn missing_scores_fall_back_and_empty_steps_are_empty() {
    let normaliser = Normaliser::new(WeightsConfig::default()).unwrap();
    let report = normaliser.weights(&WeightPolicy::Softmax, &[batch(&[(1, 3)], 8)], &[]);
    assert_eq!((report.groups, report.fallbacks.len()), (1, 1));
    let report = normaliser.weights(&WeightPolicy::Softmax, &[], &[]);
    assert_eq!((report.groups, report.fallbacks.len()), (0, 0));
    let step = WeightsConfig {
        over: WeightGroup::Step,
        ..Default::default()
    };
    let report = Normaliser::new(step).unwrap().weights(&WeightPolicy::Softmax, &[], &[]);
    assert_eq!((report.groups, report.fallbacks.len()), (0, 0));
    assert_eq!(WeightStats::of(&[]), None);
}

#[test]
fn a_fallback_has_its_position_in_the_document_wherever_that_lies() {
    // Rows of 8 tokens: doc/10 fills the first, the second has doc/11 (0 to 2) and doc/12 (3 to 7).
    let all = [batch(&[(2, 6), (1, 2), (2, 3)], 8)];
    let mut scores: Vec<f32> = (0..16).map(|i| i as f32).collect();
    scores[8 + 3 + 4] = f32::NAN;
    let normaliser = Normaliser::new(WeightsConfig::default()).unwrap();
    let report = normaliser.weights(&WeightPolicy::Softmax, &all, &[scores]);
    let [fallback] = &report.fallbacks[..] else {
        panic!("{:?}", report.fallbacks);
    };
    assert_eq!((fallback.document.as_str(), fallback.position), ("doc/12", 4));
}

#[test]
fn z_scores_are_those_worked_out_by_hand() {
    // Mean 5, population's standard deviation 2.
    let z = zscores(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
    assert_eq!(z, [-1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 1.0, 2.0]);
    assert_eq!(zscores(&[3.0, 3.0]), [0.0, 0.0]);
}

#[test]
fn statistics_of_weights_are_those_worked_out_by_hand() {
    let normaliser = Normaliser::new(WeightsConfig::default()).unwrap();
    let batch = batch(&[(3, 4)], 16);
    let mut scores = vec![0.0; 16];
    scores[5] = 1.0;
    let report = normaliser.weights(
        &WeightPolicy::Select { top_p: 0.5 },
        std::slice::from_ref(&batch),
        &[scores],
    );
    let stats = WeightStats::of(&response(&batch, &report.weights[0], 0)).unwrap();
    // Two of four tokens weigh 2: entropy ln 2 of ln 4.
    assert_eq!((stats.mean, stats.min, stats.max), (1.0, 0.0, 2.0));
    assert!((stats.entropy - 0.5).abs() < 1e-12);
    // 1/4, 1/4, 1/2 of the sum: 1.5 ln 2 of ln 3.
    let stats = WeightStats::of(&[0.75, 0.75, 1.5]).unwrap();
    assert_eq!((stats.mean, stats.min, stats.max), (1.0, 0.75, 1.5));
    assert!((stats.entropy - 1.5 * 2f64.ln() / 3f64.ln()).abs() < 1e-12);
    let one = WeightStats::of(&[1.0]).unwrap();
    assert_eq!((one.mean, one.min, one.max, one.entropy), (1.0, 1.0, 1.0, 1.0));
}

#[test]
fn too_many_fallbacks_stop_the_run_and_few_do_not() {
    let mut tally = FallbackTally::default();
    assert!(tally.add(1, 1, 0.1), "one alone is allowed at the beginning");
    for _ in 0..19 {
        assert!(tally.add(1, 0, 0.1));
    }
    assert!(tally.add(1, 1, 0.1), "2 of 21");
    assert!(!tally.add(1, 1, 0.1), "3 of 22");
    assert_eq!((tally.groups, tally.fallbacks), (22, 3));
    assert!(tally.add(1, 0, 0.1), "a step without any stops nothing");
    assert!(!FallbackTally::default().add(1, 1, 0.0));
    assert!(!FallbackTally::default().add(5, 2, 0.1), "two of the first five");
}

#[test]
fn settings_without_a_solution_are_refused() {
    let refused = |edit: &dyn Fn(&mut WeightsConfig)| {
        let mut config = WeightsConfig::default();
        edit(&mut config);
        Normaliser::new(config).is_err()
    };
    assert!(refused(&|c| c.eps = 1.0) && refused(&|c| c.eps = 0.0) && refused(&|c| c.eps = f64::NAN));
    assert!(refused(&|c| c.w_max = 1.0) && refused(&|c| c.w_max = f64::INFINITY));
    assert!(refused(&|c| c.temperature = 0.0) && !refused(&|_| {}));
}
