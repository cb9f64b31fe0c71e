//! Everything that `k8s/` renders to.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use mllm4rec_integration_tests::program::binary;
use serde_json::Value;

/// The documents that one command applies, and those that must be there before.
pub(crate) struct Rendered {
    pub(crate) name: String,
    pub(crate) documents: Vec<Value>,
    /// Trainings are put beside an installation.
    pub(crate) beside: Option<&'static str>,
}

/// What overlays do not use, as somebody would who needs it.
const COMPOSED: [(&str, &str, &[&str]); 3] = [
    ("gpu with every component", "gpu", &["ingress", "nightly", "keda", "traces", "gke-identity", "aks-identity"]),
    ("a training in a queue", "training-job", &["kueue"]),
    ("a set in a queue", "training-jobset", &["kueue"]),
];

/// Every overlay, the base, every component in some company, and what the program itself renders. Nothing, and a word
/// about it, where there is no `kubectl`.
pub(crate) fn all() -> Option<&'static [Rendered]> {
    static ALL: OnceLock<Option<Vec<Rendered>>> = OnceLock::new();
    ALL.get_or_init(render).as_deref()
}

/// The folder of the manifests.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s").canonicalize().unwrap()
}

fn render() -> Option<Vec<Rendered>> {
    if let Err(why) = Command::new("kubectl").args(["version", "--client"]).output() {
        println!("SKIPPED: the manifests cannot be rendered without kubectl ({why})");
        return None;
    }
    let mut all = vec![of_folder("base", &folder().join("base"))];
    let mut overlays: Vec<PathBuf> =
        std::fs::read_dir(folder().join("overlays")).unwrap().map(|entry| entry.unwrap().path()).collect();
    overlays.sort();
    all.extend(overlays.iter().map(|path| of_folder(path.file_name().unwrap().to_str().unwrap(), path)));
    all.extend(COMPOSED.iter().map(|(name, overlay, components)| composed(name, overlay, components)));
    all.extend([rendered_by_us(&["--gpus", "1", "--queue", "training"]), rendered_by_us(&["--gpus", "0"])]);
    Some(all)
}

fn of_folder(name: &str, folder: &Path) -> Rendered {
    let output = Command::new("kubectl").arg("kustomize").arg(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    assert!(!said.contains("deprecated"), "{name}: {said}");
    named(name, &String::from_utf8(output.stdout).unwrap())
}

fn named(name: &str, text: &str) -> Rendered {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    let beside = documents.iter().all(|document| document["kind"] != "Namespace").then_some("base");
    Rendered { name: name.to_owned(), documents, beside }
}

/// An overlay with components, in a folder elsewhere: kustomize takes no absolute paths.
fn composed(name: &str, overlay: &str, components: &[&str]) -> Rendered {
    let own = tempfile::tempdir().unwrap();
    let up = "../".repeat(own.path().canonicalize().unwrap().components().count() - 1);
    let to = |what: &str| format!("  - {up}{}\n", folder().join(what).strip_prefix("/").unwrap().display());
    let components: String = components.iter().map(|component| to(&format!("components/{component}"))).collect();
    let text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: mllm4rec\nresources:\n{}components:\n{components}",
        to(&format!("overlays/{overlay}"))
    );
    std::fs::write(own.path().join("kustomization.yaml"), text).unwrap();
    of_folder(name, own.path())
}

fn rendered_by_us(options: &[&str]) -> Rendered {
    let file = tempfile::NamedTempFile::new().unwrap();
    let job = "schema_version = 1\nname = \"films\"\n[dataset]\nformat = \"movielens\"\npath = \"/inputs/films\"\n[ranker]\nbase = \"/inputs/llama\"\n";
    std::fs::write(file.path(), job).unwrap();
    let mut command = Command::new(binary());
    command.args(["k8s", "render", "--workers", "4", "--job"]).arg(file.path()).args(options);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    named(&format!("k8s render {}", options.join(" ")), &String::from_utf8(output.stdout).unwrap())
}

impl Rendered {
    /// Its documents, and those of what it stands beside.
    pub(crate) fn installed(&self) -> impl Iterator<Item = &Value> {
        let beside = self.beside.and_then(|name| all()?.iter().find(|rendered| rendered.name == name));
        self.documents.iter().chain(beside.into_iter().flat_map(|rendered| &rendered.documents))
    }

    /// The documents of a kind, with what it stands beside.
    pub(crate) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.installed().filter(move |document| document["kind"] == kind)
    }
}

/// The name of a document.
pub(crate) fn name(document: &Value) -> &str {
    document["metadata"]["name"].as_str().unwrap()
}
