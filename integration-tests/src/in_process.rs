//! A coordinator and workers in the process of the test, which says what they compute on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use coordinator::{Coordinator, Options};
use data::job::Job;
use data::store::Store;
use kernels::Device;
use proto::JobStatus;
use proto::pb::{SubmitRequest, WatchRequest, jobs_client::JobsClient};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::outputs::JobOutputs;
use crate::program::binary;

/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(280);

/// A coordinator that leads over a root, and the threads on which it and its workers run.
#[derive(Debug)]
pub struct InProcess {
    root: PathBuf,
    coordinator: Coordinator,
    stop: CancellationToken,
    runtime: Runtime,
}

/// A worker that was started.
pub type Working = JoinHandle<worker::Result<()>>;

impl InProcess {
    /// Starts the coordinator over a folder.
    ///
    /// # Panics
    /// If it cannot lead there.
    #[must_use]
    pub fn start(root: &Path, options: Options) -> Self {
        std::fs::create_dir_all(root).expect("the root can be made");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime can be built");
        let store = Store::open(&root.display().to_string()).expect("the root can be opened");
        let coordinator = runtime.block_on(Coordinator::start(store, options)).expect("the coordinator starts");
        Self { root: root.to_owned(), coordinator, stop: CancellationToken::new(), runtime }
    }

    /// Starts a worker on a device that `open` opens.
    #[must_use]
    pub fn worker(&self, name: &str, open: impl FnMut() -> kernels::Result<Device> + Send + 'static) -> Working {
        let options = worker::Options {
            coordinator: proto::Endpoint::open(self.url()),
            name: name.to_owned(),
            device: "emulated".to_owned(),
            threads: 1,
            spool: self.root.with_file_name(format!("spool of {name}")),
            patience: Duration::from_secs(10),
            decoder: worker::decoders::DecoderCommand {
                program: binary().into(),
                args: vec!["decode-pictures".into()],
            },
            peers: None,
            job: None,
            observer: worker::Observer::default(),
        };
        self.runtime.spawn(worker::run(open, options, self.stop.clone()))
    }

    /// Submits a job, again if it failed.
    ///
    /// # Panics
    /// If the coordinator does not take it.
    #[must_use]
    pub fn submit(&self, job: &Job) -> String {
        let submitted = async {
            let mut client = JobsClient::connect(self.url()).await?;
            anyhow::Ok(client.submit(SubmitRequest { job_toml: job.to_toml() }).await?.into_inner().job_id)
        };
        self.runtime.block_on(submitted).expect("the job is taken")
    }

    /// Watches a job until its status is such, or it has ended.
    ///
    /// # Panics
    /// If that takes too long.
    #[must_use]
    pub fn watch(&self, job: &str, such: impl Fn(&JobStatus) -> bool) -> JobStatus {
        let watched = async {
            let mut client = JobsClient::connect(self.url()).await?;
            let mut statuses = client.watch(WatchRequest { job_id: job.to_owned() }).await?.into_inner();
            loop {
                let status = statuses.next().await.expect("the last status says that the job has ended")?;
                let status = JobStatus::try_from(status)?;
                if such(&status) || status.state.ended() {
                    return anyhow::Ok(status);
                }
            }
        };
        self.wait(watched).expect("the job can be watched")
    }

    /// Waits for the end of a worker.
    ///
    /// # Errors
    /// What it ended of.
    ///
    /// # Panics
    /// If that takes too long, or it panicked.
    pub fn end_of(&self, worker: Working) -> worker::Result<()> {
        self.wait(worker).expect("workers do not panic")
    }

    /// Stops the workers, which must end in order, and the coordinator, and opens what a job wrote.
    ///
    /// # Panics
    /// If one of them ended of an error.
    #[must_use]
    pub fn close(self, workers: impl IntoIterator<Item = Working>, job: &str) -> JobOutputs {
        self.stop.cancel();
        for worker in workers {
            self.end_of(worker).expect("the worker leaves in order");
        }
        self.runtime.block_on(self.coordinator.stop()).expect("the coordinator ends in order");
        JobOutputs::open(&self.root, job)
    }

    fn url(&self) -> String {
        format!("http://{}", self.coordinator.address())
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await }).expect("it ends in time")
    }
}
