//! What training keeps between forward and backward pass, counted in bytes.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{DType, Device};
use wmtp_model::{CausalLm, Compute, LlamaConfig, Packed};

/// The system's allocator, counting the bytes that are in use.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on unchanged; only sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps what `GlobalAlloc` asks for, and so does this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps what `GlobalAlloc` asks for, and so does this call.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes kept after a forward pass of `rows` documents of `seq` tokens through `layers` layers.
fn kept(layers: usize, [rows, seq]: [usize; 2], dtype: DType, recompute: bool) -> usize {
    let device = Device::flex().autodiff();
    let mut config = LlamaConfig::new(64, 96, layers, 6);
    config.num_key_value_heads = 2;
    config.intermediate_size = 256;
    let compute = Compute {
        recompute,
        ..Compute::default()
    };
    let model = config.init_dtype(1, dtype, &device).with_compute(compute);
    let documents: Vec<Vec<u32>> = vec![(0..seq).map(|i| (i % 64) as u32).collect(); rows];
    let input = Packed::from_documents(&documents, &device);
    let ctx = model.context(&input);
    let before = LIVE.load(Ordering::Relaxed);
    let hidden = model.head(1, model.trunk(&input, &ctx), &ctx);
    let kept = LIVE.load(Ordering::Relaxed) - before;
    drop(hidden);
    kept
}

/// Widths a token of what a layer keeps: the inputs of both halves (96 each); queries (96), keys and
/// values (32 each), what attention mixes (96), gate and up (256 each). The layers in single
/// operations, which f64 takes, keep a maximum and a sum for each of the 6 heads as well.
#[test]
fn a_layer_keeps_its_inputs_and_what_the_backward_pass_needs_and_no_attention_scores() {
    let (inputs, inner) = (2 * 96, 96 + 2 * 32 + 96 + 2 * 256);
    for (dtype, recompute, widths) in [
        (DType::F32, false, inputs + inner),
        (DType::F64, false, inputs + inner + 2 * 6),
        (DType::F32, true, inputs),
        (DType::F64, true, inputs),
    ] {
        for shape in [[4, 64], [1, 256]] {
            // A pass in which a thread works for the first time also counts the buffers that this
            // thread keeps for good, so the least of several passes is what the layers keep.
            let kept = |layers| {
                let passes = (0..6).map(|_| kept(layers, shape, dtype, recompute));
                passes.min().expect("there are passes")
            };
            let layer = (kept(6) - kept(2)) / 4;
            let expected = widths * 256 * dtype.size();
            println!("{dtype:?}, {shape:?}, recompute {recompute}: {layer} bytes, expected {expected}");
            assert!(
                layer < expected + expected / 20,
                "{dtype:?}, {shape:?}, recompute {recompute}: a layer keeps {layer} bytes, expected {expected}"
            );
            assert!(layer > expected / 2, "the count itself is wrong: {layer}");
        }
    }
}
