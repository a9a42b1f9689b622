//! The CubeCL kernels on a device that wgpu finds, against flex and against sums in f64.
//!
//! Made for a machine without a GPU: Mesa's llvmpipe (Debian: `mesa-vulkan-drivers`) runs them on the
//! processor. It has no plane operations, so that the trees in shared memory are what is tested; on
//! a GPU the same tests take the plane reductions.
#![cfg(feature = "wgpu")]

#[path = "cube/attention.rs"]
mod attention;
mod common;
#[path = "cube/layers.rs"]
mod layers;
#[path = "cube/weighted_ce.rs"]
mod weighted_ce;

use burn::tensor::{Device, DeviceKind};

/// The software device where there is one, else whatever adapter wgpu took in its place. Its name is
/// printed, because wgpu falls back in silence, and a device without one is refused.
pub fn device() -> Device {
    let device = Device::wgpu(DeviceKind::Cpu);
    let Some(identity) = device.identity() else {
        panic!("the wgpu device has no identity");
    };
    println!("adapter: {}", identity.name);
    assert!(!identity.name.trim().is_empty(), "the wgpu adapter has no name");
    let cpu = ["llvmpipe", "SwiftShader", "WARP", "Microsoft Basic Render"];
    if !cpu.iter().any(|name| identity.name.contains(name)) {
        println!("a real adapter, not a software one: the plane reductions are tested too");
    }
    device
}
