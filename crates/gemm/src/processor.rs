//! What this processor has.

use std::sync::OnceLock;

/// Whether the machine has AVX-512 F, BW and VL: Intel's servers since Skylake, AMD's since Zen 4.
pub fn has_avx512() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(detected)
}

/// Whether it has AVX-512 BF16 too: Intel's servers since Cooper Lake, but not Ice Lake.
#[cfg(target_arch = "x86_64")]
pub fn has_avx512_bf16() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| has_avx512() && is_x86_feature_detected!("avx512bf16"))
}

/// The vector instruction sets that computing chooses from and that this machine has, by the names that rustc
/// gives them.
pub fn instruction_sets() -> Vec<&'static str> {
    macro_rules! found {
        ($detected:ident: $($name:tt)*) => {
            [$(($name, std::arch::$detected!($name))),*]
        };
    }
    #[cfg(target_arch = "x86_64")]
    let sets = found!(is_x86_feature_detected: "avx2" "fma" "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512bf16");
    #[cfg(target_arch = "aarch64")]
    let sets = found!(is_aarch64_feature_detected: "neon" "fp16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let sets: [(&'static str, bool); 0] = [];
    sets.into_iter()
        .filter(|(_, found)| *found)
        .map(|(name, _)| name)
        .collect()
}

/// Whether `vdpbf16ps` is there and has a higher throughput than the fused multiply-add in f32. On Intel it has half of it
/// (measured on an Emerald Rapids: one `vdpbf16ps` in two cycles against two multiply-adds a cycle), and
/// products of values that are rounded to bf16 are exact in f32 as well.
#[cfg(target_arch = "x86_64")]
pub fn bf16_dot_is_faster() -> bool {
    has_avx512_bf16() && !is_intel()
}

/// Whether reading goes faster with a prefetch in software even where a thread does little else: measured on an
/// Emerald Rapids (one row: 1.2 times as fast in f32, 1.5 times in bf16). Elsewhere the hardware is left alone.
#[cfg(target_arch = "x86_64")]
pub fn prefetches_early() -> bool {
    is_intel()
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    static INTEL: OnceLock<bool> = OnceLock::new();
    *INTEL.get_or_init(|| {
        let vendor = std::arch::x86_64::__cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx] == [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes)
    })
}

#[cfg(target_arch = "x86_64")]
fn detected() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl")
}

#[cfg(not(target_arch = "x86_64"))]
fn detected() -> bool {
    false
}
