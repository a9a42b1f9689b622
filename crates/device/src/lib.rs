//! Which device computes, chosen by name at run time.
//!
//! Cargo features decide which backends are in the program, the name picks one of them, and `auto`
//! takes the best that works. Every choice is explicit: burn's default device can be a CUDA device
//! on a machine without a GPU. CUDA and wgpu devices are created lazily and fail only in use, so
//! they are looked for (enumerated) before they are handed out.

use burn::tensor::{Device, Element, Tensor, TensorReadError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use wmtp_base::validate::{Check, Validate};

/// Config section `devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DevicesConfig {
    /// `auto`, `flex`, `ndarray`, `cuda`, `cuda:1`, `wgpu`, `wgpu:1` or `tch`.
    pub backend: String,
}

impl Default for DevicesConfig {
    fn default() -> Self {
        Self { backend: "auto".into() }
    }
}

impl Validate for DevicesConfig {
    fn check(&self, check: &mut Check) {
        if let Err(e) = self.backend.parse::<DeviceChoice>() {
            check.say("backend", format!(": {e}"));
        }
    }
}

/// A device name, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best that works: cuda, wgpu on a GPU, flex, tch, ndarray.
    Auto,
    /// One backend's n-th device, 0 without a number.
    Backend(Backend, usize),
}

/// A backend that burn has and a cargo feature brings in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// NVIDIA GPUs.
    Cuda,
    /// GPUs through Vulkan, Metal or DirectX.
    Wgpu,
    /// The CPU in pure Rust.
    Flex,
    /// The CPU through LibTorch.
    Tch,
    /// The CPU in pure Rust, the older one.
    NdArray,
}

impl Backend {
    /// All of them, best first.
    pub const ALL: [Self; 5] = [Self::Cuda, Self::Wgpu, Self::Flex, Self::Tch, Self::NdArray];

    /// The name in settings, which is the cargo feature's too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
            Self::Flex => "flex",
            Self::Tch => "tch",
            Self::NdArray => "ndarray",
        }
    }

    /// Whether the cargo feature is on.
    pub fn is_built_in(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Flex => cfg!(feature = "flex"),
            Self::Tch => cfg!(feature = "tch"),
            Self::NdArray => cfg!(feature = "ndarray"),
        }
    }

    /// What the backend offers beyond the common operations.
    pub fn capabilities(self) -> Capabilities {
        match self {
            Self::Flex => Capabilities {
                host_threads: true,
                ragged: true,
                bf16: true,
                loss_filter: true,
            },
            Self::NdArray => Capabilities {
                host_threads: true,
                ..Capabilities::default()
            },
            Self::Cuda | Self::Wgpu | Self::Tch => Capabilities::default(),
        }
    }

    /// Whether devices of this backend are numbered.
    fn is_numbered(self) -> bool {
        matches!(self, Self::Cuda | Self::Wgpu)
    }
}

/// What a device's backend offers beyond the operations that all backends have. Code asks for the capability
/// it needs, never for a backend's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// Computes on this process's rayon threads, in host memory: the machine's memory is the limit, and
    /// several processes can share the cores. LibTorch has a thread pool of its own.
    pub host_threads: bool,
    /// Batches are computed without padding, and heads gather their positions first.
    pub ragged: bool,
    /// Matrix products, weights and optimizer states in bf16 (`train.precision`, `optim.state`,
    /// `eval.precision`).
    pub bf16: bool,
    /// The filtered gradient of the logits (`loss.filter`).
    pub loss_filter: bool,
}

impl Capabilities {
    /// Those of an opened device, with or without autodiff.
    pub fn of(device: &Device) -> Self {
        let device = device.clone().inner();
        // A backend that is not listed offers nothing beyond the common operations.
        [Backend::Flex, Backend::NdArray]
            .into_iter()
            .find(|&backend| devices(backend).iter().any(|(_, known)| *known == device))
            .map(Backend::capabilities)
            .unwrap_or_default()
    }

    /// Those of the device with this name, as [`resolve`] returns it; none for a name that is not one.
    pub fn of_name(name: &str) -> Self {
        match name.parse() {
            Ok(DeviceChoice::Backend(backend, _)) => backend.capabilities(),
            Ok(DeviceChoice::Auto) | Err(_) => Self::default(),
        }
    }
}

/// A device that works, or one that can be tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Available {
    /// The name to choose it by: `flex`, `cuda:0`.
    pub name: String,
    /// What it is, in words.
    pub description: String,
    /// Whether `auto` considers it: a graphics driver that computes on the CPU is slower than the
    /// CPU backends.
    pub automatic: bool,
}

