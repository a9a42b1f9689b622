//! What a model is, read from `config.json` under transformers' field names.
//!
//! Only decoders of Llama's kind are accepted, of the families of `decoder::families`: anything that would
//! compute something else (biases of the MLP, other activations, other families) is named in one error instead
//! of being ignored; see also [`crate::LayerSpec`].
//! Fields that this crate does not use are kept and written back unchanged. No tensor is touched here.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::decoder::{FAMILIES, Family};
use crate::error::{ModelError, Problems};
use crate::fast_llm;
use crate::fields::Fields;
use crate::file_content::other_content;
use crate::fp8;
use crate::missing_file;
use crate::rope_fields::{read_rope, rope_json};

/// Version of the `"wmtp"` block that this crate writes.
const FORMAT: u64 = 1;

/// Upper bound for every size in a configuration: a typing error must not become an allocation.
const LARGEST: usize = 1 << 24;
/// The same for layers and heads, of which each has tensors of its own.
const MOST_LAYERS: usize = 1 << 12;

/// Types of numbers that `dtype` and `torch_dtype` may name, as torch names them; `auto` leaves the choice to the
/// reader. The stored weights say themselves what they are.
const TYPES: [&str; 12] = [
    "auto",
    "bfloat16",
    "double",
    "float",
    "float16",
    "float32",
    "float64",
    "float8_e4m3fn",
    "float8_e5m2",
    "half",
    "int8",
    "uint8",
];

/// How rotary frequencies are stretched for long contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as they are.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Dynamic NTK scaling (by the Reddit users bloc97 and emozilla): in texts longer than
    /// `max_position_embeddings` the base grows with the length of the text; shorter ones are as without
    /// scaling.
    Dynamic {
        /// How fast the base grows.
        factor: f64,
        /// `max_position_embeddings`, in tokens.
        max_position_embeddings: f64,
    },
    /// YaRN (Peng et al. 2023, arXiv 2309.00071): low frequencies divided by `factor`, high ones kept, a ramp
    /// over the dimensions between, and queries and keys scaled.
    Yarn(Yarn),
    /// Llama 3.1's rule: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// The divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context length of the first training, in tokens.
        original_max_position_embeddings: f64,
    },
}

/// The settings of YaRN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yarn {
    /// The divisor of the low frequencies.
    pub factor: f64,
    /// Context length of the first training, in tokens.
    pub original_max_position_embeddings: f64,
    /// Dimensions that turn more often than this within the original length keep their frequency.
    pub beta_fast: f64,
    /// Dimensions that turn less often than this within the original length are divided.
    pub beta_slow: f64,
    /// Factor of cosines and sines, stated or the one of the scaling.
    pub attention_factor: f64,
    /// What the file states about that factor.
    pub scale: YarnScale,
    /// Whether the ramp begins and ends at whole dimensions.
    pub truncate: bool,
}

impl Yarn {
    /// `beta_fast` where a file does not name it.
    pub(crate) const BETA_FAST: f64 = 32.0;
    /// `beta_slow` where a file does not name it.
    pub(crate) const BETA_SLOW: f64 = 1.0;
}

/// How a file states the factor of cosines and sines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum YarnScale {
    /// Not at all: `0.1 ln(factor) + 1`.
    Paper,
    /// As `attention_factor`.
    Stated,
    /// As `mscale` and `mscale_all_dim`: the ratio of `0.1 mscale ln(factor) + 1` to the same with the other.
    Ratio {
        /// `mscale`.
        mscale: f64,
        /// `mscale_all_dim`.
        mscale_all_dim: f64,
    },
}

impl YarnScale {
    /// The factor for a divisor of the frequencies; none where it is stated as such.
    pub(crate) fn factor(self, factor: f64) -> Option<f64> {
        let of = |scale: f64| {
            if factor <= 1.0 {
                1.0
            } else {
                0.1 * scale * factor.ln() + 1.0
            }
        };
        match self {
            Self::Paper => Some(of(1.0)),
            Self::Stated => None,
            Self::Ratio { mscale, mscale_all_dim } => Some(of(mscale) / of(mscale_all_dim)),
        }
    }
}

/// Rotary position embedding (Su et al. 2021, arXiv 2104.09864).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Stretching for long contexts.
    pub scaling: RopeScaling,
}

