//! What this machine can compute with, in words and figures for people. Nothing of it is needed to compute.

mod processor;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use processor::Processor;

use crate::cuda;

/// What a machine has.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The CPU.
    pub processor: Processor,
    /// The libraries of CUDA, in the order in which they are needed.
    pub libraries: Vec<Library>,
    /// What is wrong with the folders that are named for them, as [`misnamed_folders`] finds it.
    pub misnamed_folders: Vec<String>,
    /// The release of NVIDIA's kernel module, such as 580.65.06.
    pub driver_release: Option<String>,
    /// Every card that the driver sees.
    pub cards: Vec<CardReport>,
    /// The cards to compute on, as [`cards`] finds them.
    pub usable: Result<Vec<Card>, NoCard>,
}

/// A library that is opened at run time.
#[derive(Clone, Debug)]
pub struct Library {
    /// What people call it.
    pub name: &'static str,
    /// What installs it.
    pub brought_by: &'static str,
    /// Whether nothing runs on a card without it.
    pub needed: bool,
    /// Where it was found, or why it cannot be used.
    pub found: Result<Opened, Lacking>,
}

/// Why a library cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lacking {
    /// It is nowhere: what the system's loader says.
    #[error("is missing")]
    Absent(String),
    /// There is one, which is too old or damaged, or wants another that is not there: what is wrong with it.
    #[error("cannot be used ({0})")]
    Unusable(String),
}

impl Lacking {
    /// What is said of every place where it was looked for.
    #[must_use]
    pub fn said(&self) -> &str {
        let (Self::Absent(said) | Self::Unusable(said)) = self;
        said
    }
}

/// A library that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its file.
    pub path: PathBuf,
    /// What it says of itself.
    pub version: Option<String>,
}

/// A card as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its number, from 0: that of [`crate::Device::cuda`].
    pub number: usize,
    /// Its model.
    pub name: String,
    /// Its compute capability, major and minor.
    pub capability: (u32, u32),
    /// Its memory.
    pub memory_bytes: u64,
}

/// A card that was tried.
#[derive(Clone, Debug)]
pub struct CardReport {
    /// The card.
    pub card: Card,
    /// Memory that nobody uses.
    pub free_bytes: Option<u64>,
    /// Why a small kernel does not compile for it or does not run on it; none if it does.
    pub problem: Option<String>,
}

/// Why there is no card to compute on, briefly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCard {
    /// There is no driver.
    #[error("no CUDA driver on this machine")]
    NoDriver {
        /// What installs it.
        brought_by: &'static str,
    },
    /// There is a driver that does not work.
    #[error("the CUDA driver does not start: {0}")]
    BadDriver(String),
    /// The driver works and has nothing to drive.
    #[error("the CUDA driver sees no GPU")]
    NoneSeen,
    /// There are cards, all too old.
    #[error(
        "{name} has compute capability {}.{}, the kernels need {}.{}",
        capability.0, capability.1, NoCard::LEAST_CAPABILITY.0, NoCard::LEAST_CAPABILITY.1
    )]
    TooOld {
        /// One of them.
        name: String,
        /// What it has.
        capability: (u32, u32),
    },
    /// There is a card, but not all that it needs.
    #[error("{library} {lacking}")]
    NoLibrary {
        /// What is missing.
        library: &'static str,
        /// What installs it.
        brought_by: &'static str,
        /// Whether it is absent.
        lacking: Lacking,
    },
}

impl NoCard {
    /// The compute capability of the first cards that have what the kernels use: tensor cores for bfloat16, asynchronous copies.
    pub const LEAST_CAPABILITY: (u32, u32) = (8, 0);

    /// Whether there is a card all the same.
    #[must_use]
    pub fn is_there(&self) -> bool {
        matches!(self, Self::TooOld { .. } | Self::NoLibrary { .. })
    }

    /// What to do about it, where something can be done.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::NoDriver { brought_by } => Some(format!("it comes with {brought_by}")),
            Self::NoLibrary { brought_by, .. } => Some(format!(
                "it comes with {brought_by}; if it lies where the loader does not look, name its folder in MLLM4REC_CUDA_LIBS"
            )),
            Self::NoneSeen => Some("look at nvidia-smi and at CUDA_VISIBLE_DEVICES".to_owned()),
            Self::BadDriver(_) => Some("look at nvidia-smi".to_owned()),
            Self::TooOld { .. } => None,
        }
    }
}

/// The cards to compute on, at least one. This asks the driver and takes nothing from a card.
///
/// # Errors
/// Why there is none.
pub fn cards() -> Result<Vec<Card>, NoCard> {
    cuda::cards()
}

/// What is wrong with `MLLM4REC_CUDA_LIBS`: a sentence for every entry in which no library is looked for, as it is no folder.
#[must_use]
pub fn misnamed_folders() -> Vec<String> {
    cuda::misnamed()
}

/// Looks at everything that computations use. Every card runs a small kernel: that takes a moment, and some of its memory
/// meanwhile.
#[must_use]
pub fn inspect() -> Inspection {
    Inspection {
        processor: Processor::inspect(),
        libraries: cuda::libraries(),
        misnamed_folders: misnamed_folders(),
        driver_release: driver_release(),
        cards: cuda::seen().unwrap_or_default().into_iter().map(cuda::examine).collect(),
        usable: cuda::cards(),
    }
}

fn driver_release() -> Option<String> {
    release_in(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

/// The number in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:26:14 UTC 2025`.
fn release_in(text: &str) -> Option<String> {
    let is_release = |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    text.lines().next()?.split_whitespace().find(is_release).map(str::to_owned)
}
