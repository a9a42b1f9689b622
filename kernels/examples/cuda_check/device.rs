//! What the CUDA runtime reports of an A100 (sm_80) and an H100 (sm_90).

use cubecl::Compiler;
use cubecl::cmma::MatrixLayout;
use cubecl::define_kernel;
use cubecl::ir::features::Plane;
use cubecl::ir::{
    ContiguousElements, DeviceIdentity, DeviceProperties, HardwareProperties, MemoryDeviceProperties, MmaProperties,
    TargetProperties,
};
use cubecl::prelude::{CubeKernel, VectorSize};
use cubecl::profile::TimingMethod;
use cubecl_cpp::cuda::mma::manual::contiguous_elements_cuda;
use cubecl_cpp::register_supported_types;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};
use cubecl_cpp::target::Cuda;
use std::sync::Arc;

/// A device that kernels are lowered for.
pub struct Target {
    /// Compute capability times ten: 80 or 90.
    pub sm: u32,
    pub properties: Arc<DeviceProperties>,
    pub target: Arc<TargetProperties>,
    options: CompilationOptions,
}

/// A kernel in CUDA C++.
pub struct Lowered {
    pub source: String,
    /// Bytes of shared memory that the launch requests.
    pub shared_memory: usize,
}

impl Target {
    pub fn new(sm: u32) -> Self {
        let hopper = sm >= 90;
        let hardware = HardwareProperties {
            load_width: 128,
            vector_register_count: None,
            plane_size_min: 32,
            plane_size_max: 32,
            max_bindings: 1024,
            max_shared_memory_size: if hopper { 232_448 } else { 166_912 },
            max_cube_count: (i32::MAX as u32, 65_535, 65_535),
            max_units_per_cube: 1024,
            max_cube_dim: (1024, 1024, 64),
            num_streaming_multiprocessors: Some(if hopper { 132 } else { 108 }),
            num_tensor_cores: Some(4),
            min_tensor_cores_dim: Some(8),
            num_cpu_cores: None,
            last_level_cache_size: None,
            max_vector_size: VectorSize::MAX,
            cube_mma_reserved_shared_memory: 0,
        };
        let identity = DeviceIdentity {
            name: format!("none, as if sm_{sm}"),
            fingerprint: format!("sm_{sm}"),
            physical: None,
        };
        let memory = MemoryDeviceProperties::new(40 << 30, 512);
        let mut properties =
            DeviceProperties::new(Default::default(), memory, hardware, TimingMethod::Device, identity);
        register_supported_types(&mut properties);
        for feature in [Plane::Ops, Plane::Sync, Plane::NonUniformControlFlow] {
            properties.features.plane.insert(feature);
        }
        properties.features.memory_reinterpret = true;
        properties.features.alignment = true;
        let mma = MmaProperties {
            register_size_bits: 32,
            const_plane_size: 32,
            register_layout_a: MatrixLayout::RowMajor,
            register_layout_b: MatrixLayout::ColMajor,
            register_layout_acc: MatrixLayout::RowMajor,
            register_duplication_a: 1,
            register_duplication_b: 1,
            register_duplication_acc: 1,
            contiguous_elements: ContiguousElements::new(contiguous_elements_cuda),
        };
        let supports_features = CppSupportedFeatures {
            fast_math: true,
            dp4a: true,
            grid_constants: true,
            clusters: hopper,
            elect_sync: hopper,
            fast_tanh: true,
        };
        Self {
            sm,
            properties: Arc::new(properties),
            target: Arc::new(TargetProperties { mma }),
            options: CompilationOptions {
                supports_features,
                ..Default::default()
            },
        }
    }

    pub fn lower(&self, kernel: impl CubeKernel) -> Result<Lowered, String> {
        let definition = define_kernel(&kernel).map_err(|error| format!("{error:?}"))?;
        let compiled = CppCompiler::<Cuda>::default()
            .compile(definition, &self.options)
            .map_err(|error| format!("{error:?}"))?;
        Ok(Lowered {
            source: compiled.source.to_string(),
            shared_memory: compiled.shared_memory_size,
        })
    }
}
