//! Which instructions the products use.

use std::sync::OnceLock;

/// The environment variable that names one of them, for tests and comparisons.
pub const VARIABLE: &str = "WMTP_GEMM";

/// A set of instructions that products are written for, from the plainest to the fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// The `gemm` crate, with whatever vectors it finds.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW and VL, and BF16 where it is there and fast.
    Avx512,
    /// The same with BF16, and tiles for bf16 (AMX-TILE, AMX-BF16) that the system lets the process use.
    Amx,
}

impl Isa {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Amx];

    /// As [`VARIABLE`] spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Amx => "amx",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "AVX2",
            Self::Avx512 => "AVX-512",
            Self::Amx => "AVX-512, and AMX for bf16",
        }
    }

    /// Whether this machine has it.
    pub fn is_present(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => crate::processor::has_avx512(),
            #[cfg(target_arch = "x86_64")]
            Self::Amx => crate::processor::has_avx512_bf16() && crate::tiles::has_amx(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 | Self::Amx => false,
        }
    }

    /// The fastest one of this machine. Where AVX-512 lacks a part that our kernels need, the `gemm` crate still uses
    /// it, and is faster than AVX2.
    pub fn best() -> Self {
        let is_faster = |isa: &Self| *isa != Self::Avx2 || !has_some_avx512();
        let mut present = Self::ALL
            .into_iter()
            .rev()
            .filter(|isa| isa.is_present() && is_faster(isa));
        present.next().unwrap_or(Self::Portable)
    }

    /// The one that is used: that of [`VARIABLE`], which is read once, else the best.
    ///
    /// # Errors
    /// The variable names none of them, or one that this machine lacks.
    pub fn chosen() -> Result<Self, &'static str> {
        static CHOSEN: OnceLock<Result<Isa, String>> = OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| match std::env::var_os(VARIABLE) {
            Some(name) if !name.is_empty() => Self::named(&name.to_string_lossy()),
            _ => Ok(Self::best()),
        });
        chosen.as_ref().copied().map_err(String::as_str)
    }

    fn named(name: &str) -> Result<Self, String> {
        let names = |isas: &[Self]| isas.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
        let Some(isa) = Self::ALL.into_iter().find(|isa| isa.name() == name) else {
            return Err(format!("{VARIABLE} is `{name}`; give one of {}", names(&Self::ALL)));
        };
        if !isa.is_present() {
            let present: Vec<Self> = Self::ALL.into_iter().filter(|isa| isa.is_present()).collect();
            return Err(format!(
                "{VARIABLE} is `{name}`, which this processor does not have; give one of {}",
                names(&present)
            ));
        }
        Ok(isa)
    }
}

/// The instructions that products use.
///
/// # Panics
/// If [`VARIABLE`] names some that this machine lacks; the program checks [`Isa::chosen`] when it starts.
pub fn isa() -> Isa {
    Isa::chosen().unwrap_or_else(|problem| panic!("{problem}"))
}

#[cfg(target_arch = "x86_64")]
fn has_some_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_some_avx512() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_of_those_that_are_there() {
        assert_eq!(Isa::named("portable"), Ok(Isa::Portable));
        let unknown = Isa::named("mmx").unwrap_err();
        assert_eq!(unknown, "WMTP_GEMM is `mmx`; give one of portable, avx2, avx512, amx");
        for isa in Isa::ALL {
            assert_eq!(Isa::named(isa.name()).is_ok(), isa.is_present());
        }
        assert!(Isa::best().is_present());
    }
}
