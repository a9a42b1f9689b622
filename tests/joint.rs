//! `scorer.value: joint`: a value head that learns along with the model.

mod common;

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Tensor},
    train::TrainStep,
};
use common::{lines, succeed, weights, wmtp};
use safetensors::SafeTensors;
use std::{collections::BTreeSet, fs, path::Path};
use wmtp::{
    data::{Batch, DataConfig, Dataset, Tokenized, Tokenizer},
    scorer::{
        CriticConfig, CriticLoss, Needs, Normaliser, ScoreInput, Scorer, ScorerError, Verified, WeightGroup,
        WeightsConfig,
    },
    train::{
        Assets, CurrentHead, JointValue, LossConfig, StepBatch, TokenWeighting, WeightedMtp, assign_stable_ids, packed,
    },
};
use wmtp_model::{CausalLm, Companions, LlamaConfig, LoadOptions, MtpLlama, ValueHead};

const SIZE: usize = 8;

fn tiny() -> LlamaConfig {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": 13, "hidden_size": SIZE, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "eos_token_id": 0,
        "initializer_range": 0.3, "wmtp": {"n_heads": 2, "format": 1}
    });
    LlamaConfig::parse(&config.to_string()).expect("a valid configuration")
}

/// One row with one document for every (problem, right, tokens).
fn batch(documents: &[(u32, bool, &[u32])]) -> Batch {
    let documents = documents
        .iter()
        .enumerate()
        .map(|(sample, &(problem, right, tokens))| Tokenized {
            sample,
            name: format!("document {sample}"),
            problem,
            tokens: tokens.to_vec(),
            prompt_len: 2,
            untrained: Vec::new(),
            given: Vec::new(),
            reward: Some(f32::from(u8::from(right))),
        });
    let data = Dataset::from_tokenized(documents.collect(), 16, true).expect("documents");
    data.in_order(1).step(0).expect("documents").remove(0)
}

/// Right and wrong solutions of problem 1 lie in two micro-batches.
fn labelled() -> Vec<Batch> {
    vec![
        batch(&[(1, true, &[3, 1, 4, 1, 5]), (2, false, &[2, 7, 1, 8])]),
        batch(&[
            (1, false, &[3, 1, 9, 2]),
            (2, true, &[2, 7, 1, 8, 2, 8]),
            (1, false, &[3, 1, 5]),
        ]),
    ]
}

/// Scores of 0: all weights are 1.
struct Nothing;

impl Scorer for Nothing {
    fn name(&self) -> &str {
        "nothing"
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        Ok(vec![0.0; input.batch.tokens.len()])
    }
}

fn module(model: MtpLlama, head: ValueHead, config: &CriticConfig) -> (WeightedMtp, CurrentHead) {
    let current = CurrentHead::new(ValueHead::init(SIZE, 99, &Device::flex()));
    let joint = JointValue::new(config.clone(), current.clone(), Box::new(Verified));
    let normaliser = Normaliser::new(WeightsConfig::default()).expect("the default settings");
    let weighting = TokenWeighting::new(
        Box::new(Nothing),
        normaliser,
        WeightGroup::Document,
        LossConfig::default(),
        Some(joint),
    );
    let assets = Assets {
        companions: Companions::default(),
        model_hash: String::new(),
        lora: None,
    };
    let value = head.trainable(&model.device());
    (
        assign_stable_ids(WeightedMtp::new(model, Some(value), weighting, assets)),
        current,
    )
}

fn step(labelled: Vec<Batch>, heads_only: bool) -> StepBatch {
    StepBatch {
        micro_batches: vec![batch(&[(7, true, &[5, 6, 7, 8, 9])])],
        labelled,
        heads_only,
        ..StepBatch::default()
    }
}

/// Every parameter's gradient, flat, in visiting order; empty where there is none.
struct Collect<'a> {
    grads: &'a GradientsParams,
    values: Vec<Vec<f64>>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let grad = self.grads.get::<D>(param.id);
        self.values
            .push(grad.map(|g| g.into_data().iter::<f64>().collect()).unwrap_or_default());
    }
}

fn gradients<M: Module>(of: &M, grads: &GradientsParams) -> Vec<Vec<f64>> {
    let mut collect = Collect {
        grads,
        values: Vec::new(),
    };
    of.visit(&mut collect);
    collect.values
}

/// A value head in f64, from its file: linear, ReLU, linear.
#[derive(Clone)]
struct Head([Vec<f64>; 4]);