/// A device that can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No such name.
    #[error("there is no device `{name}`{hint}: use auto, flex, ndarray, cuda, cuda:0, wgpu, wgpu:0 or tch")]
    Unknown {
        /// What was asked for.
        name: String,
        /// `, did you mean ...?`
        hint: String,
    },
    /// A backend without its cargo feature.
    #[error(
        "the device `{name}` is not in this program, which was built without `--features {name}`; there is {there}"
    )]
    NotBuiltIn {
        /// The backend.
        name: &'static str,
        /// What could be used.
        there: String,
    },
    /// A backend that finds no such device.
    #[error("no device `{name}` was found on this machine: check its driver; there is {there}")]
    NotFound {
        /// What was asked for.
        name: String,
        /// What could be used.
        there: String,
    },
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        let unknown = |hint: String| DeviceError::Unknown {
            name: name.to_owned(),
            hint,
        };
        if name == "auto" {
            return Ok(Self::Auto);
        }
        let (word, index) = match name.split_once(':') {
            Some((word, index)) => (word, Some(index)),
            None => (name, None),
        };
        let Some(backend) = Backend::ALL.into_iter().find(|b| b.name() == word) else {
            let names = std::iter::once("auto").chain(Backend::ALL.into_iter().map(Backend::name));
            return Err(unknown(wmtp_base::text::suggestion(word, names)));
        };
        match index {
            None => Ok(Self::Backend(backend, 0)),
            Some(index) if backend.is_numbered() => match index.parse() {
                Ok(index) => Ok(Self::Backend(backend, index)),
                Err(_) => Err(unknown(", whose number is not one".into())),
            },
            Some(_) => Err(unknown(format!(", as {word} has no numbered devices"))),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Backend(backend, i) if backend.is_numbered() => {
                write!(f, "{}:{i}", backend.name())
            }
            Self::Backend(backend, _) => f.write_str(backend.name()),
        }
    }
}

/// Opens the device of this name, without autodiff.
///
/// # Errors
/// [`DeviceError`] for an unknown name, a backend that is not built in, and a missing device; each lists
/// the devices that exist.
pub fn open(name: &str) -> Result<Device, DeviceError> {
    resolve(name).map(|(_, device)| device)
}

/// As [`open`], with the name of what was chosen (`auto` becomes `flex`, `cuda` becomes `cuda:0`).
pub fn resolve(name: &str) -> Result<(String, Device), DeviceError> {
    let choice: DeviceChoice = name.parse()?;
    let wanted = match choice {
        DeviceChoice::Auto => {
            return Backend::ALL
                .into_iter()
                .flat_map(devices)
                .find(|(about, _)| about.automatic)
                .map(|(about, device)| (about.name, device))
                .ok_or_else(|| DeviceError::NotFound {
                    name: name.to_owned(),
                    there: there(),
                });
        }
        DeviceChoice::Backend(backend, _) => backend,
    };
    if !wanted.is_built_in() {
        return Err(DeviceError::NotBuiltIn {
            name: wanted.name(),
            there: there(),
        });
    }
    let full = choice.to_string();
    devices(wanted)
        .into_iter()
        .find(|(about, _)| about.name == full)
        .map(|(about, device)| (about.name, device))
        .ok_or_else(|| DeviceError::NotFound {
            name: full,
            there: there(),
        })
}

/// Every device that can be chosen, best first.
pub fn available() -> Vec<Available> {
    Backend::ALL
        .into_iter()
        .flat_map(devices)
        .map(|(about, _)| about)
        .collect()
}

