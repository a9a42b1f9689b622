//! `wmtp --version`: the version, and what the program was built from, for and with.

use crate::device::Backend;
use std::sync::LazyLock;
use wmtp_kernels::Isa;

/// The target that the program was built for, as rustc names it.
pub const TARGET: &str = match option_env!("WMTP_TARGET") {
    Some(target) => target,
    None => "unknown",
};

/// Cargo features that are on in this program, in alphabetical order: backends and parts.
pub fn features() -> Vec<&'static str> {
    let parts = [
        ("charts", cfg!(feature = "charts")),
        ("mlflow", cfg!(feature = "mlflow")),
        ("remote", cfg!(feature = "remote")),
    ];
    let backends = Backend::ALL.map(|backend| (backend.name(), backend.is_built_in()));
    let all = parts.into_iter().chain(backends);
    let mut on: Vec<&str> = all.filter(|(_, on)| *on).map(|(name, _)| name).collect();
    on.sort_unstable();
    on
}

/// Which kernels compute matrix products on the CPU, and why if they are not the fastest.
pub fn matrix_products() -> String {
    /// What the AVX-512 kernels need.
    const NEEDED: [&str; 3] = ["avx512f", "avx512bw", "avx512vl"];
    let isa = match Isa::chosen() {
        Ok(isa) => isa,
        Err(problem) => return format!("none: {problem}"),
    };
    let name = isa.title();
    if isa != Isa::best() {
        return format!("{name}, as {}={} says", wmtp_kernels::GEMM_VARIABLE, isa.name());
    }
    let found = wmtp_kernels::instruction_sets();
    let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !found.contains(name)).collect();
    match missing[..] {
        [] => name.to_owned(),
        _ => format!("{name}; the AVX-512 kernels need {}", missing.join(", ")),
    }
}

/// What `--version` prints behind the name; `-V` prints the version alone. Each line begins with its name and a
/// colon, so that a script finds it.
pub static LONG: LazyLock<String> = LazyLock::new(|| {
    let sets = wmtp_kernels::instruction_sets();
    [
        env!("CARGO_PKG_VERSION").to_owned(),
        format!("commit: {}", option_env!("WMTP_COMMIT").unwrap_or("unknown")),
        format!("target: {TARGET}"),
        format!("features: {}", features().join(", ")),
        format!(
            "instruction sets: {}",
            if sets.is_empty() {
                "none".to_owned()
            } else {
                sets.join(", ")
            }
        ),
        format!("matrix products: {}", matrix_products()),
    ]
    .join("\n")
});
