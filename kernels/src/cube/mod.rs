//! Shared by the CubeCL kernels of this crate: the number of units of a cube, the reduction over them,
//! and the conversion of burn's tensors to launch arguments.
//!
//! Kernels that reduce are written once; only the innermost step has two forms. [`Inner::Tree`]
//! halves an array in shared memory and runs everywhere. [`Inner::Plane`] reduces within planes
//! (warps, subgroups) first and is chosen at run time where the device has such operations, see
//! [`Inner::of`]. All of it is f32, whatever the tensors hold.

pub mod reduce;

use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::features::Plane;
use cubecl::ir::ElemType;
use cubecl::prelude::{CubeCount, CubeDim, VectorSize};

/// Units of a cube at most; what every GPU offers.
pub const UNITS: u32 = 256;

/// How a value is reduced over the units of a cube.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inner {
    /// A tree in shared memory, one barrier a level.
    Tree,
    /// Plane operations, then the planes' results from shared memory: one barrier.
    Plane,
}

impl Inner {
    /// [`Inner::Plane`] where the device has plane operations and planes of one size that divides
    /// `units`: where the size varies, a unit's plane does not follow from its position in the cube.
    pub fn of(client: &Client, units: u32) -> Self {
        let properties = client.properties();
        let hardware = &properties.hardware;
        let (least, most) = (hardware.plane_size_min, hardware.plane_size_max);
        let even = least == most && most > 1 && units.is_multiple_of(most);
        if even && properties.features.plane.contains(Plane::Ops) {
            Self::Plane
        } else {
            Self::Tree
        }
    }

    /// As the kernels' compile-time argument.
    pub fn planes(self) -> bool {
        self == Self::Plane
    }
}

/// How a kernel that gives one row to one cube is launched.
pub struct RowLaunch {
    /// Elements read at once.
    pub vector: VectorSize,
    /// Units of the cube, a power of two.
    pub units: u32,
    /// The reduction over them.
    pub inner: Inner,
}

impl RowLaunch {
    /// For rows of `columns` elements of `dtype`: wide loads, and no more units than there are loads,
    /// but at least 32.
    pub fn new(client: &Client, columns: usize, dtype: DType) -> Self {
        let vector = vector_size(client, columns, dtype);
        let loads = u32::try_from(columns / vector).unwrap_or(UNITS);
        let units = loads.clamp(32, UNITS).next_power_of_two();
        Self {
            vector,
            units,
            inner: Inner::of(client, units),
        }
    }

    /// One cube.
    pub fn cube(&self) -> CubeDim {
        CubeDim::new_1d(self.units)
    }
}

/// `count` cubes. A dimension of the grid holds 65535 on WebGPU, so more are laid out in two;
/// kernels number them by `CUBE_POS` and do nothing past the end.
pub fn cubes(count: usize) -> CubeCount {
    const WIDEST: usize = 65_535;
    match count {
        0..=WIDEST => CubeCount::Static(count as u32, 1, 1),
        _ => CubeCount::Static(WIDEST as u32, count.div_ceil(WIDEST) as u32, 1),
    }
}

/// Cubes of [`UNITS`] for one unit per element.
pub(crate) fn cubes_for_elements(elements: usize) -> (CubeCount, CubeDim) {
    (cubes(elements.div_ceil(UNITS as usize)), CubeDim::new_1d(UNITS))
}

/// Elements read at once from rows of `columns` elements: the most, up to 16 bytes, that divides the
/// row and that the device's loads allow.
pub(crate) fn vector_size(client: &Client, columns: usize, dtype: DType) -> VectorSize {
    client
        .io_optimized_vector_sizes(dtype.size())
        .filter(|size| columns.is_multiple_of(*size) && size * dtype.size() <= 16)
        .max()
        .unwrap_or(1)
}

/// Uninitialised and contiguous, on the device of `like`.
pub fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
}

/// `tensor` in contiguous memory; itself where it is contiguous already.
pub(crate) fn contiguous(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}

/// Whether the kernels support this type; other types use the backend's own operations.
pub(crate) fn is_supported(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// The element type that stands for `dtype` in a launch.
pub fn element(dtype: DType) -> ElemType {
    burn::backend::cubecl::dtype_to_storage_type(dtype)
}