/// A multi-token Llama: transformers' fields, plus the number of prediction heads.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// V, rows of the embedding.
    pub vocab_size: usize,
    /// D, width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// L, decoder layers seen through head 1 (the trunk has L - 1).
    pub num_hidden_layers: usize,
    /// Query heads of the attention.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of one attention head; even.
    pub head_dim: usize,
    /// Longest sequence that the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// Whether the unembedding is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Token that starts a text, where the model has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Standard deviation of freshly drawn weights.
    pub initializer_range: f64,
    /// H, prediction heads; 1 is an ordinary Llama.
    pub n_heads: usize,
    /// Whether heads 2..H have final norms of their own, as those of Fast-LLM; else they share that of head 1.
    pub head_norms: bool,
    /// The whole document as read, so that saving keeps what is not used here.
    pub other: Map<String, Value>,
}

impl LlamaConfig {
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// The file cannot be read, is not JSON, or describes something else than a plain Llama.
    pub fn read(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("config.json");
        let text = std::fs::read(&path).map_err(|source| missing_file::config(dir, source))?;
        let text = String::from_utf8_lossy(&text);
        Self::parse_named(&text, &path.display().to_string())
    }

    /// Parses the text of a `config.json`.
    ///
    /// # Errors
    /// The text is not JSON or describes something else than a plain Llama; all reasons are listed.
    pub fn parse(json: &str) -> Result<Self, ModelError> {
        Self::parse_named(json, "the configuration")
    }

