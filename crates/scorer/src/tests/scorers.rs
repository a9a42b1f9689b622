use super::{batch, input, response};
use crate::{
    Normaliser, Position, Random, Rho1, Rho1Config, Rho1Mode, Rho1Score, Scorer, ScorerError, Shuffled, TokenCe,
    Uniform, WeightGroup, WeightPolicy, WeightsConfig,
};
use wmtp_data::{Batch, Tokenizer};

struct Given(Vec<f32>);

impl TokenCe for Given {
    fn token_ce(&self, _: &Batch) -> Result<Vec<f32>, ScorerError> {
        Ok(self.0.clone())
    }
}

fn sorted(mut values: Vec<f32>) -> Vec<f32> {
    values.sort_by(f32::total_cmp);
    values
}

#[test]
fn uniform_weighs_every_token_1() {
    let batch = batch(&[(2, 5), (1, 3)], 12);
    let scores = Uniform.score(&input(&batch, None)).unwrap();
    let report =
        Normaliser::new(WeightsConfig::default())
            .unwrap()
            .weights(&WeightPolicy::Softmax, &[batch], &[scores]);
    assert!(report.weights[0].iter().all(|&w| w == 1.0));
}

#[test]
fn position_is_the_index_in_the_response() {
    let batch = batch(&[(2, 3), (1, 2)], 10);
    let scores = Position.score(&input(&batch, None)).unwrap();
    assert_eq!(scores, [0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn random_scores_belong_to_the_sample_and_are_normal() {
    let together = batch(&[(2, 30), (1, 30)], 64);
    let apart = batch(&[(2, 30), (1, 30)], 40);
    let a = Random::new(1).score(&input(&together, None)).unwrap();
    let b = Random::new(1).score(&input(&apart, None)).unwrap();
    for document in 0..2 {
        assert_eq!(response(&together, &a, document), response(&apart, &b, document));
    }
    assert_ne!(response(&together, &a, 0), response(&together, &a, 1));
    assert_ne!(a, Random::new(2).score(&input(&together, None)).unwrap());
    let many = batch(&[(1, 20_000)], 20_001);
    let scores = Random::new(3).score(&input(&many, None)).unwrap();
    let values = response(&many, &scores, 0);
    let moment = |k: i32| values.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / values.len() as f64;
    // 4 standard errors of the sample mean, variance and fourth moment of a standard normal.
    assert!(moment(1).abs() < 0.03 && (moment(2) - 1.0).abs() < 0.04 && (moment(4) - 3.0).abs() < 0.28);
}

#[test]
fn shuffling_moves_weights_inside_groups_and_keeps_them_all() {
    let sizes = [(2, 30), (1, 25), (1, 20)];
    for over in [WeightGroup::Document, WeightGroup::Step] {
        for policy in [WeightPolicy::Softmax, WeightPolicy::Select { top_p: 0.2 }] {
            let batch = batch(&sizes, 90);
            let config = WeightsConfig {
                over,
                ..Default::default()
            };
            let normaliser = Normaliser::new(config).unwrap();
            let weigh = |scorer: &mut dyn Scorer| {
                let mut scores = [scorer.score(&input(&batch, None)).unwrap()];
                let batches = std::slice::from_ref(&batch);
                scorer.rearrange(batches, &mut scores);
                normaliser.weights(&policy, batches, &scores).weights.remove(0)
            };
            let plain = weigh(&mut Position);
            let mut shuffled = Shuffled::new(Box::new(Position), over, 5);
            let moved = weigh(&mut shuffled);
            assert_eq!(moved, weigh(&mut shuffled));
            assert_ne!(moved, weigh(&mut Shuffled::new(Box::new(Position), over, 6)));
            let of = |weights: &[f32], d| response(&batch, weights, d);
            match over {
                WeightGroup::Document => (0..3).for_each(|d| {
                    assert_ne!(of(&plain, d), of(&moved, d));
                    assert_eq!(sorted(of(&plain, d)), sorted(of(&moved, d)));
                }),
                WeightGroup::Step => {
                    let all = |weights: &[f32]| sorted((0..3).flat_map(|d| of(weights, d)).collect());
                    let (a, b) = (all(&plain), all(&moved));
                    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
                    assert_ne!(sorted(of(&plain, 0)), sorted(of(&moved, 0)));
                }
            }
        }
    }
    let shuffled = Shuffled::new(Box::new(Random::new(1)), WeightGroup::Document, 5);
    assert_eq!(
        (shuffled.name(), shuffled.policy()),
        ("shuffled random", WeightPolicy::Softmax)
    );
}

/// A permutation inside each micro-batch would keep how much a micro-batch weighs, and would be another
/// one for other micro-batches of the same step.
#[test]
fn shuffling_over_a_step_reaches_all_its_micro_batches_alike() {
    let sizes = [(2, 30), (1, 25), (1, 20), (3, 31)];
    let rows = |micro_batch| {
        let rows = super::dataset(&sizes, 34).in_order(micro_batch);
        rows.batches().collect::<Result<Vec<_>, _>>().unwrap()
    };
    let scores = |batches: &[Batch], over| {
        let mut scorer = Shuffled::new(Box::new(Position), over, 5);
        let score = batches.iter().map(|batch| scorer.score(&input(batch, None)).unwrap());
        let mut scores: Vec<Vec<f32>> = score.collect();
        scorer.rearrange(batches, &mut scores);
        scores
    };
    let (four, one) = (rows(1), rows(4));
    assert_eq!((four.len(), one.len()), (4, 1));
    let of_four = scores(&four, WeightGroup::Step);
    assert_eq!(of_four.concat(), scores(&one, WeightGroup::Step)[0]);

    // All scores of the step are there once, but not each micro-batch's own.
    let plain: Vec<Vec<f32>> = four
        .iter()
        .map(|batch| Position.score(&input(batch, None)).unwrap())
        .collect();
    let of = |scores: &[Vec<f32>], b: usize| sorted(response(&four[b], &scores[b], 0));
    let all = |scores: &[Vec<f32>]| sorted((0..4).flat_map(|b| of(scores, b)).collect());
    assert_eq!(all(&of_four), all(&plain));
    assert!((0..4).all(|b| of(&of_four, b) != of(&plain, b)));
    let in_documents = scores(&four, WeightGroup::Document);
    assert!((0..4).all(|b| of(&in_documents, b) == of(&plain, b)));
}

fn rho1(config: Rho1Config) -> Result<Rho1, ScorerError> {
    Rho1::new(&config, Box::new(Given(vec![0.0, 1.0, 2.0, 0.5])))
}

#[test]
fn rho1_compares_losses_as_its_settings_say() {
    let batch = batch(&[(1, 3)], 4);
    let ce = [0.0, 3.0, 1.5, 0.5];
    let score = |config| {
        let mut scorer = rho1(config).unwrap();
        (scorer.score(&input(&batch, Some(&ce))).unwrap(), scorer.policy())
    };
    let lift = WeightPolicy::Lift {
        top_p: 0.2,
        emphasis: 2.0,
    };
    assert_eq!(score(Rho1Config::default()), (vec![0.0, 2.0, 0.5, 0.0], lift));
    let excess = Some(Rho1Score::Excess);
    assert_eq!(
        score(Rho1Config {
            score: excess,
            ..Default::default()
        }),
        (vec![0.0, 2.0, -0.5, 0.0], lift)
    );
    let select = Rho1Config {
        mode: Rho1Mode::Select,
        top_p: 0.6,
        ..Default::default()
    };
    assert_eq!(
        score(select),
        (vec![0.0, 2.0, -0.5, 0.0], WeightPolicy::Select { top_p: 0.6 })
    );
}

#[test]
fn rho1_refuses_what_it_cannot_do() {
    let message = |config| rho1(config).err().unwrap().to_string();
    let select = Rho1Config {
        mode: Rho1Mode::Select,
        score: Some(Rho1Score::AbsExcess),
        ..Default::default()
    };
    assert!(message(select).contains("`scorer.score` must be `excess` with mode `select`, or left out"));
    assert!(
        message(Rho1Config {
            top_p: 0.0,
            ..Default::default()
        })
        .contains("`scorer.top_p` must be above 0")
    );
    assert!(
        message(Rho1Config {
            emphasis: 0.5,
            ..Default::default()
        })
        .contains("`scorer.emphasis` must be above 1")
    );
    let mut scorer = rho1(Rho1Config::default()).unwrap();
    let four = batch(&[(1, 3)], 4);
    let missing = scorer.score(&input(&four, None)).unwrap_err().to_string();
    assert_eq!(missing, "scorer `rho1` was not given the model's cross-entropy");
    let five = batch(&[(1, 3)], 5);
    assert!(
        scorer
            .score(&input(&five, Some(&[0.0; 5])))
            .unwrap_err()
            .to_string()
            .contains("4 of the reference")
    );
}

#[test]
fn rho1_needs_one_tokenizer_for_both_models() {
    let micro = Tokenizer::builtin_micro().unwrap();
    Rho1::check_tokenizers(&micro, &micro).unwrap();
    let dir = tempfile::tempdir().unwrap();
    micro.save(dir.path()).unwrap();
    let path = dir.path().join("tokenizer.json");
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replace("\"use_regex\": true", "\"use_regex\": false");
    std::fs::write(&path, text).unwrap();
    let other = Tokenizer::load(dir.path()).unwrap();
    let message = Rho1::check_tokenizers(&micro, &other).unwrap_err().to_string();
    assert!(message.starts_with("scorer `rho1`: wrong tokenizer: "), "{message}");
}
