//! What training keeps between forward and backward pass, counted in bytes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Device;
use wmtp_model::{LlamaConfig, Packed};

/// The system's allocator, counting the bytes that are in use.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on unchanged; only sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes kept after a forward pass of `rows` documents of `seq` tokens through `layers` layers.
fn kept(layers: usize, rows: usize, seq: usize) -> usize {
    let device = Device::flex().autodiff();
    let mut config = LlamaConfig::new(64, 96, layers, 6);
    config.num_key_value_heads = 2;
    config.intermediate_size = 256;
    let model = config.init(1, &device);
    let documents: Vec<Vec<u32>> = vec![(0..seq).map(|i| (i % 64) as u32).collect(); rows];
    let input = Packed::from_documents(&documents, &device);
    let ctx = model.context(&input);
    let before = LIVE.load(Ordering::Relaxed);
    let hidden = model.head(1, model.trunk(&input, &ctx), &ctx);
    let kept = LIVE.load(Ordering::Relaxed) - before;
    drop(hidden);
    kept
}

#[test]
fn a_layer_keeps_twelve_widths_a_token_and_no_attention_scores() {
    for (rows, seq) in [(4, 64), (1, 256)] {
        // The first pass of a shape also allocates what threads and the graph keep for good.
        kept(6, rows, seq);
        let layer = (kept(6, rows, seq) - kept(2, rows, seq)) / 4;
        // Inputs of two norms, their outputs, queries (96), keys and values (32 each), what attention
        // mixes (96), gate and up (256 each): in f32, for 256 tokens.
        let expected = (4 * 96 + 96 + 2 * 32 + 96 + 2 * 256) * 256 * 4;
        assert!(
            layer < expected + expected / 20,
            "{rows} x {seq}: a layer keeps {layer} bytes, expected {expected}"
        );
        assert!(layer > expected / 2, "the count itself is wrong: {layer}");
    }
}
