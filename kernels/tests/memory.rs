//! The memory that the operation takes in addition to its inputs and results, by a counting allocator: one
//! head's rows against four heads' rows at the shape of SmolLM2-135M. A binary of its own, because
//! the allocator counts everything in the process.
#![cfg(feature = "flex")]

use burn::tensor::{DType, Device, Tensor, TensorData};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use wmtp_kernels::{Accuracy, Isa, Precision, weighted_linear_cross_entropy_in};

/// The system's allocator, counting the bytes that are alive and the most that ever were.
struct Counting;

static ALIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

impl Counting {
    fn add(bytes: usize) {
        let alive = ALIVE.fetch_add(bytes, Relaxed) + bytes;
        PEAK.fetch_max(alive, Relaxed);
    }
}

// SAFETY: every call is passed on to `System` unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps what `GlobalAlloc` asks for, and so does this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps what `GlobalAlloc` asks for, and so does this call.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps what `GlobalAlloc` asks for, and so does this call.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // As if both were alive for a moment: never too little.
        Self::add(size);
        // SAFETY: the caller keeps what `GlobalAlloc` asks for, and so does this call.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        ALIVE.fetch_sub(layout.size(), Relaxed);
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const POSITIONS: usize = 2048;
const D: usize = 576;
const V: usize = 49_152;
const F32: usize = size_of::<f32>();

/// f32, `bf16` and `pure-bf16`: the accuracy, and the unembedding's type.
const MODES: [(Accuracy, DType); 3] = [
    (accuracy(Precision::F32), DType::F32),
    (accuracy(Precision::Bf16), DType::F32),
    (accuracy(Precision::Bf16), DType::BF16),
];

const fn accuracy(precision: Precision) -> Accuracy {
    Accuracy {
        factors: precision,
        gradient: precision,
        filter: 0.0,
    }
}

/// The allocator counts everything in the process, so one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Peak bytes of a forward and a backward pass, less the inputs and the results dX, dW, ce.
fn extra_bytes(rows: usize, (accuracy, dtype): (Accuracy, DType)) -> usize {
    let device = Device::flex().autodiff();
    let wave = |count: usize, scale: f32| -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7919 % 10_007) as f32 / 5_003.0 - 1.0) * scale)
            .collect()
    };
    let hidden = TensorData::new(wave(rows * D, 1.0), [rows, D]);
    let hidden = Tensor::<2>::from_data(hidden, &device).require_grad();
    let unembedding = TensorData::new(wave(V * D, 0.1), [V, D]);
    let unembedding = Tensor::<2>::from_data(unembedding.convert_dtype(dtype), (&device, dtype)).require_grad();
    let targets: Vec<i64> = (0..rows).map(|row| (row * 31 % V) as i64).collect();
    let targets = Tensor::from_data(TensorData::new(targets, [rows]), &device);
    let weights = Tensor::from_data(TensorData::new(vec![0.5f32; rows], [rows]), &device);

    let before = ALIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let found = weighted_linear_cross_entropy_in(accuracy, hidden.clone(), unembedding.clone(), targets, weights);
    // A factor other than one, so that the backward pass has something to multiply.
    let loss = found.loss / rows as f32;
    let gradients = loss.clone().backward();
    let peak = PEAK.load(Relaxed);

    assert!(loss.into_scalar::<f32>() > 0.0);
    assert_eq!(found.ce.dims(), [rows]);
    for (tensor, shape) in [(&hidden, [rows, D]), (&unembedding, [V, D])] {
        assert_eq!(tensor.grad(&gradients).map(|gradient| gradient.dims()), Some(shape));
    }
    let of_result = unembedding
        .grad(&gradients)
        .map_or(0, |gradient| gradient.dtype().size());
    peak - before - (rows * D + rows) * F32 - V * D * of_result
}

#[test]
fn extra_memory_does_not_grow_with_the_heads_and_is_a_twentieth_of_the_logits() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let naive = 4 * POSITIONS * V * F32;
    // Once per thread and process, `gemm` and rayon set up their scratch space (some 2 MiB here);
    // whichever call came first would be charged with it.
    let f32 = MODES[0];
    extra_bytes(POSITIONS / 16, f32);
    let (one, four) = (extra_bytes(POSITIONS, f32), extra_bytes(4 * POSITIONS, f32));
    let mib = |bytes: usize| bytes as f64 / (1 << 20) as f64;
    println!("extra memory, 1 head:  {:8.2} MiB", mib(one));
    println!("extra memory, 4 heads: {:8.2} MiB", mib(four));
    println!(
        "logits of 4 heads:     {:8.2} MiB, {:.1} times as much",
        mib(naive),
        naive as f64 / four as f64
    );
    assert!(
        four.abs_diff(one) as f64 <= 0.01 * one as f64,
        "{one} bytes for 1 head, {four} for 4"
    );
    assert!(naive >= 20 * four, "{four} bytes are more than a twentieth of {naive}");
}

/// A step of 2 x 256 tokens with four heads, in every precision of training.
#[test]
fn extra_memory_is_bounded_in_every_precision() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    extra_bytes(POSITIONS / 16, MODES[0]);
    // Each thread packs some of the unembedding.
    let two = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for (mode, name) in MODES.into_iter().zip(["f32", "bf16", "pure-bf16"]) {
        let extra = two.install(|| extra_bytes(POSITIONS, mode)) as f64 / 1e6;
        println!("extra memory, {name}: {extra:.1} MB");
        // Where dW is bf16 and logits are stored, 28 MB of it are the lower bits of its sums.
        let stores_logits = Isa::chosen() != Ok(Isa::Amx);
        let bound = if name != "f32" && stores_logits { 90.0 } else { 64.0 };
        assert!(extra < bound, "{name}: {extra} MB");
    }
}
