//! Generates the gRPC code with a compiler written in Rust, so that a build needs only cargo.

#[cfg(feature = "rpc")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/keyward.proto");
    let files = protox::compile(["keyward.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").build_transport(false).compile_fds(files)?;
    Ok(())
}

#[cfg(not(feature = "rpc"))]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
