//! `cargo xtask sanitize`: the kernels' tests under AddressSanitizer, once for every set of instructions.
//!
//! Nearly all `unsafe` of the workspace is in the kernels. Besides memory that is read or written out of bounds, after it
//! was freed or never again, this finds overflows of numbers, which release builds let pass. It has a target folder of its
//! own: nothing of ordinary builds is built anew afterwards.

use anyhow::Result;

use crate::step::{Step, cargo, summarize};
use crate::{kernels, target_folder};

/// Runs the tests, also behind a set of instructions on which they fail.
pub(crate) fn run() -> Result<bool> {
    let mut ended = Vec::new();
    for instructions in ["avx512", "avx2", "portable"] {
        ended.push(tests(instructions)?.run());
    }
    Ok(summarize(&ended))
}

fn tests(instructions: &'static str) -> Result<Step> {
    // The target is named so that the flags do not reach build scripts and macros.
    let mut command =
        cargo(&["test", "--release", "--no-fail-fast", "--package", "mllm4rec-kernels", "--target", "host-tuple"]);
    // Examples of the documentation are linked without the sanitizer, so they stay out.
    command.args(["--lib", "--tests"]);
    if instructions != "avx512" {
        command.arg("--").args(kernels::NOT_ON_A_DEVICE);
    }
    command
        .env("CARGO_TARGET_DIR", target_folder()?.join("sanitize"))
        // Sanitizers are unstable options, which this makes a stable compiler accept: no other toolchain is needed.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .env(kernels::VARIABLE, instructions);
    Ok(Step { name: instructions, command })
}
