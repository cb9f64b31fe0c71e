//! The tests of the kernels on fewer instructions than this processor has.

use std::process::Command;

use crate::step::{Ended, Step};
use crate::{programs, root};

/// The variable that the kernels read, see the documentation of their crate.
pub(crate) const VARIABLE: &str = "MLLM4REC_SIMD";
/// Leaves out what runs on a device, where these instructions do not matter.
pub(crate) const NOT_ON_A_DEVICE: [&str; 4] = ["--skip", "device", "--skip", "cuda::"];

/// Runs the programs that `cargo test --workspace` has built, so that nothing is built again, on the instructions that it
/// did not use on a processor with all of them.
pub(crate) fn on_fewer_instructions() -> Vec<Ended> {
    let programs = match programs::tests() {
        Ok(programs) => programs,
        Err(e) => {
            println!("\n── kernels: {e:#}");
            return vec![Ended::failed("kernels")];
        }
    };
    let programs: Vec<_> = programs.into_iter().filter(|program| program.of("mllm4rec-kernels")).collect();
    let run = |name, instructions| {
        let ended = programs.iter().map(|program| {
            let mut command = Command::new(&program.path);
            command.args(NOT_ON_A_DEVICE);
            command.env(VARIABLE, instructions).current_dir(root().join("kernels"));
            Step { name, command }.run()
        });
        ended.reduce(Ended::and).unwrap_or_else(|| Ended::failed(name))
    };
    vec![run("kernels (avx2)", "avx2"), run("kernels (portable)", "portable")]
}