impl Head {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let read = |name: &str| -> Vec<f64> {
            let tensor = tensors.tensor(&format!("value_head.{name}")).expect("a tensor");
            let (values, _) = tensor.data().as_chunks::<4>();
            values
                .iter()
                .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
                .collect()
        };
        Self(["0.weight", "0.bias", "2.weight", "2.bias"].map(read))
    }

    fn of(head: &ValueHead) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("value_head.safetensors");
        head.save(&path, "").expect("the head can be saved");
        Self::read(&path)
    }

    fn value(&self, hidden: &[f64]) -> f64 {
        let [w0, b0, w2, b2] = &self.0;
        let inner = b0.iter().zip(w0.chunks(hidden.len())).map(|(bias, row)| {
            let sum: f64 = row.iter().zip(hidden).map(|(w, h)| w * h).sum();
            (sum + bias).max(0.0)
        });
        inner.zip(w2).map(|(x, w)| x * w).sum::<f64>() + b2[0]
    }
}

/// Head 1's hidden states, a vector a token.
fn hidden(model: &MtpLlama, batch: &Batch) -> Vec<Vec<f64>> {
    let model = model.valid();
    let input = packed(batch, &model.device());
    let context = model.context(&input);
    let states = model.head(1, model.trunk(&input, &context), &context);
    let size = states.dims()[2];
    let flat: Vec<f64> = states.into_data().iter::<f64>().collect();
    flat.chunks(size).map(<[f64]>::to_vec).collect()
}

/// The value loss from hidden states, by its definition: with a terminal reward and gamma = lambda = 1
/// the target of every token, from the prompt's last one on, is the label.
fn loss(head: &Head, batches: &[Batch], hidden: &[Vec<Vec<f64>>], of: CriticLoss) -> f64 {
    let mut squares = Vec::new();
    let mut means: Vec<(u32, bool, f64)> = Vec::new();
    for (batch, hidden) in batches.iter().zip(hidden) {
        for document in &batch.documents {
            let right = document.reward == Some(1.0);
            let target = f64::from(u8::from(right));
            let response = document.response(batch.seq_len);
            let values: Vec<f64> = (response.start - 1..response.end)
                .map(|i| head.value(&hidden[i]))
                .collect();
            squares.extend(values.iter().map(|v| (v - target).powi(2)));
            let mean = values[1..].iter().sum::<f64>() / (values.len() - 1) as f64;
            means.push((document.problem, right, mean));
        }
    }
    if of == CriticLoss::Mse {
        return squares.iter().sum::<f64>() / squares.len() as f64;
    }
    let mut pairs = Vec::new();
    for (problem, _, right) in means.iter().filter(|(_, right, _)| *right) {
        for (_, _, wrong) in means.iter().filter(|(p, right, _)| p == problem && !right) {
            pairs.push((1.0 + (wrong - right).exp()).ln());
        }
    }
    pairs.iter().sum::<f64>() / pairs.len() as f64
}

fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-4f64, |a, b| a.max(b.abs()));
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() < 2e-3 * scale, "{what}: {found:?}\nand not {expected:?}");
    }
}

#[test]
fn the_gradient_is_that_of_the_value_loss_over_labelled_solutions() {
    let device = Device::flex().autodiff();
    let model = tiny().init(5, &device);
    let head = ValueHead::init(SIZE, 3, &Device::flex());
    let exact = Head::of(&head);
    for of in [CriticLoss::Mse, CriticLoss::Pairwise] {
        let config = CriticConfig {
            loss: of,
            value_weight: 0.25,
            ..CriticConfig::default()
        };
        let (joint, current) = module(model.clone(), head.clone(), &config);
        let out = TrainStep::step(&joint, step(labelled(), false));
        assert!(out.item.failure.is_none());
        let states: Vec<_> = labelled().iter().map(|batch| hidden(&model, batch)).collect();
        let expected = loss(&exact, &labelled(), &states, of);
        let found = out.item.value_loss.expect("a value loss");
        assert!((found - expected).abs() < 1e-5, "{of:?}: {found} and not {expected}");

        // Every tensor of the head, by finite differences.
        let value = joint.value.as_ref().expect("a value head");
        let found = gradients(value, &out.grads);
        for (tensor, found) in found.iter().enumerate() {
            let expected: Vec<f64> = (0..exact.0[tensor].len())
                .map(|element| {
                    let at = |delta: f64| {
                        let mut moved = exact.clone();
                        moved.0[tensor][element] += delta;
                        loss(&moved, &labelled(), &states, of)
                    };
                    config.value_weight * (at(1e-5) - at(-1e-5)) / 2e-5
                })
                .collect();
            assert_close(found, &expected, &format!("{of:?}, tensor {tensor} of the head"));
        }

        // The model's gradient is the token loss's and, on top, this loss's: here of the final norm, which
        // multiplies the hidden states element by element.
        let (alone, _) = module(model.clone(), head.clone(), &config);
        let without = TrainStep::step(&alone, step(Vec::new(), false));
        assert_eq!(without.item.value_loss, None);
        assert!(
            gradients(alone.value.as_ref().expect("a head"), &without.grads)
                .iter()
                .all(Vec::is_empty)
        );
        assert_eq!(out.item.loss, without.item.loss);
        let with = gradients(&joint.model, &out.grads);
        let without = gradients(&alone.model, &without.grads);
        let norm = with.len() - 1;
        assert_eq!(with[norm].len(), SIZE);
        let found: Vec<f64> = with[norm].iter().zip(&without[norm]).map(|(a, b)| a - b).collect();
        let expected: Vec<f64> = (0..SIZE)
            .map(|element| {
                // The norm's weights are 1 in a fresh model.
                let at = |delta: f64| {
                    let mut moved = states.clone();
                    moved.iter_mut().flatten().for_each(|h| h[element] *= 1.0 + delta);
                    loss(&exact, &labelled(), &moved, of)
                };
                config.value_weight * (at(1e-5) - at(-1e-5)) / 2e-5
            })
            .collect();
        assert_close(&found, &expected, &format!("{of:?}, the final norm"));

        // The scorer's head is this one, not the one that it was made with.
        assert_eq!(Head::of(&current.get()).0, exact.0);
        // While only extra heads learn, the value head does, too, and the trunk rests.
        let out = TrainStep::step(&joint, step(labelled(), true));
        assert!(gradients(value, &out.grads).iter().all(|g| !g.is_empty()));
        assert!(gradients(&joint.model, &out.grads)[norm].is_empty());
    }
}

