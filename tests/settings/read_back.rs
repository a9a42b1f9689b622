//! Resolved settings, written and read again.

use super::Files;
use proptest::prelude::*;
use wmtp::{
    scorer::{
        CriticConfig, CriticLoss, InitialValue, Reward, Rho1Config, Rho1Mode, Rho1Score, ScorerConfig, ScoringTime,
        Spread, ValueUse,
    },
    settings::{Config, Pipeline, Recipe, Sources},
    train::{LoraConfig, WeightBy},
};

fn number(from: f64, to: f64) -> impl Strategy<Value = f64> {
    prop_oneof![
        (0.0..1.0f64).prop_map(move |u| from + u * (to - from)),
        (-12.0..0.0f64).prop_map(move |e| from + 10f64.powf(e) * (to - from)),
    ]
}

fn scorer() -> impl Strategy<Value = ScorerConfig> {
    let rho1 = (
        prop_oneof![Just(None), Just(Some(Rho1Score::Excess))],
        any::<bool>(),
        number(0.01, 1.0),
        number(1.01, 9.0),
        any::<bool>(),
    )
        .prop_map(|(score, select, top_p, emphasis, offline)| {
            ScorerConfig::Rho1(Rho1Config {
                score,
                mode: if select { Rho1Mode::Select } else { Rho1Mode::Weighted },
                top_p,
                emphasis,
                when: if offline {
                    ScoringTime::Offline
                } else {
                    ScoringTime::Online
                },
            })
        });
    let critic = (
        prop_oneof![
            Just(Reward::Verified),
            Just(Reward::Tests),
            Just(Reward::Pseudo),
            Just(Reward::RewardModel)
        ],
        prop_oneof![
            Just(Spread::Terminal),
            Just(Spread::Uniform),
            Just(Spread::Length),
            Just(Spread::Gae)
        ],
        (number(0.0, 1.0), number(0.0, 1.0), number(1e-9, 1.0), number(0.0, 5.0)),
        prop_oneof![
            Just(CriticLoss::Mse),
            Just(CriticLoss::Huber),
            Just(CriticLoss::Pairwise)
        ],
        (any::<bool>(), any::<bool>()),
        (1usize..9, 0usize..99, 1usize..99),
        proptest::option::of("[ -~]{1,20}x"),
    )
        .prop_map(
            |(reward, spread, (gamma, lambda_gae, lr, value_weight), loss, (zero, joint), n, value_head)| {
                ScorerConfig::Critic(CriticConfig {
                    // Pairs are of right and wrong solutions, whatever else says how good they are.
                    reward: if loss == CriticLoss::Pairwise {
                        Reward::Verified
                    } else {
                        reward
                    },
                    spread,
                    gamma,
                    lambda_gae,
                    loss,
                    initial_value: if zero { InitialValue::Zero } else { InitialValue::Prompt },
                    value: if joint { ValueUse::Joint } else { ValueUse::Frozen },
                    epochs: n.0,
                    max_steps: n.1,
                    max_solutions: n.1,
                    validate_solutions: n.1 * 3,
                    patience: n.1 / 9,
                    batch: n.2,
                    lr,
                    value_weight,
                    value_head,
                })
            },
        );
    prop_oneof![Just(ScorerConfig::default()), rho1, critic]
}

fn recipe() -> impl Strategy<Value = Recipe> {
    // Names with quotes, colons, hashes and other characters that mean something in YAML.
    let text = || "[ -~äß→]{0,30}x";
    (
        scorer(),
        (text(), text(), text(), proptest::collection::vec(text(), 0..4)),
        (
            number(1e-9, 1.0),
            number(1e-6, 0.999),
            number(1e-12, 1e-3),
            number(0.0, 1.0),
        ),
        (number(1e-3, 1e6), number(1e-6, 0.99), number(1.001, 1e9)),
        (
            1usize..65,
            8usize..100_000,
            any::<bool>(),
            proptest::option::of(1usize..1000),
        ),
        (proptest::option::of((1usize..512, number(1e-3, 1e3))), any::<bool>()),
    )
        .prop_map(|(scorer, texts, optim, weights, sizes, (lora, by_target))| {
            let mut recipe = Recipe {
                scorer,
                ..Recipe::default()
            };
            recipe.model.base = texts.0;
            recipe.model.reference = Some(texts.1);
            recipe.model.reward = Some(texts.2);
            // A tag has a name: nothing but `=` and blanks would be refused.
            recipe.run.tags = texts.3.into_iter().map(|tag| format!("t{tag}")).collect();
            (
                recipe.optim.lr,
                recipe.optim.beta1,
                recipe.optim.eps,
                recipe.optim.warmup,
            ) = optim;
            (recipe.weights.temperature, recipe.weights.eps, recipe.weights.w_max) = weights;
            (
                recipe.model.mtp.n_heads,
                recipe.data.seq_len,
                recipe.data.pack,
                recipe.train.steps,
            ) = sizes;
            recipe.train.lora = lora.map(|(rank, alpha)| LoraConfig { rank, alpha });
            if by_target {
                recipe.loss.weight_by = WeightBy::Target;
            }
            recipe
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_resolved_recipe_read_back_is_the_same(recipe in recipe()) {
        let files = Files::new();
        let path = files.write("recipe.yaml", &recipe.to_yaml());
        // On top of another pipeline's recipe, too: everything is written out, nothing shines through.
        for pipeline in [None, Some(Pipeline::Critic)] {
            let again = Sources::new(pipeline).recipe(&path).load().map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(&again.recipe, &recipe);
        }
    }

    #[test]
    fn a_resolved_config_read_back_is_the_same(seed in 0..i64::MAX as u64, project in "[ -~ä]{0,20}x", cache in "[ -~]{1,20}") {
        let mut config = Config { seed, project, ..Config::default() };
        config.paths.cache = cache.into();
        let files = Files::new();
        let path = files.write("config.yaml", &config.to_yaml());
        let again = Sources::new(None).config(&path).load().map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(again.config, config);
    }
}
