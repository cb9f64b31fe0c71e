//! `mllm4rec validate`: everything that is wrong with a job file.

use anyhow::Result;
use data::job::{Job, ModelSection, Stage};

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
    for line in grid(&job) {
        print(line);
    }
    Ok(exit::DONE)
}

/// What a sweep tries, one line for a model.
fn grid(job: &Job) -> Vec<String> {
    let line = |section: ModelSection| {
        let trials = job.sweep.trials(section);
        let axis = |swept: &data::job::SweptKey| {
            let values: Vec<String> = swept.values.iter().map(ToString::to_string).collect();
            format!("{} = {}", swept.key, values.join(", "))
        };
        let axes: Vec<String> = job.sweep.keys(section).map(axis).collect();
        let count = if trials == 1 { "1 trial".to_owned() } else { format!("{trials} trials") };
        (trials > 0).then(|| format!("sweep: {count} of {}: {}", section.training(), axes.join(" × ")))
    };
    ModelSection::ALL.into_iter().filter_map(line).collect()
}
