use super::input;
use crate::{
    CriticConfig, CriticLoss, InitialValue, ScoreInput, Scorer, Spread,
    critic::{
        CriticScorer, CriticTargets, Observations, Pseudo, SequenceReward, Values, Verified, loss, report::auroc,
        targets, values,
    },
};
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use wmtp_data::{Batch, Dataset, Tokenized};

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/critic.json")).unwrap()
}

fn floats(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(floats).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

fn assert_close(got: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(got.len(), wanted.len());
    for (g, w) in got.iter().zip(wanted) {
        assert!(
            (g - w).abs() <= tolerance * (1.0 + w.abs()),
            "{got:?}\nand not\n{wanted:?}"
        );
    }
}

fn spread(name: &Value) -> Spread {
    serde_json::from_value(name.clone()).unwrap()
}

#[test]
fn rewards_targets_and_scores_are_numpys() {
    let documents = fixture()["documents"].as_array().unwrap().clone();
    assert_eq!(documents.len(), 48);
    for d in documents {
        let number = |key: &str| d[key].as_f64().unwrap();
        let (gamma, lambda) = (number("gamma"), number("lambda_gae"));
        let (rewards, v) = (floats(&d["rewards"]), floats(&d["values"]));
        let n = d["n"].as_u64().unwrap() as usize;
        let spread = values::token_rewards(number("total"), n, spread(&d["spread"]), gamma);
        assert_close(&spread, &rewards, 1e-12);
        assert!((spread.iter().sum::<f64>() - number("total")).abs() < 1e-12);
        assert_close(
            &values::gae_targets(&rewards, &v, gamma, lambda),
            &floats(&d["targets"]),
            1e-11,
        );
        assert_close(&values::returns(&rewards, gamma), &floats(&d["returns"]), 1e-11);
        for (name, initial) in [("prompt", InitialValue::Prompt), ("zero", InitialValue::Zero)] {
            assert_close(
                &values::scores(&rewards, &v, gamma, initial),
                &floats(&d["scores"][name]),
                1e-12,
            );
        }
    }
}

#[test]
fn three_tokens_by_hand() {
    // Half, then all hope: reward 1 at the end.
    let v = [0.5, 0.5, 0.25, 1.0];
    let r = values::token_rewards(1.0, 3, Spread::Terminal, 1.0);
    assert_eq!(r, [0.0, 0.0, 1.0]);
    assert_eq!(values::gae_targets(&r, &v, 1.0, 1.0), [1.0; 4]);
    // One-step targets: the next value, and at the end the reward.
    assert_eq!(values::gae_targets(&r, &v, 1.0, 0.0), [0.5, 0.25, 1.0, 1.0]);
    assert_eq!(values::scores(&r, &v, 1.0, InitialValue::Prompt), [0.0, -0.25, 0.75]);
    assert_eq!(values::scores(&r, &v, 1.0, InitialValue::Zero), [0.5, -0.25, 0.75]);
    // A reward already taken counts for the token after it: r = 1/3 each, V what is to come.
    let r = values::token_rewards(1.0, 3, Spread::Uniform, 1.0);
    let perfect = values::returns(&r, 1.0);
    assert_close(&perfect, &[1.0, 1.0, 2.0 / 3.0, 1.0 / 3.0], 1e-15);
    assert_close(
        &values::scores(&r, &perfect, 1.0, InitialValue::Prompt),
        &[0.0; 3],
        1e-15,
    );
    assert_close(
        &values::token_rewards(6.0, 3, Spread::Length, 1.0),
        &[3.0, 2.0, 1.0],
        1e-15,
    );
    assert_close(
        &values::token_rewards(7.0, 3, Spread::Gae, 0.5),
        &[1.0, 2.0, 4.0],
        1e-15,
    );
}

#[test]
fn auroc_counts_pairs() {
    for case in fixture()["rocs"].as_array().unwrap() {
        let labels = case["labels"].as_array().unwrap().iter().map(|l| l.as_bool().unwrap());
        let scored: Vec<(f64, bool)> = floats(&case["scores"]).into_iter().zip(labels).collect();
        assert!((auroc(&scored).unwrap() - case["auroc"].as_f64().unwrap()).abs() < 1e-12);
    }
    assert_eq!(auroc(&[(1.0, true), (0.0, false)]), Some(1.0));
    assert_eq!(auroc(&[(0.0, true), (1.0, false)]), Some(0.0));
    assert_eq!(auroc(&[(0.0, true), (0.0, false), (0.0, true)]), Some(0.5));
    assert_eq!(auroc(&[(0.0, true), (1.0, true)]), None);
    assert_eq!(auroc(&[(f64::NAN, true), (1.0, false)]), None);
}

/// The fixture's batch: one row a batch, so that pairs reach over micro-batches.
fn batches() -> (Vec<Batch>, Vec<Vec<f32>>) {
    let fixture = fixture();
    let rows = fixture["loss"]["rows"].as_array().unwrap();
    let batches: Vec<Batch> = rows
        .iter()
        .map(|row| {
            let documents = row.as_array().unwrap().iter().zip(0..).map(|(d, sample)| {
                let d = floats(d);
                Tokenized {
                    sample,
                    name: format!("doc/{sample}"),
                    problem: d[0] as u32,
                    tokens: vec![1; d[2] as usize],
                    prompt_len: d[1] as usize,
                    untrained: Vec::new(),
                    given: Vec::new(),
                    reward: Some(d[3] as f32),
                }
            });
            Dataset::from_tokenized(documents.collect(), 8, true)
                .unwrap()
                .in_order(4)
                .step(0)
                .unwrap()
                .remove(0)
        })
        .collect();
    let rewards = batches.iter().map(|b| Verified.rewards(b, None).unwrap()).collect();
    (batches, rewards)
}

#[test]
fn losses_and_their_gradients_are_torchs() {
    let fixture = fixture();
    let f = &fixture["loss"];
    let device = Device::flex().autodiff();
    let all = narrow(&floats(&f["values"]));
    let leaf = |from: usize, rows: usize| {
        let data = TensorData::new(all[from * 8..(from + rows) * 8].to_vec(), [rows, 8]);
        Tensor::<2>::from_data(data, &device).require_grad()
    };
    let targets = CriticTargets {
        targets: narrow(&floats(&f["targets"])),
        mask: floats(&f["mask"]).iter().map(|&m| m == 1.0).collect(),
    };
    assert_eq!(loss::count(&targets), f["count"].as_u64().unwrap() as usize);
    let check = |name: &str, loss: Tensor<1>, leaves: &[Tensor<2>]| {
        let got = f64::from(loss.clone().into_scalar::<f32>());
        assert!((got - f[name]["loss"].as_f64().unwrap()).abs() < 1e-6, "{name}: {got}");
        let gradients = loss.backward();
        let gradient: Vec<f64> = leaves
            .iter()
            .flat_map(|leaf| leaf.grad(&gradients).unwrap().into_data().try_to_vec::<f32>().unwrap())
            .map(f64::from)
            .collect();
        assert_close(&gradient, &floats(&f[name]["gradient"]), 1e-6);
    };
    let values = leaf(0, 3);
    check(
        "mse",
        loss::mse(values.clone(), &targets, loss::count(&targets)),
        &[values],
    );
    let values = leaf(0, 3);
    check(
        "huber",
        loss::huber(values.clone(), &targets, loss::count(&targets)),
        &[values],
    );
    let values: Vec<_> = (0..3).map(|row| leaf(row, 1)).collect();
    let (batches, rewards) = batches();
    let (pairwise, pairs) = loss::pairwise(&values, &batches, &rewards).unwrap();
    assert_eq!(pairs, 3);
    check("pairwise", pairwise, &values);
    assert!(loss::pairwise(&values[1..2], &batches[1..2], &rewards[1..2]).is_none());
}

#[test]
fn targets_reach_from_the_last_prompt_token_to_the_end() {
    let (batches, rewards) = batches();
    let config = CriticConfig::default();
    let out = targets(&batches[0], &[0.3; 8], &rewards[0], &config);
    // Prompt 1, response 3 with reward 1; prompt 2, response 2 with reward 0.
    let mask: Vec<u8> = out.mask.iter().map(|&m| m as u8).collect();
    assert_eq!(mask, [1, 1, 1, 1, 0, 1, 1, 1]);
    let wanted = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
    assert_close(
        &out.targets.iter().map(|&t| f64::from(t)).collect::<Vec<_>>(),
        &wanted,
        1e-6,
    );
    let one_step = CriticConfig {
        lambda_gae: 0.0,
        gamma: 0.5,
        ..config
    };
    let out = targets(&batches[0], &[0.5; 8], &rewards[0], &one_step);
    assert_eq!(out.targets, [0.25, 0.25, 0.25, 1.0, 0.0, 0.25, 0.25, 0.0]);
}

struct Fixed(Vec<f32>);

impl Values for Fixed {
    fn values(&self, _: &Tensor<3>) -> Result<Vec<f32>, wmtp_device::ReadError> {
        Ok(self.0.clone())
    }
}

fn score(config: CriticConfig, batch: &Batch, rewards: Box<dyn SequenceReward>) -> Result<Vec<f32>, String> {
    let given = Fixed(vec![0.5, 0.5, 0.25, 1.0, 9.0, 1.0, 0.0, 2.0]);
    let hidden = Tensor::<3>::zeros([1, 8, 2], &Device::flex());
    let mut scorer = CriticScorer::new(config, Box::new(given), rewards);
    let with_hidden = ScoreInput {
        hidden: Some(hidden),
        ..input(batch, None)
    };
    assert!(
        scorer
            .score(&input(batch, None))
            .unwrap_err()
            .to_string()
            .contains("hidden states")
    );
    scorer.score(&with_hidden).map_err(|e| e.to_string())
}

#[test]
fn stage_2_scores_value_differences_inside_each_document() {
    let batch = &batches().0[0];
    let config = CriticConfig::default();
    let scores = score(config.clone(), batch, Box::new(Verified)).unwrap();
    assert_eq!(scores, [0.0, 0.0, -0.25, 0.75, 0.0, 0.0, -1.0, 2.0]);
    let zero = CriticConfig {
        initial_value: InitialValue::Zero,
        ..config.clone()
    };
    assert_eq!(
        score(zero, batch, Box::new(Verified)).unwrap(),
        [0.0, 0.5, -0.25, 0.75, 0.0, 0.0, 0.0, 2.0]
    );
    // Spread evenly, 1/3 a token, the first document's reward counts from its second token on.
    let even = CriticConfig {
        spread: Spread::Uniform,
        ..config
    };
    let scores = score(even.clone(), batch, Box::new(Verified)).unwrap();
    let third = 1.0 / 3.0;
    let wanted = [0.0, 0.0, third - 0.25, third + 0.75, 0.0, 0.0, -1.0, 2.0];
    assert_close(&scores.iter().map(|&s| f64::from(s)).collect::<Vec<_>>(), &wanted, 1e-6);
    let mut unlabelled = batch.clone();
    unlabelled.documents[1].reward = None;
    let message = score(even, &unlabelled, Box::new(Verified)).unwrap_err();
    assert_eq!(
        message,
        "scorer `critic`: document doc/1 has no verified label; take data with labels or another `scorer.reward`"
    );
}

#[test]
fn the_pseudo_reward_is_minus_the_mean_loss() {
    let batch = &batches().0[0];
    let ce = [9.0, 1.0, 2.0, 6.0, 9.0, 9.0, 1.0, 2.0];
    assert_eq!(Pseudo.rewards(batch, Some(&ce)).unwrap(), [-3.0, -1.5]);
    assert!(
        Pseudo
            .rewards(batch, None)
            .unwrap_err()
            .to_string()
            .contains("`reward: pseudo`")
    );
    let config = CriticConfig {
        spread: Spread::Length,
        ..Default::default()
    };
    let scorer = CriticScorer::new(config, Box::new(Fixed(vec![])), Box::new(Pseudo));
    assert!(scorer.needs().ce && scorer.needs().hidden);
}

#[test]
fn the_report_tells_a_perfect_critic_from_a_blind_one() {
    let (batches, rewards) = batches();
    let config = CriticConfig::default();
    let report = |value: &dyn Fn(&Batch) -> Vec<f32>, config: &CriticConfig| {
        let mut seen = Observations::default();
        for (batch, rewards) in batches.iter().zip(&rewards) {
            let values = value(batch);
            let ce: Vec<f32> = values.iter().map(|v| -v).collect();
            seen.add(batch, &values, &ce, rewards, config);
        }
        seen.report(config).unwrap()
    };
    let perfect = report(
        &|b| targets(b, &[0.0; 8], &Verified.rewards(b, None).unwrap(), &config).targets,
        &config,
    );
    assert_eq!(
        (perfect.documents, perfect.tokens, perfect.value_loss),
        (5, 19, Some(0.0))
    );
    assert_eq!(
        (perfect.explained_variance, perfect.auroc_mean, perfect.auroc_last),
        (Some(1.0), Some(1.0), Some(1.0))
    );
    // The cross-entropy given is minus the value: the same order.
    assert_eq!(
        (
            perfect.within_mean,
            perfect.within_last,
            perfect.within_ce,
            perfect.auroc_ce
        ),
        (Some(1.0), Some(1.0), Some(1.0), Some(1.0))
    );
    // Always one half: squared error 1/4, no variance explained, no order.
    let blind = report(&|_| vec![0.5; 8], &config);
    assert_eq!(
        (blind.value_loss, blind.auroc_mean, blind.auroc_last, blind.within_mean),
        (Some(0.25), Some(0.5), Some(0.5), Some(0.5))
    );
    assert!(blind.explained_variance.unwrap().abs() < 1e-12);
    assert_eq!(Observations::default().report(&config), None);

    // V of a head that learned from pairs has no scale: no figure compares it with the return.
    let pairwise = CriticConfig {
        loss: CriticLoss::Pairwise,
        ..CriticConfig::default()
    };
    let blind = report(&|_| vec![7.5; 8], &pairwise);
    assert_eq!((blind.value_loss, blind.explained_variance), (None, None));
    // -log sigmoid(0) is ln 2.
    assert!((blind.pairwise_loss.unwrap() - 2f64.ln()).abs() < 1e-12);
}

/// Problems of unlike difficulty: all of one are above all of the other, so AUROC over both says little
/// of the order within each.
#[test]
fn pairs_are_compared_within_their_problem() {
    let document = |sample: usize, problem: u32, right: bool| Tokenized {
        sample,
        name: format!("doc/{sample}"),
        problem,
        tokens: vec![1, 2],
        prompt_len: 1,
        untrained: Vec::new(),
        given: Vec::new(),
        reward: Some(f32::from(u8::from(right))),
    };
    let documents = vec![
        document(0, 1, true),
        document(1, 1, false),
        document(2, 1, false),
        document(3, 2, true),
        document(4, 2, false),
    ];
    let batch = Dataset::from_tokenized(documents, 10, true)
        .unwrap()
        .in_order(1)
        .step(0)
        .unwrap()
        .remove(0);
    // Values of the response tokens 0.9 | 0.8, 0.95 | 0.2 | 0.1: 2 of 3 pairs are in order, one by a
    // tie in the second set of figures.
    let value = |of: [f32; 5]| of.iter().flat_map(|&v| [0.0, v]).collect::<Vec<f32>>();
    let values = value([0.9, 0.8, 0.95, 0.2, 0.1]);
    let ce = value([1.0, 1.0, 2.0, 4.0, 5.0]);
    let config = CriticConfig::default();
    let mut seen = Observations::default();
    seen.add(&batch, &values, &ce, &[1.0, 0.0, 0.0, 1.0, 0.0], &config);
    let report = seen.report(&config).unwrap();
    assert!((report.within_mean.unwrap() - 2.0 / 3.0).abs() < 1e-12);
    assert!((report.within_ce.unwrap() - 2.5 / 3.0).abs() < 1e-12);
    // Right 0.9, 0.2 against wrong 0.8, 0.95, 0.1: 3 of 6 pairs.
    assert!((report.auroc_mean.unwrap() - 0.5).abs() < 1e-12);
    let pairwise = CriticConfig {
        loss: CriticLoss::Pairwise,
        ..CriticConfig::default()
    };
    let losses = [0.1f64, -0.05, 0.1].map(|d| (1.0 + (-d).exp()).ln());
    let mean = losses.iter().sum::<f64>() / 3.0;
    assert!((seen.report(&pairwise).unwrap().pairwise_loss.unwrap() - mean).abs() < 1e-6);
}
