//! What the compiler says of every kernel of this crate: registers, and what did not fit into them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::compile::compile;
use super::libraries::Library;
use crate::cuda::Source;

const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_89", "sm_90a"];
/// A file that says `// spills allowed: NAME` excuses the kernel NAME.
const EXCUSE: &str = "// spills allowed: ";
/// A file that begins with `// behind: A, B` is compiled behind the files A and B beside it.
const BEHIND: &str = "// behind: ";

/// Every file of kernels, in the folder of an operation or in `cuda` there: the operation and the text.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for op in children(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let name = op.file_name().unwrap().to_str().unwrap().to_owned();
        let files = [op.clone(), op.join("cuda")].map(|folder| children(&folder)).concat();
        let files = files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "cu"));
        sources.extend(files.map(|file| (name.clone(), text(file))));
    }
    sources
}

/// The text of a file behind those that it names.
fn text(file: &Path) -> String {
    let own = std::fs::read_to_string(file).unwrap();
    let named = own.lines().next().and_then(|line| line.strip_prefix(BEHIND)).unwrap_or_default();
    let named = named.split(", ").filter(|name| !name.is_empty());
    let before: String = named.map(|name| std::fs::read_to_string(file.with_file_name(name)).unwrap()).collect();
    before + &own
}

/// What lies in a folder, in order; nothing if it is none.
fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Registers and spilled bytes by operation and kernel, in the order of [`ARCHITECTURES`].
type Census = BTreeMap<(String, String), Vec<(u32, u32)>>;

fn take(sources: &[(String, String)]) -> Census {
    let mut census = Census::new();
    for (op, text) in sources {
        let source = Source { name: op.clone().leak(), text: text.clone().leak() };
        for arch in ARCHITECTURES {
            for usage in compile(&source, arch).unwrap().usage {
                let figures = census.entry((op.clone(), usage.kernel)).or_default();
                figures.push((usage.registers, usage.spilled));
            }
        }
    }
    census
}

/// The census as a page for people.
fn page(census: &Census, compiler: &str) -> String {
    let mut page = format!(
        "# Registers of the kernels\n\nAs NVRTC {compiler} compiles them, which needs no card: registers of a thread and, behind a \
         plus, bytes spilled to memory.\nA test compares this page with what the compiler says and fails for a spill that \
         `kernel.cu` does not allow; `MLLM4REC_BLESS=1` writes it anew.\n\n| operation | kernel | {} |\n|---|---|{}\n",
        ARCHITECTURES.join(" | "),
        "---|".repeat(ARCHITECTURES.len())
    );
    for ((op, kernel), figures) in census {
        let cells: Vec<String> = figures
            .iter()
            .map(|&(registers, spilled)| match spilled {
                0 => registers.to_string(),
                _ => format!("{registers} + {spilled}"),
            })
            .collect();
        writeln!(page, "| {op} | {kernel} | {} |", cells.join(" | ")).unwrap();
    }
    page
}

#[test]
fn every_kernel_compiles_for_every_architecture_and_spills_only_where_that_is_allowed() {
    let version = match Library::Nvrtc.open() {
        Ok(found) => found.version.unwrap(),
        Err(reason) => {
            assert!(std::env::var_os("MLLM4REC_NEED_NVRTC").is_none(), "NVRTC was promised: {reason}");
            eprintln!("skipped: there is no NVRTC; set MLLM4REC_CUDA_LIBS to its folder");
            return;
        }
    };
    let sources = sources();
    assert!(!sources.is_empty());
    let census = take(&sources);
    for ((op, kernel), figures) in &census {
        assert_eq!(figures.len(), ARCHITECTURES.len(), "{op}: {kernel}");
        let mut lines = sources.iter().filter(|(name, _)| name == op).flat_map(|(_, text)| text.lines());
        let excused = lines.any(|line| line.strip_prefix(EXCUSE) == Some(kernel));
        let spilled: Vec<u32> = figures.iter().map(|&(_, spilled)| spilled).collect();
        assert!(excused || spilled.iter().all(|&bytes| bytes == 0), "{op}: {kernel} spills {spilled:?} bytes");
        println!("{op}: {kernel}: {figures:?}");
    }
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results/gpu/registers.md");
    let page = page(&census, &format!("{}.{}", version[0], version[1]));
    if std::env::var_os("MLLM4REC_BLESS").is_some() {
        std::fs::create_dir_all(record.parent().unwrap()).unwrap();
        std::fs::write(&record, &page).unwrap();
    }
    // Another compiler counts other registers.
    let recorded = std::fs::read_to_string(&record).unwrap_or_default();
    let same_compiler = recorded.contains(&format!("NVRTC {}.{} ", version[0], version[1]));
    if same_compiler && std::env::var_os("MLLM4REC_NEED_NVRTC").is_some() {
        assert!(
            recorded == page,
            "docs/results/gpu/registers.md is not what the compiler says: MLLM4REC_BLESS=1 writes it"
        );
    }
}
