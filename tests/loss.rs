//! The whole loss against finite differences and literal values.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{DType, Device, Tensor},
    train::TrainStep,
};
use wmtp::{
    data::{Batch, Document},
    scorer::{Needs, Normaliser, ScoreInput, Scorer, ScorerError, WeightGroup, WeightsConfig},
    train::{
        Assets, HeadOrder, LambdaMode, LossConfig, StepBatch, TokenWeighting, WeightBy, WeightedMtp,
        loss::{HeadHidden, HeadTargets, LossTerms, term_weights, weighted_loss},
        packed,
    },
};
use wmtp_model::{CausalLm, Companions, Compute, LlamaConfig, MtpLlama};

fn tiny(heads: usize) -> LlamaConfig {
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": 13, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        "max_position_embeddings": 64, "tie_word_embeddings": true, "eos_token_id": 0,
        "initializer_range": 0.3, "wmtp": {"n_heads": heads, "format": 1}
    });
    LlamaConfig::parse(&config.to_string()).expect("a valid configuration")
}

/// Two rows of 8: documents of 5 and 3 tokens, and one of 6 with two of padding.
fn batch() -> Batch {
    let document = |sample: usize, row: usize, start: usize, len: usize, prompt_len: usize| Document {
        sample,
        name: format!("document {sample}"),
        problem: sample as u32,
        row,
        start,
        len,
        prompt_len,
        reward: None,
    };
    let documents = vec![
        document(0, 0, 0, 5, 2),
        document(1, 0, 5, 3, 1),
        document(2, 1, 0, 6, 3),
    ];
    let mut batch = Batch {
        rows: 2,
        seq_len: 8,
        tokens: vec![3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 0, 0],
        positions: vec![0; 16],
        docs: vec![Batch::PADDING; 16],
        response: vec![false; 16],
        given: vec![1.0; 16],
        documents: documents.clone(),
    };
    for (i, d) in documents.iter().enumerate() {
        for t in 0..d.len {
            let at = d.row * 8 + d.start + t;
            batch.positions[at] = t as u32;
            batch.docs[at] = if d.row == 0 { i as i32 } else { 0 };
            batch.response[at] = t >= d.prompt_len;
        }
    }
    batch
}

fn weights() -> Vec<f32> {
    vec![
        1.0, 1.0, 0.5, 0.0, 2.5, 1.0, 0.25, 1.75, 1.0, 1.0, 1.0, 3.0, 0.0, 0.5, 1.0, 1.0,
    ]
}

fn loss(model: &MtpLlama, config: &LossConfig) -> Tensor<1> {
    let batch = batch();
    let input = packed(&batch, &model.device());
    let context = model.context(&input);
    let trunk = model.trunk(&input, &context);
    let hidden = (1..=model.n_heads())
        .map(|k| HeadHidden::everywhere(k, model.head(k, trunk.clone(), &context)))
        .collect();
    weighted_loss(
        hidden,
        model.unembedding(),
        &LossTerms::new(
            &batch,
            HeadTargets::of_heads(&batch, model.n_heads()),
            &weights(),
            config,
        ),
        batch.response_tokens(),
        config,
        Compute::default(),
    )
    .loss
}

/// Adds `delta` to one element of the `which`th parameter.
struct Nudge {
    which: usize,
    element: usize,
    delta: f64,
    seen: usize,
}

impl ModuleMapper for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.seen += 1;
        if self.seen - 1 != self.which {
            return param;
        }
        let (element, delta) = (self.element, self.delta);
        param.map(|tensor| {
            let (device, shape) = (tensor.device(), tensor.dims());
            let mut values = tensor.into_data().try_into_vec::<f64>().expect("f64 parameters");
            values[element] += delta;
            Tensor::from_data(burn::tensor::TensorData::new(values, shape), (&device, DType::F64))
        })
    }
}

/// Every parameter's gradient, flat, in visiting order.
struct Collect {
    grads: GradientsParams,
    values: Vec<Vec<f64>>,
}

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let size = param.lazy_shape().num_elements();
        let grad = self
            .grads
            .get::<D>(param.id)
            .map(|g| g.into_data().iter::<f64>().collect());
        self.values.push(grad.unwrap_or_else(|| vec![0.0; size]));
    }
}

