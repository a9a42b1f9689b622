//! Nothing but a manifest: features of crates that every build has, as a build with a GPU backend turns them on.
//!
//! Cargo compiles a crate anew for every set of features, and all that stand on it: without this, a build with wgpu or
//! CUDA would compile some 400 crates again that differ in nothing that matters. (The idea is cargo-hakari's.)
