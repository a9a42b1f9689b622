//! What goes wrong, how much of it, and when.

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::time::Duration;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The connection is reset before the request is read.
    Refused,
    /// The connection is reset in the middle of the request's or the answer's body.
    Reset,
    /// Status 500; the request does not reach the server.
    Error500,
    /// Status 503, `SlowDown` as S3 says it; the request does not reach the server.
    SlowDown,
    /// Silence for [`Faults::stall`] in the middle of the answer, then the rest of it.
    Stall,
    /// The answer ends early, the connection in good order.
    Truncated,
    /// Bytes of the answer are altered, its length is right.
    WrongBytes,
    /// The server does what it was asked to, and the answer is lost.
    LostAnswer,
}

impl Fault {
    pub const ALL: &[Self] = &[
        Self::Refused,
        Self::Reset,
        Self::Error500,
        Self::SlowDown,
        Self::Stall,
        Self::Truncated,
        Self::WrongBytes,
        Self::LostAnswer,
    ];
}

/// How much goes wrong.
#[derive(Clone, Debug)]
pub struct Faults {
    /// Every draw follows from it.
    pub seed: u64,
    /// Share of the exchanges that a fault strikes.
    pub share: f64,
    /// Drawn from these, all alike.
    pub kinds: Vec<Fault>,
    /// Nothing more goes wrong after so many faults.
    pub most: usize,
    /// How long [`Fault::Stall`] is silent.
    pub stall: Duration,
    /// Whether an exchange (method and target) may be struck at all.
    pub strikes: fn(&str, &str) -> bool,
    /// Whether an answer's bytes may be altered, given method, target and content type. What no hash
    /// covers (a listing, say) can't be told from a true answer by any client.
    pub alters: fn(&str, &str, &str) -> bool,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::seeded(0, 0.0, &[])
    }

    /// This share of the exchanges fails in these ways; stalls last a tenth of a second.
    pub fn seeded(seed: u64, share: f64, kinds: &[Fault]) -> Self {
        Self {
            seed,
            share,
            kinds: kinds.to_vec(),
            most: usize::MAX,
            stall: Duration::from_millis(100),
            strikes: |_, _| true,
            alters: |_, _, _| true,
        }
    }
}

/// The faults and where their draws have got to.
pub struct Schedule {
    pub faults: Faults,
    random: StdRng,
    /// How many have struck.
    pub struck: usize,
}

impl Schedule {
    pub fn new(faults: Faults) -> Self {
        let random = StdRng::seed_from_u64(faults.seed);
        Self {
            faults,
            random,
            struck: 0,
        }
    }

    /// The fault of an exchange, the share of the body after which it strikes, and a stall's length.
    pub fn draw(&mut self, method: &str, target: &str) -> (Option<Fault>, f64, Duration) {
        let faults = &self.faults;
        let strikes = self.random.random_bool(faults.share.clamp(0.0, 1.0));
        let kind = faults.kinds.choose(&mut self.random).copied();
        let at = self.random.random_range(0.0..1.0);
        let kind = kind.filter(|_| strikes && (faults.strikes)(method, target) && self.struck < faults.most);
        self.struck += usize::from(kind.is_some());
        (kind, at, faults.stall)
    }
}