#[test]
fn the_gradient_is_that_of_finite_differences() {
    for weight_by in [WeightBy::Position, WeightBy::Target] {
        let config = LossConfig {
            weight_by,
            lambda: 0.7,
            lambda_mode: LambdaMode::Mix,
            ..LossConfig::default()
        };
        let tracked = tiny(3).init_dtype(11, DType::F64, &Device::flex().autodiff().gradient_checkpointing());
        let grads = GradientsParams::from_grads(loss(&tracked, &config).backward(), &tracked);
        let mut collected = Collect {
            grads,
            values: Vec::new(),
        };
        tracked.visit(&mut collected);

        let plain = tiny(3).init_dtype(11, DType::F64, &Device::flex());
        let step = 1e-5;
        let mut checked = 0;
        for (which, grad) in collected.values.iter().enumerate() {
            for element in (0..grad.len()).step_by(1 + grad.len() / 7) {
                let at = |delta: f64| {
                    let moved = plain.clone().map(&mut Nudge {
                        which,
                        element,
                        delta,
                        seen: 0,
                    });
                    loss(&moved, &config).into_scalar::<f64>()
                };
                let numeric = (at(step) - at(-step)) / (2.0 * step);
                let error = (numeric - grad[element]).abs();
                assert!(
                    error < 1e-7 + 1e-5 * numeric.abs(),
                    "{weight_by:?}: parameter {which}, element {element}: {} instead of {numeric}",
                    grad[element]
                );
                checked += 1;
            }
        }
        assert!(checked > 200, "{checked} elements checked");
    }
}

/// Worked out by hand from the definition: row 0 holds documents 0 (tokens 0-4, response 2-4) and 1
/// (tokens 5-7, response 6-7); row 1 document 2 (tokens 0-5, response 3-5).
#[test]
fn targets_never_cross_documents_and_weights_follow_the_rule() {
    let batch = batch();
    let at = |k: usize| -> Vec<usize> { (0..16).filter(|&i| batch.valid(k)[i]).collect() };
    assert_eq!(at(1), [1, 2, 3, 5, 6, 10, 11, 12]);
    assert_eq!(at(2), [0, 1, 2, 5, 9, 10, 11]);
    assert_eq!(at(3), [0, 1, 8, 9, 10]);
    assert_eq!(batch.response_tokens(), 8);

    let w = weights();
    let by = |weight_by| LossConfig {
        weight_by,
        lambda: 1.0,
        lambda_mode: LambdaMode::Mix,
        ..LossConfig::default()
    };
    let position = term_weights(&batch, &w, 3, &by(WeightBy::Position));
    let target = term_weights(&batch, &w, 3, &by(WeightBy::Target));
    // Position 1 of row 0: its next token has weight 0.5, the one two ahead 0, three ahead 2.5.
    assert_eq!([position[1], position[17], position[33]], [0.5, 0.5, 0.5]);
    assert_eq!([target[1], target[17], target[33]], [0.5, 0.0, 2.5]);
    let half = LossConfig {
        lambda: 0.5,
        ..by(WeightBy::Target)
    };
    assert_eq!(term_weights(&batch, &w, 3, &half)[33], 0.5 + 0.5 * 2.5);
    let scaled = LossConfig {
        lambda: 0.5,
        lambda_mode: LambdaMode::Scale,
        ..by(WeightBy::Target)
    };
    assert_eq!(term_weights(&batch, &w, 3, &scaled)[33], 0.5 * 2.5);
}

/// With lambda 0 the loss is the plain mean over heads and tokens, whatever the weights.
#[test]
fn lambda_zero_is_the_uniform_baseline() {
    let model = tiny(2).init_dtype(5, DType::F64, &Device::flex());
    let batch = batch();
    let input = packed(&batch, &model.device());
    let context = model.context(&input);
    let trunk = model.trunk(&input, &context);
    let mut expected = 0.0;
    for k in 1..=2 {
        let logits = model.logits(model.head(k, trunk.clone(), &context));
        let values = logits.into_data().try_into_vec::<f64>().expect("f64 logits");
        for i in (0..16).filter(|&i| batch.valid(k)[i]) {
            let row = &values[i * 13..(i + 1) * 13];
            let sum: f64 = row.iter().map(|x| x.exp()).sum();
            expected += sum.ln() - row[batch.tokens[i + k] as usize];
        }
    }
    expected /= 2.0 * 8.0;
    let config = LossConfig {
        lambda: 0.0,
        ..LossConfig::default()
    };
    let found = loss(&model, &config).into_scalar::<f64>();
    assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
}

