//! What the compiler says of every kernel of this crate: registers, and what did not fit into them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::compile::{Usage, compile};
use super::libraries::Library;
use crate::cuda::Source;

const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_89", "sm_90a"];
/// A file that says `// spills allowed: NAME` excuses the kernel NAME.
const EXCUSE: &str = "// spills allowed: ";

/// Every file of kernels by its path, with the text that it is compiled from: the headers that the code puts before it.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut sources, mut files) = (Vec::new(), Vec::new());
    for path in below(&root) {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") if path.file_name().is_some_and(|name| name != "census.rs") => {
                for parts in included(&path) {
                    let text: String = parts.iter().map(|part| std::fs::read_to_string(part).unwrap()).collect();
                    sources.push((named(&root, parts.last().unwrap()), text));
                }
            }
            Some("cu") => files.push(named(&root, &path)),
            _ => {}
        }
    }
    sources.sort();
    files.sort();
    let names: Vec<&String> = sources.iter().map(|(name, _)| name).collect();
    assert_eq!(names, files.iter().collect::<Vec<_>>(), "every file of kernels is compiled somewhere, once");
    sources
}

/// `rope` for `rope/kernel.cu`, `nf4/few` for `nf4/few.cu`, `attention/cache` for `attention/cuda/cache.cu`.
fn named(root: &Path, file: &Path) -> String {
    let inside = file.canonicalize().unwrap().strip_prefix(root.canonicalize().unwrap()).unwrap().with_extension("");
    let words = inside.iter().map(|word| word.to_str().unwrap());
    words.filter(|word| !["kernel", "cuda", "card"].contains(word)).collect::<Vec<_>>().join("/")
}

/// What a file of Rust includes, by the names in its literals: headers and the file of kernels behind them make a group.
fn included(path: &Path) -> Vec<Vec<PathBuf>> {
    let text = std::fs::read_to_string(path).unwrap();
    let (mut groups, mut group) = (Vec::new(), Vec::new());
    let literals = text.split('"');
    for name in literals.filter(|name| name.ends_with(".cu") || name.ends_with(".cuh")) {
        let file = path.parent().unwrap().join(name);
        if file.is_file() {
            group.push(file);
        }
        if name.ends_with(".cu") && !group.is_empty() {
            groups.push(std::mem::take(&mut group));
        }
    }
    groups
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

/// Registers and spilled bytes by operation and kernel, in the order of [`ARCHITECTURES`].
type Census = BTreeMap<(String, String), Vec<(u32, u32)>>;

fn take(sources: &[(String, String)]) -> Census {
    let jobs: Vec<_> = sources.iter().flat_map(|source| ARCHITECTURES.map(|arch| (source, arch))).collect();
    let usage = jobs.into_par_iter().map(|((name, text), arch)| {
        let source = Source { name: name.clone().leak(), text: text.clone().leak() };
        (name, compile(&source, arch).unwrap().usage)
    });
    let mut census = Census::new();
    for (name, usage) in usage.collect::<Vec<_>>() {
        for Usage { kernel, registers, spilled } in usage {
            census.entry((name.clone(), kernel)).or_default().push((registers, spilled));
        }
    }
    census
}

/// The census as a page for people.
fn page(census: &Census, compiler: &str) -> String {
    let mut page = format!(
        "# Registers of the kernels\n\nAs NVRTC {compiler} compiles them, which needs no card: registers of a thread and, behind a \
         plus, bytes spilled to memory.\nA test compares this page with what the compiler says and fails for a spill that \
         `kernel.cu` does not allow; `MLLM4REC_BLESS=1` writes it anew.\n\n| file | kernel | {} |\n|---|---|{}\n",
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
    if !Path::new(env!("CARGO_MANIFEST_DIR")).is_dir() {
        eprintln!("skipped: the sources are not where these tests were built");
        return;
    }
    let version = match Library::Nvrtc.open() {
        Ok(found) => found.version.unwrap(),
        Err(lacking) => {
            assert!(std::env::var_os("MLLM4REC_NEED_NVRTC").is_none(), "NVRTC was promised and {lacking}");
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
