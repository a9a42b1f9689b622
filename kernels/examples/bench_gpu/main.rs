//! Times every CubeCL kernel, forward and backward, and prints the bytes that it moves, its operations
//! (`docs/cuda-kernels.md`), and the least time that these need on an A100 and an H100.
//!
//! ```text
//! just bench-gpu cuda                         # both shapes, f32 and, where the device has it, bf16
//! just bench-gpu wgpu --shape llama-7b
//! just bench-gpu wgpu --shape small           # on a software device: that it runs, not how fast
//! ```
//!
//! A time is the median of `--repetitions` (7) times of `--calls` (10) calls each, after two calls to
//! compile and to tune; the device is synchronised before and after, so that on small shapes the
//! launches count as well.

mod cases;

use burn::backend::{Backend, Cube};
use burn::tensor::{DType, Device};
use burn_cubecl::CubeDevice;
use cases::{Case, Shape};
use std::process::ExitCode;
use std::time::Instant;

/// What a GPU does at most.
struct Limits {
    name: &'static str,
    /// Bytes a second.
    memory: f64,
    /// Operations a second in f32 outside of the matrix units.
    vector: f64,
    /// Operations a second in matrix products of f32.
    product_f32: f64,
    /// Operations a second in matrix products of bf16 and f16.
    product_half: f64,
}

/// NVIDIA's data sheets: A100 80 GB SXM, H100 SXM; products of f32 in TF32, all without sparsity.
const LIMITS: [Limits; 2] = [
    Limits {
        name: "A100",
        memory: 2.0e12,
        vector: 19.5e12,
        product_f32: 156e12,
        product_half: 312e12,
    },
    Limits {
        name: "H100",
        memory: 3.35e12,
        vector: 67e12,
        product_f32: 494e12,
        product_half: 989e12,
    },
];

impl Limits {
    /// The least seconds for a case: its memory's, its products' or its other operations'.
    fn seconds(&self, case: &Case, dtype: DType) -> f64 {
        let products = if dtype == DType::F32 {
            self.product_f32
        } else {
            self.product_half
        };
        let computing = case.operations / self.vector + case.products / products;
        computing.max(case.bytes / self.memory)
    }
}

struct Settings {
    backend: String,
    index: usize,
    shapes: Vec<Shape>,
    repetitions: usize,
    calls: usize,
}

const USAGE: &str =
    "bench_gpu [--device cuda|wgpu] [--index N] [--shape smollm2-135m|llama-7b|small] [--repetitions N] [--calls N]";

fn settings() -> Result<Settings, String> {
    let mut settings = Settings {
        backend: if cfg!(feature = "cuda") { "cuda" } else { "wgpu" }.into(),
        index: 0,
        shapes: vec![cases::SMOLLM2, cases::LLAMA],
        repetitions: 7,
        calls: 10,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        let number = || {
            value
                .parse::<usize>()
                .map_err(|_| format!("{flag} {value}: not a number"))
        };
        match flag.as_str() {
            "--device" => settings.backend = value,
            "--index" => settings.index = number()?,
            "--repetitions" => settings.repetitions = number()?.max(1),
            "--calls" => settings.calls = number()?.max(1),
            "--shape" => {
                let shapes = [cases::SMOLLM2, cases::LLAMA, cases::SMALL];
                let shape = shapes.into_iter().find(|shape| shape.name == value);
                settings.shapes = vec![shape.ok_or(format!("no shape `{value}`; {USAGE}"))?];
            }
            _ => return Err(USAGE.into()),
        }
    }
    Ok(settings)
}

/// The `index`-th device of a backend; looked for, because one that is not there fails only in use.
fn open(backend: &str, index: usize) -> Result<CubeDevice, String> {
    let of_backend = |device: &CubeDevice| format!("{:?}", device.runtime()).to_lowercase() == backend;
    let mut found = CubeDevice::enumerate_all().into_iter().filter(of_backend);
    found
        .nth(index)
        .ok_or_else(|| format!("no device {backend}:{index}: check its driver, and build with `--features {backend}`"))
}

/// Median seconds of a call.
fn time(case: &Case, device: &CubeDevice, settings: &Settings) -> Result<f64, String> {
    let sync = || Cube::sync(device).map_err(|error| format!("{}: {error:?}", case.name));
    (case.run)();
    (case.run)();
    let mut seconds = Vec::with_capacity(settings.repetitions);
    for _ in 0..settings.repetitions {
        sync()?;
        let start = Instant::now();
        for _ in 0..settings.calls {
            (case.run)();
        }
        sync()?;
        seconds.push(start.elapsed().as_secs_f64() / settings.calls as f64);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

fn run() -> Result<(), String> {
    let settings = settings()?;
    let device = open(&settings.backend, settings.index)?;
    let identity = Device::from(device.clone()).identity();
    let name = identity.map_or_else(|| "a device without a name".into(), |identity| identity.name);
    println!("{}:{} is {name}", settings.backend, settings.index);
    for shape in &settings.shapes {
        for dtype in [DType::F32, DType::BF16] {
            if !Cube::supports_dtype(&device, dtype) {
                println!("\n{} in {dtype:?}: not on this device", shape.name);
                continue;
            }
            println!("\n{shape} in {dtype:?}");
            print!("{:34} {:>10} {:>9} {:>9}", "", "us", "GB/s", "GFLOP/s");
            for limits in &LIMITS {
                print!(" {:>14}", format!("{}, us", limits.name));
            }
            println!();
            for case in cases::all(shape, dtype, &device)? {
                let seconds = time(&case, &device, &settings)?;
                print!(
                    "{:34} {:10.1} {:9.2} {:9.1}",
                    case.name,
                    seconds * 1e6,
                    case.bytes / seconds / 1e9,
                    (case.operations + case.products) / seconds / 1e9
                );
                for limits in &LIMITS {
                    print!(" {:14.1}", limits.seconds(&case, dtype) * 1e6);
                }
                println!();
            }
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
