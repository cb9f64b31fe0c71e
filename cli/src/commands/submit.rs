//! `mllm4rec submit`: hands a job to a coordinator.

use anyhow::{Context, Result};
use data::job::Job;
use serde_json::json;

use crate::args::Submit;
use crate::client::Client;
use crate::commands::read_job_for_others;
use crate::named_files::{NamedFile, absolute, named_files};
use crate::terminal::{print, print_error};
use crate::{exit, follow};

/// Submits a job and says what it is called.
pub(crate) async fn run(args: Submit) -> Result<u8> {
    let job = read_job_for_others(&args.config, &args.sets)?;
    let here = std::env::current_dir().context("cannot tell where this command runs")?;
    let toml = absolute(&job, &here)?;
    let mut client = Client::connect(&args.reach).await?;
    let sent = Job::parse("the job", &toml, &[])?;
    let submitted = match client.submit(toml).await {
        Err(refused) => {
            let hint = who_reads(&refused, &sent, client.url())?;
            return Err(match hint {
                Some(hint) => refused.context(hint),
                None => refused,
            });
        }
        Ok(submitted) => submitted,
    };
    let (id, complete) = (submitted.job_id, submitted.complete);
    if args.wait {
        return follow::to_the_end(&args.reach, &id, args.json).await;
    }
    if args.json {
        let root = client.info().await?.root;
        print(format_args!("{:#}", json!({"job": id, "complete": complete, "root": root})));
        return Ok(exit::DONE);
    }
    print(&id);
    print_error(match complete {
        true => format!("every stage was done before; `mllm4rec outputs {id}` names the folders"),
        false => format!("submitted; `mllm4rec status {id} --watch` shows how far it is"),
    });
    Ok(exit::DONE)
}

/// What a refusal adds if it is about a file that this machine may well have.
fn who_reads(refused: &anyhow::Error, sent: &Job, url: &str) -> Result<Option<String>> {
    let words = format!("{refused:#}");
    let files = named_files(sent)?;
    let mut local = files.iter().filter_map(NamedFile::local);
    let is_local = local.any(|path| words.contains(&path.display().to_string()));
    Ok(is_local.then(|| format!("the coordinator at {url} reads the paths of a job where it runs")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_local_files_say_who_looked() -> Result<()> {
        let text = "schema_version = 1\nname = \"shop\"\nstages = [\"prepare\"]\n[dataset]\npath = \"/data/log.csv\"";
        let said = |words: &str, set: &str| {
            let sent = Job::parse("job", text, &[set.to_owned()])?;
            who_reads(&anyhow::anyhow!("{words}"), &sent, "https://c:7070")
        };
        let of_log = said("cannot read /data/log.csv: no such file", "limits.max_rejected=1")?;
        assert!(of_log.is_some_and(|said| said.contains("https://c:7070")));
        assert!(said("cannot read /d/log.csv: no such file", "dataset.path=\"file:///d/log.csv\"")?.is_some());
        assert_eq!(said("cannot read s3://b/log.csv: no such object", "dataset.path=\"s3://b/log.csv\"")?, None);
        assert_eq!(said("the store is away", "limits.max_rejected=1")?, None);
        Ok(())
    }
}
