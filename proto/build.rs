//! Compiles the wire contract with protox, so that no protoc is needed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["proto/mllm4rec.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