/// The first 9 parameters after the embedding belong to a decoder layer each; with `heads_only` no
/// parameter outside heads 2..H gets a gradient, and theirs are the very ones they have otherwise.
#[test]
fn only_the_extra_heads_learn_while_they_warm_up() {
    let config = LossConfig::default();
    let device = Device::flex().autodiff();
    let whole = tiny(3).init_dtype(11, DType::F64, &device);
    let collect = |model: &MtpLlama| {
        let grads = GradientsParams::from_grads(loss(model, &config).backward(), &whole);
        let mut found = Collect {
            grads,
            values: Vec::new(),
        };
        whole.visit(&mut found);
        found.values
    };
    let all = collect(&whole);
    let some = collect(&whole.clone().only_extra_heads_learn());
    // Visiting order: embedding, the trunk's layer (9 tensors), head 1, head 2, head 3, norm.
    assert_eq!(all.len(), 1 + 9 + 3 * 9 + 1);
    for (i, (all, some)) in all.iter().zip(&some).enumerate() {
        assert!(all.iter().any(|g| *g != 0.0), "parameter {i} learns otherwise");
        if (19..37).contains(&i) {
            assert_eq!(all, some, "parameter {i} of a fresh head");
        } else {
            assert!(some.iter().all(|g| *g == 0.0), "parameter {i} is at rest");
        }
    }
}

/// A token's place in its response, whatever is computed for it.
struct Place(Needs);

impl Scorer for Place {
    fn name(&self) -> &str {
        "place"
    }

    fn needs(&self) -> Needs {
        self.0
    }

    fn score(&mut self, input: &ScoreInput<'_>) -> Result<Vec<f32>, ScorerError> {
        assert_eq!([input.hidden.is_some(), input.ce.is_some()], [self.0.hidden, self.0.ce]);
        let mut scores = vec![0.0; input.batch.tokens.len()];
        for document in &input.batch.documents {
            for (place, i) in document.response(input.batch.seq_len).enumerate() {
                scores[i] = place as f32;
            }
        }
        Ok(scores)
    }
}

/// Gradients of a step of two micro-batches through the learner.
fn learned(dtype: DType, needs: Needs, over: WeightGroup, heads: HeadOrder) -> Vec<Vec<f64>> {
    let model = tiny(3).init_dtype(11, dtype, &Device::flex().autodiff());
    let normaliser = Normaliser::new(WeightsConfig::default()).expect("the default settings");
    let loss = LossConfig::default();
    let weighting = TokenWeighting::new(Box::new(Place(needs)), normaliser, over, loss, None);
    let assets = Assets {
        companions: Companions::default(),
        model_hash: String::new(),
        lora: None,
    };
    let module = WeightedMtp::new(model.clone(), None, weighting, assets).with_heads(heads);
    // f32 on flex attends document by document.
    let laid_out = || {
        if model.attends_by_document() {
            batch().ragged()
        } else {
            batch()
        }
    };
    let step = StepBatch {
        micro_batches: vec![laid_out(), laid_out()],
        ..StepBatch::default()
    };
    let out = TrainStep::step(&module, step);
    assert!(out.item.failure.is_none());
    let mut found = Collect {
        grads: out.grads,
        values: Vec::new(),
    };
    model.visit(&mut found);
    found.values
}

/// Heads one after another, head 1 everywhere or where it is needed, batches with padding (f64) or
/// without (f32): one and the same gradient.
#[test]
fn how_a_step_is_computed_does_not_change_its_gradients() {
    let need = |hidden, ce| Needs { hidden, ce };
    for over in [WeightGroup::Document, WeightGroup::Step] {
        let expected = learned(DType::F64, need(true, true), over, HeadOrder::Together);
        assert!(expected.iter().all(|values| values.iter().any(|g| *g != 0.0)));
        for (dtype, bound) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            for needs in [need(false, false), need(false, true), need(true, false)] {
                for heads in [HeadOrder::Together, HeadOrder::Sequential] {
                    let found = learned(dtype, needs, over, heads);
                    assert_eq!(found.len(), expected.len());
                    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        let size = expected.iter().fold(0.0f64, |a, b| a.max(b.abs()));
                        let error = found
                            .iter()
                            .zip(expected)
                            .map(|(f, e)| (f - e).abs())
                            .fold(0.0, f64::max);
                        assert!(
                            error <= bound * size,
                            "{dtype:?}, {needs:?}, {over:?}, {heads:?}, parameter {i}: {error:e} of {size:e}"
                        );
                    }
                }
            }
        }
    }
}