fn there() -> String {
    let names: Vec<String> = available().into_iter().map(|a| a.name).collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

fn devices(backend: Backend) -> Vec<(Available, Device)> {
    match backend {
        Backend::Cuda => cuda(),
        Backend::Wgpu => wgpu(),
        Backend::Flex => flex(),
        Backend::Tch => tch(),
        Backend::NdArray => ndarray(),
    }
}

#[cfg(any(feature = "flex", feature = "ndarray", feature = "tch"))]
fn cpu(backend: Backend, description: &str, device: Device) -> Vec<(Available, Device)> {
    let about = Available {
        name: backend.name().into(),
        description: description.into(),
        automatic: true,
    };
    vec![(about, device)]
}

#[cfg(feature = "flex")]
fn flex() -> Vec<(Available, Device)> {
    cpu(Backend::Flex, "the CPU, pure Rust", Device::flex())
}

#[cfg(not(feature = "flex"))]
fn flex() -> Vec<(Available, Device)> {
    Vec::new()
}

#[cfg(feature = "ndarray")]
#[allow(deprecated)] // The backend is offered as long as burn has it.
fn ndarray() -> Vec<(Available, Device)> {
    cpu(
        Backend::NdArray,
        "the CPU, pure Rust, deprecated by burn in favour of flex",
        Device::ndarray(),
    )
}

#[cfg(not(feature = "ndarray"))]
fn ndarray() -> Vec<(Available, Device)> {
    Vec::new()
}

#[cfg(feature = "tch")]
#[allow(deprecated)] // The backend is offered as long as burn has it.
fn tch() -> Vec<(Available, Device)> {
    cpu(Backend::Tch, "the CPU, LibTorch", Device::libtorch())
}

#[cfg(not(feature = "tch"))]
fn tch() -> Vec<(Available, Device)> {
    Vec::new()
}

/// Without a driver the list is empty, whereas `Device::cuda(0)` would succeed and panic in use.
#[cfg(feature = "cuda")]
fn cuda() -> Vec<(Available, Device)> {
    numbered(Backend::Cuda, burn::tensor::DeviceType::Cuda)
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Vec<(Available, Device)> {
    Vec::new()
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Vec<(Available, Device)> {
    numbered(Backend::Wgpu, burn::tensor::DeviceType::Wgpu)
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Vec<(Available, Device)> {
    Vec::new()
}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn numbered(backend: Backend, kind: burn::tensor::DeviceType) -> Vec<(Available, Device)> {
    Device::enumerate(kind)
        .into_vec()
        .into_iter()
        .enumerate()
        .map(|(i, device)| {
            let identity = device.identity();
            let description = identity
                .as_ref()
                .map_or_else(|| "a device that does not say its name".into(), |id| id.name.clone());
            // A software rasterizer is no card.
            let automatic = backend == Backend::Cuda || identity.is_some_and(|id| id.physical.is_some());
            (
                Available {
                    name: format!("{}:{i}", backend.name()),
                    description,
                    automatic,
                },
                device,
            )
        })
        .collect()
}

/// A tensor's values could not be read from its device.
#[derive(Debug, thiserror::Error)]
#[error("reading a tensor from its device failed: {0}")]
pub struct ReadError(#[from] TensorReadError);

/// A tensor's values on the host, row-major.
///
/// # Errors
/// The device failed while it computed or copied them.
pub fn to_vec<E: Element, const D: usize>(tensor: Tensor<D>) -> Result<Vec<E>, ReadError> {
    Ok(tensor.try_into_vec_as::<E>()?)
}

/// The same as f32.
///
/// # Errors
/// As [`to_vec`].
pub fn to_f32<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ReadError> {
    to_vec(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood() {
        for (name, choice) in [
            ("auto", DeviceChoice::Auto),
            ("flex", DeviceChoice::Backend(Backend::Flex, 0)),
            ("cuda", DeviceChoice::Backend(Backend::Cuda, 0)),
            ("cuda:3", DeviceChoice::Backend(Backend::Cuda, 3)),
            ("wgpu:1", DeviceChoice::Backend(Backend::Wgpu, 1)),
            ("tch", DeviceChoice::Backend(Backend::Tch, 0)),
        ] {
            assert_eq!(name.parse(), Ok(choice), "{name}");
        }
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "flex:0", "CUDA"] {
            assert!(name.parse::<DeviceChoice>().is_err(), "{name}");
        }
        let error = "cudda".parse::<DeviceChoice>().unwrap_err().to_string();
        assert!(error.contains("did you mean `cuda`"), "{error}");
    }

    #[test]
    #[cfg(feature = "flex")]
    fn flex_opens_and_is_listed() {
        assert_eq!(open("flex"), Ok(Device::flex()));
        assert!(available().iter().any(|a| a.name == "flex"));
        let (name, _) = resolve("auto").unwrap();
        assert!(available().iter().any(|a| a.name == name));
    }

    #[test]
    #[cfg(feature = "flex")]
    fn capabilities_are_those_of_the_device_s_backend() {
        let flex = Capabilities::of(&Device::flex());
        assert!(flex.bf16 && flex.loss_filter && flex.ragged && flex.host_threads);
        assert_eq!(Capabilities::of(&Device::flex().autodiff()), flex);
        assert_eq!(Capabilities::of_name("flex"), flex);
        for name in ["cuda:1", "wgpu:0", "tch", "auto", "no such device"] {
            assert_eq!(Capabilities::of_name(name), Capabilities::default(), "{name}");
        }
        assert!(Capabilities::of_name("ndarray").host_threads && !Capabilities::of_name("ndarray").bf16);
    }

    #[test]
    fn a_missing_backend_says_what_is_there() {
        for backend in Backend::ALL.into_iter().filter(|b| !b.is_built_in()) {
            let error = open(backend.name()).unwrap_err();
            assert!(matches!(error, DeviceError::NotBuiltIn { .. }), "{error}");
            assert!(error.to_string().ends_with(&format!("there is {}", there())), "{error}");
        }
    }
}
