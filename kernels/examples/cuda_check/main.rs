//! Lowers every kernel of wmtp-kernels to CUDA C++ for sm_80 and sm_90, in f32 and bf16 and with both
//! reductions where a kernel has two, into the folder given as the first argument. `check.py`
//! in the same folder compiles them. Needs no GPU, no driver and no CUDA toolkit.

mod device;

use cubecl::device::DeviceId;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;
use cubecl::server::Handle;
use device::Target;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use wmtp_kernels::{adamw, attention, rms_norm, rotary, swiglu, weighted_ce};

/// Replaces the service that owns the buffers.
struct NoService;

/// An argument of this shape, without memory.
fn tensor(shape: &[usize]) -> TensorArg {
    let device = DeviceId {
        type_id: 0,
        index_id: 0,
    };
    let id = cubecl_common::device::ServiceId::of::<NoService>(device);
    let bytes = 4 * shape.iter().product::<usize>();
    let stream = cubecl_environment::stream::StreamId::current();
    let handle = Handle::new(id, stream, bytes as u64);
    let strides: Vec<usize> = (1..=shape.len()).map(|i| shape[i..].iter().product()).collect();
    // SAFETY: the argument is only described to the compiler; nothing is launched.
    unsafe { TensorArg::from_raw_parts(handle, strides.into(), shape.to_vec().into()) }
}

/// The folder of the sources, and their number.
struct Output {
    folder: PathBuf,
    written: usize,
    failed: usize,
}

impl Output {
    /// `name.smXX.cu`, its first line the shared memory that a launch requests.
    fn lower(&mut self, target: &Target, name: &str, kernel: impl CubeKernel) {
        let path = self.folder.join(format!("{name}.sm{}.cu", target.sm));
        let written = target.lower(kernel).and_then(|lowered| {
            let source = format!("// shared memory {}\n{}", lowered.shared_memory, lowered.source);
            std::fs::write(&path, source).map_err(|error| error.to_string())
        });
        match written {
            Ok(()) => self.written += 1,
            Err(error) => {
                self.failed += 1;
                eprintln!("{}: {error}", path.display());
            }
        }
    }
}

/// One launch of `kernel`; `cubes` and the arguments follow.
macro_rules! dummy {
    ($kernel:path, $target:expr, $units:expr, $($argument:expr),* $(,)?) => {{
        use $kernel as kernel;
        kernel::create_dummy_kernel(
            $target.properties.clone(),
            $target.target.clone(),
            CubeCount::Static(8, 1, 1),
            CubeDim::new_1d($units),
            $($argument),*
        )
    }};
}

fn rows(out: &mut Output, target: &Target, suffix: &str, dtype: ElemType, vector: usize, planes: bool) {
    const D: usize = 576;
    const V: usize = 49_152;
    let path = if planes { "plane" } else { "tree" };
    let name = |kernel: &str| format!("{kernel}.{suffix}.{path}");
    let logits = || tensor(&[64, V]);
    let kernel = dummy!(
        weighted_ce::cube_kernels::cross_entropy,
        target,
        256,
        vector,
        logits(),
        tensor(&[64, 2]),
        tensor(&[64]),
        tensor(&[64]),
        tensor(&[64]),
        tensor(&[64, 2]),
        256,
        planes,
        dtype
    );
    out.lower(target, &name("cross_entropy"), kernel);
    let x = || tensor(&[64, D]);
    let kernel = dummy!(
        rms_norm::cube::rms_norm_forward,
        target,
        256,
        vector,
        x(),
        tensor(&[D]),
        x(),
        1e-5,
        256,
        planes,
        dtype
    );
    out.lower(target, &name("rms_norm_forward"), kernel);
    let kernel = dummy!(
        rms_norm::cube::rms_norm_backward,
        target,
        256,
        vector,
        x(),
        tensor(&[D]),
        x(),
        x(),
        tensor(&[64]),
        1e-5,
        256,
        planes,
        dtype
    );
    out.lower(target, &name("rms_norm_backward"), kernel);
    for (width, block) in [(64, 64), (64, 32), (128, 64), (128, 32)] {
        let units = ((block / attention::cube_kernels::PER_UNIT) as u32).pow(2);
        let (q, k) = (|| tensor(&[2, 9, 256, width]), || tensor(&[2, 3, 256, width]));
        let (starts, row) = (|| tensor(&[2, 256]), || tensor(&[2, 9, 256, 2]));
        let name = |kernel: &str| format!("{kernel}_w{width}_b{block}.{suffix}.{path}");
        let kernel = dummy!(
            attention::cube_kernels::attention_forward,
            target,
            units,
            q(),
            k(),
            k(),
            starts(),
            q(),
            row(),
            0.125,
            width,
            block,
            planes,
            dtype
        );
        out.lower(target, &name("attention_forward"), kernel);
        let kernel = dummy!(
            attention::cube_kernels::attention_backward_q,
            target,
            units,
            q(),
            k(),
            k(),
            starts(),
            q(),
            q(),
            row(),
            q(),
            row(),
            0.125,
            width,
            block,
            planes,
            dtype
        );
        out.lower(target, &name("attention_backward_q"), kernel);
        if !planes {
            let kernel = dummy!(
                attention::cube_kernels::attention_backward_kv,
                target,
                units,
                q(),
                k(),
                k(),
                starts(),
                q(),
                row(),
                row(),
                k(),
                k(),
                0.125,
                width,
                block,
                dtype
            );
            let name = format!("attention_backward_kv_w{width}_b{block}.{suffix}.no reduction");
            out.lower(target, &name.replace(' ', "-"), kernel);
        }
    }
}

