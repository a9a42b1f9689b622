//! Makes cargo unify the features of what macros are compiled with.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
