//! The installation that is played.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::{Workshop, binary};
use serde_json::Value;

use crate::bucket::{Bucket, CANARY};
use crate::controllers::{Deployment, Job};
use crate::manifest::Manifests;
use crate::node::{Node, write};
use crate::service::Service;

/// The longest that anything may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// The service's port.
const PORT: u64 = 7070;

/// What a process that shows a certificate tells of it.
const CERTIFICATE: &str = "mllm4rec_certificate_expiration_timestamp_seconds";

/// What pods find.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) manifests: Mutex<Manifests>,
    version: AtomicU32,
}

impl World {
    /// The program of an image, in the version of now.
    pub(crate) fn program(&self, image: &str) -> PathBuf {
        assert!(image.contains("/mllm4rec"), "{image} is not ours");
        self.node.path(&format!("mllm4rec-{}", self.version.load(Ordering::Relaxed)))
    }

    /// From now on images hold another version.
    pub(crate) fn next_version(&self) {
        let next = self.version.load(Ordering::Relaxed) + 1;
        std::fs::copy(binary(), self.node.path(&format!("mllm4rec-{next}"))).unwrap();
        self.version.store(next, Ordering::Relaxed);
    }

    /// The names of the services.
    pub(crate) fn hosts(&self) -> PathBuf {
        self.node.path("hosts")
    }

    /// A folder with the files of a Secret.
    pub(crate) fn secret(&self, name: &str) -> PathBuf {
        self.node.path(&format!("secrets/{name}"))
    }

    /// What a claim is bound to.
    pub(crate) fn claim(&self, name: &str) -> PathBuf {
        self.node.path(&format!("claims/{name}"))
    }
}

/// Two installations would be slow together.
static ALONE: Mutex<()> = Mutex::new(());

/// An installation and a job.
pub(crate) struct Site {
    started: Instant,
    world: Arc<World>,
    pub(crate) bucket: Bucket,
    url: String,
    certificates: PathBuf,
    coordinator: Option<Deployment>,
    pool: Option<Deployment>,
    train: Option<Job>,
    submit: Option<Job>,
    _alone: MutexGuard<'static, ()>,
}