/// The kernels that reduce nothing within a cube.
fn elements(out: &mut Output, target: &Target, suffix: &str, dtype: ElemType, vector: usize) {
    let name = |kernel: &str| format!("{kernel}.{suffix}.no-reduction");
    let x = || tensor(&[64, 1536]);
    let float = ElemType::Float(FloatKind::F32);
    let kernel = dummy!(
        weighted_ce::cube_kernels::gradient,
        target,
        256,
        vector,
        x(),
        tensor(&[64, 2]),
        tensor(&[64]),
        tensor(&[64, 2]),
        256,
        dtype
    );
    out.lower(target, &name("gradient"), kernel);
    let kernel = dummy!(
        rms_norm::cube::rms_norm_weight_sums,
        target,
        256,
        x(),
        x(),
        tensor(&[64]),
        tensor(&[1, 1536]),
        64,
        dtype
    );
    out.lower(target, &name("rms_norm_weight_sums"), kernel);
    let kernel = dummy!(swiglu::cube::swiglu_forward, target, 256, vector, x(), x(), x(), dtype);
    out.lower(target, &name("swiglu_forward"), kernel);
    let kernel = dummy!(
        swiglu::cube::swiglu_backward,
        target,
        256,
        vector,
        x(),
        x(),
        x(),
        x(),
        x(),
        dtype
    );
    out.lower(target, &name("swiglu_backward"), kernel);
    let (q, table) = (|| tensor(&[2, 9, 256, 64]), || tensor(&[2, 256, 32]));
    let kernel = dummy!(
        rotary::cube::rotary_turn,
        target,
        256,
        4,
        q(),
        table(),
        table(),
        q(),
        1.0,
        dtype
    );
    out.lower(target, &name("rotary_turn"), kernel);
    let kernel = dummy!(
        adamw::cube::adamw,
        target,
        256,
        4,
        x(),
        x(),
        x(),
        x(),
        0.9,
        0.95,
        1e-8,
        1.0,
        1e-3,
        1.0,
        0.1,
        0.05,
        dtype,
        float,
        dtype
    );
    out.lower(target, &name("adamw"), kernel);
}

fn main() -> ExitCode {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "target/cuda".into());
    if let Err(error) = std::fs::create_dir_all(Path::new(&folder)) {
        eprintln!("{folder}: {error}");
        return ExitCode::FAILURE;
    }
    let mut out = Output {
        folder: folder.into(),
        written: 0,
        failed: 0,
    };
    for target in [80, 90].map(Target::new) {
        for (suffix, kind, vector) in [("f32", FloatKind::F32, 4), ("bf16", FloatKind::BF16, 8)] {
            let dtype = ElemType::Float(kind);
            for planes in [false, true] {
                rows(&mut out, &target, suffix, dtype, vector, planes);
            }
            elements(&mut out, &target, suffix, dtype, vector);
        }
    }
    println!(
        "{} kernels lowered, {} failed, into {}",
        out.written,
        out.failed,
        out.folder.display()
    );
    if out.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
