//! `kind: critic`: what a token adds to a learned value (algorithms, section 5).
//!
//! Stage 1 trains a value head towards [`targets`]; stage 2 ([`CriticScorer`]) turns differences
//! of its values into scores. This room has the mathematics; the loop that trains the value head
//! is the pipeline's, and the value head itself the model crate's.

mod config;
pub mod loss;
pub mod report;
mod rewards;
mod score;
mod targets;
pub mod values;

pub use config::{CriticConfig, CriticLoss, InitialValue, Reward, Spread, ValueUse};
pub use report::{CriticReport, Observations};
pub use rewards::{Pseudo, SequenceReward, Verified};
pub use score::{CriticScorer, Values};
pub use targets::{CriticTargets, targets};

/// `scorer.kind`.
const NAME: &str = "critic";
