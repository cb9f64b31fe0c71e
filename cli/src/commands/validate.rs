//! `mllm4rec validate`: everything that is wrong with a job file.

use anyhow::Result;
use data::job::Stage;

use crate::args::Validate;
use crate::commands::read_job;
use crate::exit;

/// Checks a job file and says what it would do.
pub(crate) fn run(args: &Validate) -> Result<u8> {
    let job = read_job(&args.config, &args.sets, None)?;
    let stages: Vec<&str> = job.stages.iter().copied().map(Stage::as_str).collect();
    println!("{} is valid: job `{}` runs {}", args.config.display(), job.name, stages.join(" → "));
    Ok(exit::DONE)
}