/// A run of the critic pipeline with a joint head.
fn train(home: &Path, name: &str, steps: usize, set: &[&str]) {
    let mut command = wmtp(home);
    command.args(["train", "critic", "--plain", "--output", "runs", "--run-name", name]);
    command.args(["--max-steps", &steps.to_string()]);
    let joint = [
        "scorer.value=joint",
        "scorer.max_steps=3",
        "scorer.lr=0.003",
        "data.seq_len=256",
        "data.train_tasks=[602,640]",
        "data.valid_tasks=[511,516]",
        "batching.micro_batch=1",
        "model.mtp.n_heads=2",
    ];
    command.args(joint.iter().chain(set).flat_map(|set| ["--set", set]));
    succeed(&mut command);
}

#[test]
fn the_head_learns_and_the_scorer_reads_it() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    for (name, set) in [
        (
            "mse",
            &["train.head_warmup={steps: 2, lr: 0.01}", "weights.over=step"][..],
        ),
        ("pairwise", &["scorer.loss=pairwise", "train.lora={rank: 2}"]),
    ] {
        train(home, name, 6, set);
        let run = home.join("runs").join(name);
        let first = Head::read(&run.join("critic/value_head.safetensors"));
        let last = Head::read(&run.join("checkpoints/last/value_head.safetensors"));
        for (tensor, (a, b)) in first.0.iter().zip(&last.0).enumerate() {
            let moved = a.iter().zip(b).fold(0.0f64, |most, (a, b)| most.max((a - b).abs()));
            // The last bias of `pairwise` has no gradient but rounding noise.
            assert!(
                moved > 1e-5 || (name == "pairwise" && tensor == 3),
                "{name}, tensor {tensor}: {moved}"
            );
        }
        let metrics = lines(&run.join("metrics.jsonl"));
        let steps: Vec<_> = metrics.iter().filter(|line| line.get("loss").is_some()).collect();
        assert!(steps.iter().all(|line| line["value_loss"].is_f64()), "{name}");
        // Its own peak and the cosine of `optim` over all steps, whatever the model's rate does.
        let rates: Vec<f64> = steps.iter().filter_map(|line| line["value_lr"].as_f64()).collect();
        let cosine = |i: usize| 0.0015 * (1.0 + (std::f64::consts::PI * i as f64 / 5.0).cos());
        assert_eq!(rates.len(), 6, "{name}");
        assert!((rates[0] - 0.003).abs() < 1e-12, "one step of warm-up: {rates:?}");
        for (i, rate) in rates[1..].iter().enumerate() {
            assert!((rate - cosine(i)).abs() < 1e-12, "{name}: {rates:?}");
        }

        // Every step has labelled solutions, right ones and wrong ones.
        let recorded = lines(&run.join("steps.jsonl"));
        for step in &recorded[1..] {
            let samples = step["labelled"].as_array().expect("labelled solutions").iter();
            let kinds: BTreeSet<bool> = samples
                .flat_map(|batch| batch.as_array().expect("a list"))
                .map(|sample| recorded[0]["labelled"][sample.to_string()].as_str().expect("a name"))
                .map(|name| name.ends_with("-right"))
                .collect();
            assert_eq!(kinds.len(), 2, "{name}: {step}");
        }
    }

    // The values in `tokens.jsonl` are those of the head of that moment on the model of that moment.
    let run = home.join("runs/mse");
    let tokens = lines(&run.join("tokens.jsonl"));
    for (step, model, head) in [
        (0, None, run.join("critic/value_head.safetensors")),
        (6, Some("last"), run.join("checkpoints/last/value_head.safetensors")),
    ] {
        let dir = match model {
            Some(name) => run.join("checkpoints").join(name),
            None => home.join("cache/builtin/micro-1"),
        };
        let options = LoadOptions {
            n_heads: Some(2),
            ..LoadOptions::default()
        };
        let model = wmtp_model::load(&dir, &options, &Device::flex()).expect("a model");
        let tokenizer = Tokenizer::load(&dir).expect("a tokenizer");
        let data = DataConfig {
            seq_len: 256,
            train_tasks: (602, 640),
            valid_tasks: (511, 516),
            ..DataConfig::default()
        };
        let documents = wmtp::eval::bench::mbpp::training::problems(&data, &tokenizer)
            .expect("data")
            .train;
        let head = Head::read(&head);
        let mut compared = 0;
        for line in tokens
            .iter()
            .filter(|line| line["step"] == step && line["split"] == "train")
        {
            let document = documents
                .documents()
                .map(|document| document.expect("in memory"))
                .find(|d| d.name == line["document"])
                .expect("a document");
            let alone = Dataset::from_tokenized(vec![document.clone().into_owned()], document.tokens.len(), true)
                .expect("data");
            let states = hidden(&model, &alone.in_order(1).step(0).expect("data")[0]);
            let values = line["scores"]["value"].as_array().expect("values");
            for (value, state) in values.iter().zip(&states[document.prompt_len..]) {
                let (found, expected) = (value.as_f64().expect("a value"), head.value(state));
                assert!(
                    (found - expected).abs() < 1e-3,
                    "step {step}: {found} and not {expected}"
                );
                compared += 1;
            }
        }
        assert!(compared > 20, "{compared}");
    }
}

