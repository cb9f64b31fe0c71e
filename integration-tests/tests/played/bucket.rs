//! The bucket: S3 of this machine, with the policies of `docs/policies.md` by service account.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use data::store::Store;
use mllm4rec_integration_tests::servers::MOTO;
use serde_json::{Value, json};

use crate::node::Node;

/// Who may do everything: the test itself.
const TEST: &str = "test";
/// The policies of the documentation, in its order.
const ROLES: [&str; 4] = ["worker", "coordinator", "operator", "reader"];
const PORT: &str = "5000";
/// A secret that is found wherever it shows up.
pub(crate) const CANARY: &str = "canary-3b1f7c9d20";

/// The bucket `shop`; gone with the value.
pub(crate) struct Bucket {
    server: Child,
    address: String,
    denied: PathBuf,
    brake: PathBuf,
}

impl Bucket {
    /// Starts it, where moto is.
    pub(crate) fn start(node: &Node) -> Option<Self> {
        let Some(python) = std::env::var_os(MOTO) else {
            println!("SKIPPED: {MOTO} names no Python with moto; `cargo xtask check` installs it");
            return None;
        };
        let (address, denied, file) = (node.service_address(1), node.path("denied.jsonl"), node.path("policies.json"));
        let brake = node.path("brake");
        std::fs::write(&file, policies().to_string()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/bucket.py");
        let mut command = Command::new(python);
        command.arg(script).args([&address, PORT]).args([&file, &denied, &brake]);
        let log = std::fs::File::create(node.path("bucket.log")).unwrap();
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{}", std::fs::read_to_string(node.path("bucket.log")).unwrap());
        Some(Self { server, address, denied, brake })
    }

    /// From now on rankings are written slowly, so that a job lasts however fast this machine is.
    pub(crate) fn brake(&self) {
        std::fs::write(&self.brake, "").unwrap();
    }

    /// And no longer.
    pub(crate) fn release(&self) {
        std::fs::remove_file(&self.brake).unwrap();
    }

    /// What every pod is told of it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let url = format!("http://{}:{PORT}", self.address);
        vec![("AWS_ENDPOINT_URL", url), ("AWS_ALLOW_HTTP", "true".to_owned()), ("AWS_REGION", "us-east-1".to_owned())]
    }

    /// The root, as somebody of the cloud sees it.
    pub(crate) fn open(&self, account: &str) -> Store {
        let variables: Vec<(&str, String)> = identity(account).into_iter().chain(self.variables()).collect();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Store::open_with("s3://shop/run", &variables).unwrap()
    }

    /// The same for the test.
    pub(crate) fn all(&self) -> Store {
        self.open(TEST)
    }

    /// The objects that hold one of some texts.
    pub(crate) fn objects_with(&self, texts: &[String]) -> Vec<String> {
        let (store, runtime) = (self.all(), tokio::runtime::Runtime::new().unwrap());
        runtime.block_on(async {
            let mut found = Vec::new();
            let all = store.list("").await.unwrap();
            assert!(all.len() > 100, "{} objects", all.len());
            for entry in all {
                let bytes = store.get(&entry.path).await.unwrap();
                if texts.iter().any(|text| holds(&bytes, text)) {
                    found.push(entry.path);
                }
            }
            found
        })
    }

    /// Every call that was refused to somebody, a line each.
    pub(crate) fn denied_to(&self, account: &str) -> String {
        let refusals = std::fs::read_to_string(&self.denied).unwrap_or_default();
        let of_account = format!("\"who\": \"{account}\"");
        refusals.lines().filter(|line| line.contains(&of_account)).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What the cloud gives to a pod of a service account.
pub(crate) fn identity(account: &str) -> Vec<(&'static str, String)> {
    vec![("AWS_ACCESS_KEY_ID", account.to_owned()), ("AWS_SECRET_ACCESS_KEY", CANARY.to_owned())]
}

/// Whether bytes hold a text.
pub(crate) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The policies for S3 that the documentation has, for this bucket.
fn policies() -> Value {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policies.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("S3\n")).unwrap();
    let blocks: Vec<&str> =
        section.split("```json\n").skip(1).map(|block| block.split("\n```").next().unwrap()).collect();
    assert_eq!(blocks.len(), ROLES.len(), "the policies are those of {ROLES:?}");
    let mut policies = json!({TEST: "everything"});
    for (role, block) in ROLES.into_iter().zip(blocks) {
        let own = block.replace("PUBLISH_BUCKET", "published").replace("PUBLISH_PREFIX", "rankings");
        policies[role] = serde_json::from_str(&own.replace("BUCKET", "shop").replace("PREFIX", "run")).unwrap();
    }
    policies
}

/// What workers must not do, they cannot.
pub(crate) fn refuses_what_no_policy_allows(bucket: &Bucket) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (worker, all) = (bucket.open("worker"), bucket.all());
        let done = "_control/v1/artifacts/rank/x/done/00000.json";
        worker.create(done, "{}".into()).await.unwrap();
        worker.delete(done).await.unwrap_err();
        worker.put(done, "other".into()).await.unwrap_err();
        worker.create("_control/v1/jobs/x/cancelled.json", "{}".into()).await.unwrap_err();
        worker.create("_control/v1/leader/00002.json", "{}".into()).await.unwrap_err();
        assert_eq!(all.get(done).await.unwrap(), "{}");
        bucket.open("client").get(done).await.unwrap_err();
        bucket.open("nobody").get(done).await.unwrap_err();
    });
    let refused = bucket.denied_to("worker");
    assert!(refused.lines().count() >= 4, "{refused}");
    assert!(!bucket.denied_to("client").is_empty() && !bucket.denied_to("nobody").is_empty());
}