    fn parse_named(text: &str, place: &str) -> Result<Self, ModelError> {
        let fail = |problems: Vec<String>| ModelError::Config {
            place: place.to_owned(),
            problems: Problems(problems),
        };
        let mut other = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(map)) => map,
            Ok(_) => return Err(fail(vec!["it is not a JSON object".to_owned()])),
            Err(error) => {
                let other = other_content(text.as_bytes()).map(str::to_owned);
                return Err(fail(vec![
                    other.unwrap_or_else(|| format!("it is not valid JSON ({error})")),
                ]));
            }
        };
        fast_llm::to_llama(&mut other);
        let mut fields = Fields::new(&other);
        let config = Self::from_fields(&mut fields, &other);
        check_type(&mut fields);
        // It makes a list of all layers.
        if config.num_hidden_layers <= MOST_LAYERS {
            config.check_layer_spec(&mut fields);
        }
        config.check(&mut fields);
        if fields.problems.is_empty() {
            Ok(config)
        } else {
            Err(fail(fields.problems))
        }
    }

    fn from_fields(fields: &mut Fields<'_>, other: &Map<String, Value>) -> Self {
        let family = family(fields);
        let defaults = &family.defaults;
        let (n_heads, head_norms) = read_wmtp(fields);
        let hidden_size = fields.size("hidden_size", None);
        let num_attention_heads = fields.size("num_attention_heads", None);
        let head_dim = hidden_size.checked_div(num_attention_heads).unwrap_or(0);
        // Null stands for what follows from the other sizes, absence for the family's default.
        let or_default = |fields: &Fields<'_>, name: &str, follows: usize, default: Option<usize>| match default {
            Some(default) if !fields.is_null(name) => default,
            _ => follows,
        };
        let head_dim = or_default(fields, "head_dim", head_dim, defaults.head_dim);
        let key_value_heads = defaults.num_key_value_heads;
        let key_value_heads = or_default(fields, "num_key_value_heads", num_attention_heads, key_value_heads);
        let max_position_embeddings = fields.size("max_position_embeddings", Some(defaults.max_position_embeddings));
        Self {
            vocab_size: fields.size("vocab_size", None),
            hidden_size,
            intermediate_size: fields.size("intermediate_size", None),
            num_hidden_layers: fields.size("num_hidden_layers", None),
            num_attention_heads,
            num_key_value_heads: fields.size("num_key_value_heads", Some(key_value_heads)),
            head_dim: fields.size("head_dim", Some(head_dim)),
            max_position_embeddings,
            rms_norm_eps: fields.number("rms_norm_eps", Some(1e-6)),
            rope: read_rope(fields, max_position_embeddings, defaults.rope_theta),
            tie_word_embeddings: fields.flag("tie_word_embeddings", defaults.tie_word_embeddings),
            bos_token_id: fields.tokens("bos_token_id", defaults.bos_token_id).first().copied(),
            eos_token_ids: fields.tokens("eos_token_id", defaults.eos_token_id),
            initializer_range: fields.number("initializer_range", Some(0.02)),
            n_heads,
            head_norms,
            other: other.clone(),
        }
    }

    /// Relations between fields; single fields have been checked while reading.
    fn check(&self, fields: &mut Fields<'_>) {
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
            ("wmtp.n_heads", self.n_heads),
        ] {
            // A missing field was reported when it was read.
            let reported = fields.problems.iter().any(|problem| problem.contains(name));
            let most = match name {
                "num_hidden_layers" | "wmtp.n_heads" => MOST_LAYERS,
                _ => LARGEST,
            };
            if !reported && !(1..=most).contains(&value) {
                fields.problem(format!("`{name}` is {value}, it must be from 1 to {most}"));
            }
        }
        if self.num_attention_heads.saturating_mul(self.head_dim) > LARGEST {
            fields.problem(format!(
                "`num_attention_heads` ({}) times `head_dim` ({}) must be at most {LARGEST}",
                self.num_attention_heads, self.head_dim
            ));
        }
        if self.num_key_value_heads > 0 && !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            fields.problem(format!(
                "`num_attention_heads` ({}) is not a multiple of `num_key_value_heads` ({})",
                self.num_attention_heads, self.num_key_value_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            fields.problem(format!(
                "`head_dim` is {}, rotary embedding needs an even one",
                self.head_dim
            ));
        }
        for (name, value) in [("rms_norm_eps", self.rms_norm_eps), ("rope_theta", self.rope.theta)] {
            if !(value > 0.0 && value.is_finite()) {
                fields.problem(format!("`{name}` is {value}, it must be above 0"));
            }
        }
        // It is added to a mean of squares: a larger one would leave nothing of them.
        if self.rms_norm_eps > 1.0 && self.rms_norm_eps.is_finite() {
            fields.problem(format!("`rms_norm_eps` is {}, it must be 1 or less", self.rms_norm_eps));
        }
        if !(self.initializer_range >= 0.0 && self.initializer_range.is_finite()) {
            fields.problem(format!(
                "`initializer_range` is {}, it must not be negative",
                self.initializer_range
            ));
        }
    }

    /// The blocks of stored weights in 8 bits that have a scale of their own, where the file names their size.
    pub(crate) fn scale_blocks(&self) -> Option<[usize; 2]> {
        fp8::read_blocks(&mut Fields::new(&self.other))
    }

    /// Width of all query heads together.
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// The longest side of the linear maps that adapters are for. No matrix of such a map has a higher rank, so an
    /// adapter of a higher one would only take memory.
    pub fn largest_rank(&self) -> usize {
        [
            self.hidden_size,
            self.intermediate_size,
            self.query_size(),
            self.key_value_size(),
        ]
        .into_iter()
        .fold(0, usize::max)
    }

    /// Width of all key heads together, and of all value heads.
    pub fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Number of weights of all L + H - 1 decoder layers, embedding, final norm and (if it is not
    /// tied) unembedding.
    pub fn num_params(&self) -> usize {
        let tensors = self.all_tensors();
        tensors.iter().map(|spec| spec.shape.iter().product::<usize>()).sum()
    }

    /// The document for `config.json`: everything that was read, with the fields of this struct
    /// written over it, so that transformers loads the directory as a model of the same family.
    pub fn to_json(&self, torch_dtype: &str) -> Value {
        let mut map = self.other.clone();
        let mut set = |name: &str, value: Value| {
            map.insert(name.to_owned(), value);
        };
        let family = self.family();
        set("architectures", json!([family.architectures[0]]));
        set("model_type", json!(family.model_type));
        set("hidden_act", json!("silu"));
        set("vocab_size", json!(self.vocab_size));
        set("hidden_size", json!(self.hidden_size));
        set("intermediate_size", json!(self.intermediate_size));
        set("num_hidden_layers", json!(self.num_hidden_layers));
        set("num_attention_heads", json!(self.num_attention_heads));
        set("num_key_value_heads", json!(self.num_key_value_heads));
        set("head_dim", json!(self.head_dim));
        set("max_position_embeddings", json!(self.max_position_embeddings));
        set("rms_norm_eps", json!(self.rms_norm_eps));
        set("initializer_range", json!(self.initializer_range));
        set("tie_word_embeddings", json!(self.tie_word_embeddings));
        set("bos_token_id", json!(self.bos_token_id));
        set(
            "eos_token_id",
            match self.eos_token_ids.as_slice() {
                [] => Value::Null,
                [one] => json!(one),
                many => json!(many),
            },
        );
        let mut heads = json!({"n_heads": self.n_heads, "format": FORMAT});
        if self.head_norms {
            heads["head_norms"] = json!(true);
        }
        set("wmtp", heads);
        // Both spellings, so that transformers before and after version 5 read the same rotary embedding.
        let (scaling, parameters) = rope_json(&self.rope);
        map.insert("rope_theta".to_owned(), json!(self.rope.theta));
        map.insert("rope_scaling".to_owned(), scaling);
        map.insert("rope_parameters".to_owned(), parameters);
        map.shift_remove("dtype");
        // Weights are written as what they stand for.
        map.shift_remove("quantization_config");
        map.insert("torch_dtype".to_owned(), json!(torch_dtype));
        Value::Object(map)
    }

    /// The configuration of a new model: the given shape, everything else as transformers' defaults.
    /// Small random models for tests and first runs are made with it.
    pub fn new(vocab_size: usize, hidden_size: usize, num_hidden_layers: usize, num_attention_heads: usize) -> Self {
        Self {
            vocab_size,
            hidden_size,
            intermediate_size: hidden_size * 8 / 3,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: num_attention_heads,
            head_dim: hidden_size / num_attention_heads.max(1),
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-5,
            rope: RopeConfig {
                theta: 10_000.0,
                scaling: RopeScaling::None,
            },
            tie_word_embeddings: true,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            initializer_range: 0.02,
            n_heads: 1,
            head_norms: false,
            other: Map::new(),
        }
    }
}

