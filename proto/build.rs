//! Compiles the protocol files with a pure-Rust compiler; the descriptor set also feeds gRPC reflection.

use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=sonde/v1");
    if std::env::var_os("CARGO_FEATURE_GRPC").is_none() {
        return Ok(());
    }
    let files = ["sonde/v1/session.proto", "sonde/v1/enrol.proto", "sonde/v1/admin.proto"];
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("sonde.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .codec_path("crate::wire::codec::LeanCodec")
        .bytes(".sonde.v1.Batch.columns")
        .skip_debug(
            ["Login", "HttpAuth", "ClientCredentials", "ClientCertificate"].map(|name| format!(".sonde.v1.{name}")),
        )
        .compile_fds(descriptors)?;
    Ok(())
}
