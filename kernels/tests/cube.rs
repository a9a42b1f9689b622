//! The CubeCL kernels on a device that wgpu finds, against flex and against sums in f64.
//!
//! Made for a machine without a GPU: Mesa's llvmpipe (Debian: `mesa-vulkan-drivers`) runs them on the
//! processor. It has no plane operations, so that the trees in shared memory are what is tested; on
//! a GPU the same tests take the plane reductions.
#![cfg(feature = "wgpu")]

mod common;
#[path = "cube/attention.rs"]
mod attention;
#[path = "cube/layers.rs"]
mod layers;
#[path = "cube/weighted_ce.rs"]
mod weighted_ce;

use burn::tensor::{Device, DeviceKind};

/// The software device where there is one, else the default adapter; its name is printed and must
/// be that of a real adapter, because wgpu falls back in silence.
pub fn device() -> Device {
    let device = Device::wgpu(DeviceKind::Cpu);
    let identity = format!("{:?}", device.identity());
    println!("adapter: {identity}");
    let software = ["llvmpipe", "SwiftShader", "lavapipe", "WARP"];
    assert!(
        software.iter().any(|name| identity.contains(name)),
        "not a software device: {identity}"
    );
    device
}
