//! Generates the wire types with protox, so that no protoc needs to be installed.

use prost::Message;
use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../../proto");
    let files =
        ["pie/v1/pie.proto", "pie/v1/admin.proto", "pie/worker/v1/worker.proto", "pie/peer/v1/peer.proto"];
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(files, [&root])?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"), descriptors.encode_to_vec())?;
    // What a client may ask reflection for, with what these files, and those of error details, import.
    let public = [
        "pie/v1/pie.proto",
        "pie/v1/admin.proto",
        "google/protobuf/any.proto",
        "google/protobuf/duration.proto",
    ];
    let public = protox::compile(public, [&root])?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("public.bin"), public.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