impl Site {
    /// Prepares everything, where the system, `kubectl` and moto let us.
    pub(crate) fn start() -> Option<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let node = Node::lay()?;
        let bucket = Bucket::start(&node)?;
        let service = node.service_address(2);
        let manifests = Manifests::of(&overlay(&node, &bucket))?;
        let names = "coordinator coordinator.mllm4rec coordinator.mllm4rec.svc";
        write(&node.path("hosts"), format!("127.0.0.1 localhost\n{service} {names}\n").as_bytes());
        let certificates = node.path("certs");
        secrets(&node, &certificates, &service);
        inputs(&node.path("claims/inputs"));
        let world = Arc::new(World { node, manifests: Mutex::new(manifests), version: AtomicU32::new(0) });
        world.next_version();
        let url = format!("https://{service}:{PORT}");
        let (coordinator, pool, train, submit) = (None, None, None, None);
        Some(Self {
            started: Instant::now(),
            world,
            bucket,
            url,
            certificates,
            coordinator,
            pool,
            train,
            submit,
            _alone: alone,
        })
    }

    /// Applies the base, with so many workers in the pool.
    pub(crate) fn apply_base(&mut self, workers: usize) {
        let address = self.url.split("//").nth(1).unwrap().split(':').next().unwrap();
        let service = Service::listen(address, PORT);
        let mut coordinator = Deployment::of(&self.world, "coordinator", Some(service));
        coordinator.scale(1);
        let mut pool = Deployment::of(&self.world, "worker", None);
        pool.scale(workers);
        (self.coordinator, self.pool) = (Some(coordinator), Some(pool));
        self.until("coordinator and workers are ready", |site| {
            site.coordinator.as_ref().unwrap().ready() == 1 && site.pool().ready() == workers
        });
        for pod in [&self.coordinator, &self.pool].into_iter().flatten().flat_map(Deployment::all) {
            assert!(
                pod.page().is_some_and(|page| page.contains(CERTIFICATE)),
                "{} tells no end of its certificate",
                pod.name
            );
        }
    }

    /// Applies what `k8s render` writes for the job of this test. Returns the job's id.
    pub(crate) fn apply_job(&mut self, workers: u32) -> String {
        let file = self.world.node.path("job.toml");
        write(&file, JOB.as_bytes());
        let mut command = Command::new(binary());
        command.args(["k8s", "render", "--gpus", "0", "--workers", &workers.to_string(), "--job"]).arg(file);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let rendered = Manifests::read(&String::from_utf8(output.stdout).unwrap());
        let [submit, train] = ["submit-night-", "train-night-"].map(|name| rendered.name("Job", name));
        self.world.manifests.lock().unwrap().join(rendered);
        self.train = Some(Job::start(&self.world, &train));
        self.submit = Some(Job::start(&self.world, &submit));
        self.until("the job is there", |site| !site.jobs().is_empty());
        self.jobs()[0].clone()
    }

    pub(crate) fn pool(&mut self) -> &mut Deployment {
        self.pool.as_mut().unwrap()
    }

    pub(crate) fn train(&mut self) -> &mut Job {
        self.train.as_mut().unwrap()
    }

    pub(crate) fn submit(&mut self) -> &mut Job {
        self.submit.as_mut().unwrap()
    }

    /// Rolls out a new version of the coordinator.
    pub(crate) fn roll_coordinator(&mut self) {
        self.coordinator.as_mut().unwrap().roll();
    }

    /// Drains the node of the pool.
    pub(crate) fn drain(&mut self) {
        self.pool().drain();
    }

    /// Looks again and again until something has happened, and does what controllers do meanwhile.
    pub(crate) fn until(&mut self, what: &str, mut happened: impl FnMut(&mut Self) -> bool) {
        let started = Instant::now();
        loop {
            for job in [&mut self.train, &mut self.submit].into_iter().flatten() {
                job.reconcile();
                if let Some(Err(why)) = &job.outcome {
                    panic!("{why}\n{}", job.log());
                }
            }
            if happened(self) {
                println!("{:6.1} s  {what}", self.started.elapsed().as_secs_f64());
                return;
            }
            assert!(started.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Cancels a job, and waits until what was made for it has failed. Returns why that was, of training and client.
    pub(crate) fn cancel(&mut self, job: &str) -> [String; 2] {
        let _ = self.json(&["cancel", job, "--reason", "enough"]);
        let started = Instant::now();
        loop {
            let jobs = [&mut self.train, &mut self.submit].map(|job| job.as_mut().unwrap());
            let failed = jobs.map(|job| {
                job.reconcile();
                job.ended().then(|| job.outcome.clone().unwrap().expect_err("a cancelled job has succeeded"))
            });
            if let [Some(train), Some(submit)] = failed {
                return [train, submit];
            }
            assert!(started.elapsed() < PATIENCE, "not after {PATIENCE:?}: {job} is cancelled\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn jobs(&self) -> Vec<String> {
        let jobs = self.json(&["ps"])["jobs"].clone();
        jobs.as_array().unwrap().iter().map(|job| job["job"].as_str().unwrap().to_owned()).collect()
    }

    /// The stage of a job.
    fn stage(&self, job: &str, stage: &str) -> Value {
        let status = self.json(&["status", job]);
        status["stages"].as_array().unwrap().iter().find(|s| s["stage"] == stage).unwrap().clone()
    }

    /// Members of the ranker's training.
    pub(crate) fn members(&self, job: &str) -> u64 {
        self.stage(job, "train_ranker")["members"].as_u64().unwrap()
    }

    /// Shards of the rankings that are done.
    pub(crate) fn ranked(&self, job: &str) -> u64 {
        self.of_rankings(job, "done")
    }

    /// Shards of the rankings.
    pub(crate) fn shards(&self, job: &str) -> u64 {
        self.of_rankings(job, "all")
    }

    fn of_rankings(&self, job: &str, what: &str) -> u64 {
        let status = self.json(&["status", job]);
        let rankings = status["stages"].as_array().unwrap().iter().filter(|stage| stage["stage"] == "rank");
        rankings.map(|stage| stage["shards"][what].as_u64().unwrap()).sum()
    }

    fn json(&self, args: &[&str]) -> Value {
        let file = |name: &str| self.certificates.join(format!("{name}.pem"));
        let mut command = Command::new(binary());
        command.args(args).args(["--json", "--coordinator", &self.url, "--tls-ca"]).arg(file("ca"));
        command.arg("--tls-cert").arg(file("operator")).arg("--tls-key").arg(file("operator-key"));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}\n{}", self.logs());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The end of what every pod has said.
    fn logs(&self) -> String {
        let deployments = [&self.coordinator, &self.pool].into_iter().flatten().flat_map(Deployment::all);
        let jobs = [&self.train, &self.submit].into_iter().flatten().flat_map(Job::all);
        let end = |text: String| {
            text.lines()
                .rev()
                .take(12)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .map(|l| format!("{l}\n"))
                .collect::<String>()
        };
        deployments.chain(jobs).map(|pod| format!("== {} {:?}\n{}", pod.name, pod.state(), end(pod.log()))).collect()
    }

    /// How every pod ended, and whether anything happened that must not.
    pub(crate) fn check_ends(&mut self) {
        self.pool().scale(0);
        self.coordinator.as_mut().unwrap().scale(0);
        let killed = self.pool().all().filter(|pod| !pod.state().restarts.is_empty()).count();
        assert_eq!(killed, 1, "one worker was killed, and no other container was started again:\n{}", self.logs());
        for pod in self.pool.as_ref().unwrap().all() {
            assert_eq!(pod.state().code, Some(143), "{} did not leave in order:\n{}", pod.name, pod.log());
        }
        for pod in self.coordinator.as_ref().unwrap().all() {
            assert_eq!((pod.state().code, pod.state().restarts), (Some(143), vec![]), "{}:\n{}", pod.name, pod.log());
        }
        let deployments = [&self.coordinator, &self.pool].into_iter().flatten().flat_map(Deployment::all);
        let jobs = [&self.train, &self.submit].into_iter().flatten().flat_map(Job::all);
        let faults: Vec<String> = deployments.chain(jobs).flat_map(|pod| pod.state().faults).collect();
        assert!(faults.is_empty(), "{faults:?}");
    }

    /// No secret is in a log, on a page of figures, or in an object: journals, records, footers.
    pub(crate) fn check_secrets(&self) {
        let mut secrets = vec![CANARY.to_owned()];
        for key in ["ca-key", "server-key", "worker-key", "submitter-namespace-key", "operator-key"] {
            let pem = std::fs::read_to_string(self.certificates.join(format!("{key}.pem"))).unwrap();
            secrets.extend(pem.lines().filter(|line| line.len() > 40 && !line.starts_with("---")).map(str::to_owned));
        }
        assert!(secrets.len() > 5, "the keys have another form");
        let deployments = [&self.coordinator, &self.pool].into_iter().flatten().flat_map(Deployment::all);
        let jobs = [&self.train, &self.submit].into_iter().flatten().flat_map(Job::all);
        for pod in deployments.chain(jobs) {
            for text in [pod.log(), pod.page().unwrap_or_default()] {
                assert!(!secrets.iter().any(|secret| text.contains(secret.as_str())), "{} tells a secret", pod.name);
            }
        }
        let told = self.bucket.objects_with(&secrets);
        assert!(told.is_empty(), "secrets are in {told:?}");
    }

    /// What a job wrote.
    pub(crate) fn outputs(&self, job: &str) -> JobOutputs {
        JobOutputs::of(self.bucket.all(), job)
    }

    pub(crate) fn took(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        (self.coordinator, self.pool, self.train, self.submit) = (None, None, None, None);
        // Kubelets hold on to the node until their processes have ended.
        let started = Instant::now();
        while Arc::strong_count(&self.world) > 1 && started.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A job that a gang trains and a pool scores; its paths are those of the pods.
const JOB: &str = r#"
schema_version = 1
name = "night"
splits = ["validation", "test"]
[dataset]
format = "movielens"
path = "/inputs/data"
min_interactions_per_user = 1
min_interactions_per_item = 2
shard_users = 1
[retriever]
hidden = 16
layers = 1
max_length = 20
batch_size = 16
max_epochs = 3
validate_every = 10
candidates = 20
[ranker]
base = "/inputs/base"
role = "You pick films."
history = 12
negatives = "random"
batch_size = 8
warmup_steps = 2
max_steps = 40
validate_every = 20
permutations = 4
"#;

/// The base with this bucket for the one that people name.
fn overlay(node: &Node, bucket: &Bucket) -> PathBuf {
    let folder = node.path("overlay");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s/base").canonicalize().unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    let up = "../".repeat(folder.canonicalize().unwrap().components().count() - 1);
    let mut text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: mllm4rec\nresources:\n  - {up}{}\n\
         configMapGenerator:\n  - name: mllm4rec\n    behavior: merge\n    literals:\n      - MLLM4REC_ROOT=s3://shop/run\n",
        base.strip_prefix("/").unwrap().display()
    );
    for (name, value) in bucket.variables() {
        text += &format!("      - {name}={value}\n");
    }
    text += "generatorOptions:\n  disableNameSuffixHash: true\n";
    write(&folder.join("kustomization.yaml"), text.as_bytes());
    folder
}

/// The Secrets, as docs/operate.md has people make them where cert-manager does not.
fn secrets(node: &Node, certificates: &Path, service: &str) {
    let workshop = Workshop::open();
    let out = certificates.display().to_string();
    let hosts = ["coordinator", "coordinator.mllm4rec", "coordinator.mllm4rec.svc", service];
    let hosts: Vec<&str> = hosts.iter().flat_map(|host| ["--host", host]).collect();
    let _ = workshop.call(&[&["certs", "--out", &out], &hosts[..]].concat()).succeeded();
    let _ = workshop.call(&["certs", "--out", &out, "--add", "submitter", "namespace"]).succeeded();
    let read = |name: &str| std::fs::read(certificates.join(format!("{name}.pem"))).unwrap();
    for (secret, pair) in
        [("coordinator-tls", "server"), ("worker-tls", "worker"), ("client-tls", "submitter-namespace")]
    {
        for (file, content) in [("ca.crt", "ca"), ("tls.crt", pair), ("tls.key", &format!("{pair}-key"))] {
            write(&node.path(&format!("secrets/{secret}/{file}")), &read(content));
        }
    }
}

/// What job files name by path.
fn inputs(folder: &Path) {
    mllm4rec_integration_tests::shop::write(&folder.join("data"));
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo-base");
    for file in std::fs::read_dir(base).unwrap().map(|file| file.unwrap().path()) {
        write(&folder.join("base").join(file.file_name().unwrap()), &std::fs::read(&file).unwrap());
    }
}
