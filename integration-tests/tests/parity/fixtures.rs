//! Where the golden files are.

use std::path::{Path, PathBuf};

/// The folder of a topic: in the set that `MLLM4REC_FIXTURES` names, or else in the set beside these tests.
///
/// Says so and gives nothing if the set lacks the topic.
pub(crate) fn folder(topic: &str) -> Option<PathBuf> {
    let set = match std::env::var_os("MLLM4REC_FIXTURES") {
        Some(set) => PathBuf::from(set),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"),
    };
    let folder = set.join(topic);
    if !folder.is_dir() {
        println!("skipped: no {topic} in this set");
        return None;
    }
    Some(folder)
}
