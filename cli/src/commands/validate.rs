//! `mllm4rec validate`: everything that is wrong with a job file.

use anyhow::Result;
use data::job::Stage;

use crate::args::Validate;
use crate::commands::read_job;
use crate::exit;
use crate::terminal::print;

/// Checks a job file and says what it would do.
pub(crate) fn run(args: &Validate) -> Result<u8> {
    let job = read_job(&args.config, &args.sets, None)?;
    let stages: Vec<&str> = job.stages.iter().copied().map(Stage::as_str).collect();
    print(format_args!(
        "{} is valid: job `{}` runs {}; its data are read when it runs",
        args.config.display(),
        job.name,
        stages.join(" → ")
    ));
    Ok(exit::DONE)
}
