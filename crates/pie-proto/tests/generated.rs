//! `generated/` holds what the proto files become: it is committed, so that the program is built without a compiler of proto
//! files. Where it is not what they say, this fails; `PIE_WRITE_PROTO=1 cargo test -p pie-proto --test generated` writes it.

use prost::Message;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto")
}

fn compile(files: &[&str]) -> prost_types::FileDescriptorSet {
    protox::compile(files, [root()]).expect("the proto files compile")
}

/// Compares a file with what it should be, or writes it.
fn check(name: &str, wanted: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("generated").join(name);
    if std::env::var_os("PIE_WRITE_PROTO").is_some() {
        std::fs::write(&path, wanted).expect("the file is written");
    }
    assert!(
        std::fs::read(&path).is_ok_and(|found| found == wanted),
        "generated/{name} is not what the proto files say: PIE_WRITE_PROTO=1 cargo test -p pie-proto --test generated"
    );
}

#[test]
fn the_wire_types_are_what_the_proto_files_say() {
    let files =
        ["pie/v1/pie.proto", "pie/v1/admin.proto", "pie/worker/v1/worker.proto", "pie/peer/v1/peer.proto"];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let generator = tonic_prost_build::configure().out_dir(folder.path());
    generator.compile_fds(compile(&files)).expect("types can be made of them");
    for name in ["pie.v1.rs", "pie.worker.v1.rs", "pie.peer.v1.rs"] {
        check(name, &std::fs::read(folder.path().join(name)).expect("a file for each package"));
    }
}

/// What a client may ask reflection for, with what these files, and those of error details, import.
#[test]
fn the_descriptors_are_those_of_the_public_files() {
    let public = [
        "pie/v1/pie.proto",
        "pie/v1/admin.proto",
        "google/protobuf/any.proto",
        "google/protobuf/duration.proto",
    ];
    check("public.bin", &compile(&public).encode_to_vec());
}
