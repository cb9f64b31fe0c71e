//! `mllm4rec k8s`: manifests of a job's own machines.

use std::path::PathBuf;

use clap::Subcommand;

/// `mllm4rec k8s`
#[derive(Debug, clap::Args)]
pub(crate) struct K8s {
    /// What to do.
    #[command(subcommand)]
    pub(crate) action: K8sAction,
}

/// What can be done for Kubernetes.
#[derive(Debug, Subcommand)]
pub(crate) enum K8sAction {
    /// Write the manifests that submit a job and train it on pods of its own, for `kubectl apply -f -`.
    Render(Render),
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("it must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `mllm4rec k8s render`
#[derive(Debug, clap::Args)]
pub(crate) struct Render {
    /// The job file; its paths are those that the pods see.
    #[arg(long, value_name = "FILE")]
    pub(crate) job: PathBuf,
    /// Override a key of the job file; may be given again.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Pods that train together.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) workers: u32,
    /// NVIDIA cards of a pod; none for CPUs.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=16))]
    pub(crate) gpus: u32,
    /// Memory of a pod.
    #[arg(long, value_name = "QUANTITY", default_value = "32Gi")]
    pub(crate) memory: String,
    /// Processors of a pod.
    #[arg(long, value_name = "QUANTITY", default_value = "4")]
    pub(crate) cpu: String,
    /// A queue of Kueue in which the pods wait until all of them can run.
    #[arg(long, value_name = "NAME")]
    pub(crate) queue: Option<String>,
    /// A Secret whose keys become variables of the pods that train, such as the keys of a bucket; may be given again.
    #[arg(long = "secret", value_name = "NAME")]
    pub(crate) secrets: Vec<String>,
    /// A label of the pods that train, such as a cloud wants for their identity; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// The image of the workers.
    #[arg(long, default_value = concat!("registry.example/mllm4rec:", env!("CARGO_PKG_VERSION")))]
    pub(crate) image: String,
    /// The image of the pod that submits the job.
    #[arg(long, default_value = concat!("registry.example/mllm4rec-coordinator:", env!("CARGO_PKG_VERSION")))]
    pub(crate) client_image: String,
    /// The namespace of the coordinator.
    #[arg(long, default_value = "mllm4rec")]
    pub(crate) namespace: String,
}