#[test]
fn a_resumed_run_has_the_same_head_bit_for_bit() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    train(home, "whole", 5, &["train.checkpoint={every: 1, keep: 0}"]);
    train(home, "killed", 5, &["train.checkpoint={every: 1, keep: 0}"]);
    // As a kill after the second step leaves it.
    let checkpoints = home.join("runs/killed/checkpoints");
    for entry in fs::read_dir(&checkpoints).expect("checkpoints") {
        let path = entry.expect("an entry").path();
        if !path.ends_with("step-000002") {
            fs::remove_dir_all(path).expect("a checkpoint");
        }
    }
    let mut resumed = wmtp(home);
    resumed.args(["train", "critic", "--plain", "--output", "runs", "--resume", "killed"]);
    succeed(&mut resumed);
    let (whole, killed) = (home.join("runs/whole"), home.join("runs/killed"));
    assert!(weights(&whole, "last") == weights(&killed, "last"));
    let head = |run: &Path| fs::read(run.join("checkpoints/last/value_head.safetensors")).expect("a value head");
    assert!(head(&whole) == head(&killed));
    let steps = |run: &Path| fs::read_to_string(run.join("steps.jsonl")).expect("steps");
    assert_eq!(steps(&whole), steps(&killed));
    assert!(head(&whole) != fs::read(whole.join("critic/value_head.safetensors")).expect("stage 1's"));
}

#[test]
fn what_would_teach_a_constant_is_refused_by_name() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let home = home.path();
    let refused = |set: &[&str]| {
        let mut command = wmtp(home);
        command.args(["train", "critic", "--plain", "--output", "runs", "--max-steps", "2"]);
        command.args(set.iter().flat_map(|set| ["--set", set]));
        let output = command.output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        said
    };
    let said = refused(&["scorer.loss=pairwise", "scorer.reward=pseudo"]);
    assert!(
        said.contains("scorer.loss") && said.contains("reward: verified"),
        "{said}"
    );

    // Data whose solutions are all right.
    let data = home.join("data");
    fs::create_dir(&data).expect("a folder");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mbpp");
    fs::copy(shipped.join("mbpp.jsonl"), data.join("mbpp.jsonl")).expect("a file");
    let pairs = fs::read_to_string(shipped.join("mbpp_pairs.jsonl")).expect("the solutions");
    let right: Vec<&str> = pairs
        .lines()
        .filter(|line| line.contains("\"is_correct\": true"))
        .collect();
    assert!(!right.is_empty());
    fs::write(data.join("mbpp_pairs.jsonl"), right.join("\n")).expect("a file");
    let said = refused(&["scorer.value=joint", "scorer.max_steps=1", "data.source=data"]);
    assert!(
        said.contains("`scorer.value` is `joint`") && said.contains("all right or all wrong"),
        "{said}"
    );
}