/// The stored type that the file states must be one: a typing error there is one in the rest as well.
fn check_type(fields: &mut Fields<'_>) {
    for name in ["dtype", "torch_dtype"] {
        let Some(value) = fields.get(name) else { continue };
        let known = value
            .as_str()
            .is_some_and(|text| TYPES.contains(&text.strip_prefix("torch.").unwrap_or(text)));
        if !known {
            fields.problem(format!(
                "`{name}` is {value}, which is no type of weights: write one such as \"float32\" or \"bfloat16\", or leave it out"
            ));
        }
    }
}

/// The family that the file names; another one, or another architecture, is a problem.
fn family(fields: &mut Fields<'_>) -> &'static Family {
    let quoted = |names: Vec<&str>| {
        names
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let supported = quoted(FAMILIES.iter().map(|family| family.model_type).collect());
    let model_type = fields.get("model_type").and_then(Value::as_str);
    let family = FAMILIES.iter().find(|family| Some(family.model_type) == model_type);
    match (model_type, family) {
        (_, Some(_)) => {}
        (Some(other), None) => fields.problem(refusal(other, &supported)),
        (None, None) => fields.problem(format!("`model_type` is missing, it must be one of {supported}")),
    }
    let family = family.unwrap_or(&FAMILIES[0]);
    if let Some(names) = fields.get("architectures").and_then(Value::as_array) {
        for name in names {
            if !name.as_str().is_some_and(|name| family.architectures.contains(&name)) {
                let supported = family.architectures[0];
                fields.problem(format!(
                    "`architectures` names {name}, only \"{supported}\" is supported"
                ));
            }
        }
    }
    fp8::read_blocks(fields);
    family
}

/// Why a family is not read.
fn refusal(model_type: &str, supported: &str) -> String {
    let why = match model_type {
        "gemma" | "gemma2" | "gemma3" | "gemma3_text" => "it scales embeddings, uses GELU and other norms",
        "mixtral" | "qwen2_moe" | "qwen3_moe" | "deepseek_v2" | "deepseek_v3" => "it has experts",
        "qwen3_next" => "it has experts and linear attention",
        "phi3" | "phi" => "it stores fused projections",
        _ => return format!("`model_type` is \"{model_type}\", supported are {supported}"),
    };
    format!("`model_type` is \"{model_type}\", which is not supported ({why}); supported are {supported}")
}

/// H, and whether heads have final norms of their own.
fn read_wmtp(fields: &mut Fields<'_>) -> (usize, bool) {
    let Some(block) = fields.object("wmtp") else {
        return (1, false);
    };
    let mut inner = Fields::within(block, "wmtp.");
    let format = inner.size("format", Some(1));
    if format as u64 != FORMAT {
        inner.problem(format!(
            "`wmtp.format` is {format}, this version reads {FORMAT}: update the program"
        ));
    }
    let n_heads = inner.size("n_heads", Some(1));
    let head_norms = inner.flag("head_norms", false);
    fields.problems.append(&mut inner.problems);
    (n_heads, head_norms)
}
