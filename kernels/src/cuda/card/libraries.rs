//! The libraries of CUDA, opened when they are first needed: nothing of them is linked.
//!
//! They are looked for in the folders of `MLLM4REC_CUDA_LIBS` (separated by colons) and then where the system's loader looks,
//! which reads `LD_LIBRARY_PATH`.

use std::error::Error as _;
use std::ffi::{OsStr, c_int};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library as Handle, RTLD_GLOBAL, RTLD_NOW};

use crate::inspection::Lacking;
use crate::{Error, Result};

/// A library of CUDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Library {
    /// The driver, which comes with the card's kernel module.
    Driver,
    /// The compiler of kernels.
    Nvrtc,
    /// Dense products.
    CublasLt,
    /// Collectives between cards.
    Nccl,
}

/// A library that was opened.
#[derive(Debug)]
pub(super) struct Found {
    /// What the loader was given: a path, or a bare name that it found by itself.
    pub(super) opened: PathBuf,
    /// Major, minor and, where it has one, patch.
    pub(super) version: Option<[u32; 3]>,
}

/// What every library says of itself.
struct Facts {
    /// Newest first.
    files: &'static [&'static str],
    version: &'static [u8],
    /// What is called of it: a library that lacks one of these is too old, or damaged.
    functions: &'static [&'static str],
    brought_by: &'static str,
}

const DRIVER_FUNCTIONS: &[&str] = &[
    "cuInit",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetName",
    "cuDeviceTotalMem_v2",
    "cuDeviceGetDefaultMemPool",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuStreamCreate",
    "cuStreamSynchronize",
    "cuStreamQuery",
    "cuStreamDestroy_v2",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuStreamGetCaptureInfo_v3",
    "cuMemAllocAsync",
    "cuMemFreeAsync",
    "cuMemHostAlloc",
    "cuMemGetInfo_v2",
    "cuMemPoolTrimTo",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphKernelNodeGetParams_v2",
    "cuGraphExecKernelNodeSetParams_v2",
];

const NCCL_FUNCTIONS: &[&str] = &[
    "ncclGetUniqueId",
    "ncclCommInitRankConfig",
    "ncclCommGetAsyncError",
    "ncclCommAbort",
    "ncclCommFinalize",
    "ncclCommDestroy",
    "ncclSend",
    "ncclRecv",
    "ncclBroadcast",
    "ncclAllGather",
    "ncclGroupStart",
    "ncclGroupEnd",
    "ncclGetErrorString",
    "ncclGetLastError",
];

impl Library {
    /// All, in the order in which they are needed.
    pub(super) const ALL: [Self; 4] = [Self::Driver, Self::Nvrtc, Self::CublasLt, Self::Nccl];

    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Driver => "CUDA driver",
            Self::Nvrtc => "NVRTC",
            Self::CublasLt => "cuBLASLt",
            Self::Nccl => "NCCL",
        }
    }

    /// Where it comes from, for whoever lacks it.
    pub(super) fn brought_by(self) -> &'static str {
        self.facts().brought_by
    }

    fn facts(self) -> Facts {
        match self {
            Self::Driver => Facts {
                files: &["libcuda.so.1"],
                version: b"cuDriverGetVersion",
                functions: DRIVER_FUNCTIONS,
                brought_by: "the NVIDIA driver of the machine (in a container: the NVIDIA container toolkit)",
            },
            Self::Nvrtc => Facts {
                files: &["libnvrtc.so.13", "libnvrtc.so.12"],
                version: b"nvrtcVersion",
                functions: &["nvrtcCreateProgram", "nvrtcCompileProgram", "nvrtcGetCUBIN", "nvrtcGetProgramLog"],
                brought_by: "the package cuda-nvrtc-13-0, or nvidia-cuda-nvrtc of PyPI",
            },
            Self::CublasLt => Facts {
                files: &["libcublasLt.so.13", "libcublasLt.so.12"],
                version: b"cublasLtGetVersion",
                functions: &["cublasLtCreate", "cublasLtMatmul", "cublasLtMatmulAlgoGetHeuristic"],
                brought_by: "the package libcublas-13-0, or nvidia-cublas of PyPI",
            },
            Self::Nccl => Facts {
                files: &["libnccl.so.2"],
                version: b"ncclGetVersion",
                functions: NCCL_FUNCTIONS,
                brought_by: "the package libnccl2, or nvidia-nccl-cu13 of PyPI",
            },
        }
    }

    /// Opens the library, once for the process.
    ///
    /// # Errors
    /// Whether it is absent, or what is wrong with it.
    pub(super) fn open(self) -> Result<&'static Found, &'static Lacking> {
        static OPENED: [OnceLock<Result<Found, Lacking>>; 4] = [const { OnceLock::new() }; 4];
        OPENED[self as usize].get_or_init(|| self.search(&folders())).as_ref()
    }

    /// Opens the library for whoever cannot do without it.
    ///
    /// # Errors
    /// [`Error::Device`] says what brings it.
    pub(super) fn required(self) -> Result<&'static Found> {
        let refuse = |lacking| Error::Device(format!("{} {lacking}: it comes with {}", self.name(), self.brought_by()));
        self.open().map_err(refuse)
    }

    fn search(self, folders: &[PathBuf]) -> Result<Found, Lacking> {
        let (mut absent, mut unusable) = (Vec::new(), Vec::new());
        for file in self.facts().files {
            let paths = folders.iter().map(|folder| folder.join(file)).filter(|path| path.exists());
            for path in paths.chain([PathBuf::from(file)]) {
                if self == Self::Nvrtc {
                    open_builtins(&path);
                }
                match load(&path) {
                    Ok(handle) => match self.lacking(&handle) {
                        None => return Ok(Found { version: self.version(&handle), opened: keep(path, handle) }),
                        Some(function) => {
                            unusable.push(format!("{}: lacks {function}: it is too old or damaged", path.display()));
                        }
                    },
                    Err(said) if is_absence(&path, &said) => absent.push(said),
                    Err(said) if said.starts_with(&*path.to_string_lossy()) => unusable.push(said),
                    Err(said) => unusable.push(format!("{}: {said}", path.display())),
                }
            }
        }
        Err(if unusable.is_empty() {
            Lacking::Absent(absent.join("; "))
        } else {
            Lacking::Unusable(unusable.join("; "))
        })
    }

    /// The first function that the library should have and does not.
    fn lacking(self, handle: &Handle) -> Option<&'static str> {
        let facts = self.facts();
        let version = std::str::from_utf8(facts.version).unwrap_or_default();
        let lacks = |name: &&'static str| {
            // SAFETY: the function is looked up and not called.
            unsafe { handle.get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err()
        };
        facts.functions.iter().copied().chain([version]).find(lacks)
    }

    fn version(self, handle: &Handle) -> Option<[u32; 3]> {
        let name = self.facts().version;
        let mut numbers = [0, 0];
        // SAFETY: the functions of these names are of these types in every version of the libraries.
        let good = unsafe {
            match self {
                Self::Nvrtc => {
                    let ask = handle.get::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int>(name).ok()?;
                    ask(&raw mut numbers[0], &raw mut numbers[1]) == 0
                }
                Self::CublasLt => {
                    numbers[0] = c_int::try_from(handle.get::<unsafe extern "C" fn() -> usize>(name).ok()?()).ok()?;
                    true
                }
                Self::Driver | Self::Nccl => {
                    handle.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(name).ok()?(&raw mut numbers[0]) == 0
                }
            }
        };
        let [a, b] = numbers.map(|n| u32::try_from(n).unwrap_or(0));
        good.then_some(match self {
            Self::Driver => [a / 1000, a % 1000 / 10, 0],
            Self::Nvrtc => [a, b, 0],
            Self::CublasLt | Self::Nccl => [a / 10_000, a % 10_000 / 100, a % 100],
        })
    }
}

const FOLDERS: &str = "MLLM4REC_CUDA_LIBS";

/// The folders of `MLLM4REC_CUDA_LIBS`.
fn folders() -> Vec<PathBuf> {
    named(&std::env::var_os(FOLDERS).unwrap_or_default()).0
}

/// What is wrong with `MLLM4REC_CUDA_LIBS`: a sentence for every entry that is passed over.
pub(crate) fn misnamed() -> Vec<String> {
    named(&std::env::var_os(FOLDERS).unwrap_or_default()).1
}

/// The folders of such a list, and what is wrong with its other entries.
fn named(list: &OsStr) -> (Vec<PathBuf>, Vec<String>) {
    let (mut folders, mut misnamed) = (Vec::new(), Vec::new());
    for entry in std::env::split_paths(list).filter(|entry| !entry.as_os_str().is_empty()) {
        if !entry.is_absolute() {
            misnamed.push(format!("{FOLDERS} names {}, which is no absolute path", entry.display()));
        } else if !entry.is_dir() {
            misnamed.push(format!("{FOLDERS} names {}, which is no folder", entry.display()));
        } else {
            folders.push(entry);
        }
    }
    (folders, misnamed)
}

/// Whether the loader says that there is no such file, which it does in words only: not that the file wants another that is
/// not there, and not that it may not be read.
fn is_absence(file: &Path, said: &str) -> bool {
    said.contains(&*file.to_string_lossy()) && said.ends_with("No such file or directory")
}

/// The library stays for the rest of the process.
fn keep(path: PathBuf, handle: Handle) -> PathBuf {
    std::mem::forget(handle);
    path
}

fn load(path: &Path) -> Result<Handle, String> {
    // Others find it by its name then: cudarc opens what it needs by itself.
    // SAFETY: these libraries may be loaded at any time; they do no more than set themselves up.
    unsafe { Handle::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map_err(|e| {
        // What the loader said is the cause of the error; the error itself says no more than that it failed.
        e.source().map_or_else(|| e.to_string(), ToString::to_string)
    })
}

/// NVRTC opens its library of built-in functions by a bare name, which is found if it was opened before.
fn open_builtins(nvrtc: &Path) {
    let Some(folder) = nvrtc.parent().filter(|folder| folder.is_absolute()) else { return };
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let is_builtins = |name: &OsStr| name.to_string_lossy().starts_with("libnvrtc-builtins.so.");
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.file_name().is_some_and(is_builtins)) {
        if let Ok(handle) = load(&path) {
            std::mem::forget(handle);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn absence_is_told_from_damage() {
        let name = Path::new("libmllm4rec-nowhere.so.7");
        let said = load(name).err().unwrap();
        assert!(is_absence(name, &said), "the loader of this system says {said}");
        let wants = "libother.so.1: cannot open shared object file: No such file or directory";
        let denied = "libmllm4rec-nowhere.so.7: cannot open shared object file: Permission denied";
        assert!(!is_absence(name, wants) && !is_absence(name, denied));
    }

    #[test]
    fn entries_that_are_no_folders_are_told() {
        let here = std::env::temp_dir();
        let list = std::env::join_paths([&here, Path::new("/nowhere/cuda"), Path::new(""), Path::new("lib")]).unwrap();
        let (folders, misnamed) = named(&list);
        assert_eq!(folders, [here]);
        let wanted = ["/nowhere/cuda, which is no folder", "lib, which is no absolute path"];
        assert_eq!(misnamed, wanted.map(|what| format!("MLLM4REC_CUDA_LIBS names {what}")));
        assert_eq!(named(OsStr::new("")), (vec![], vec![]));
    }

    #[test]
    fn a_file_that_is_no_library_is_named() {
        let folder = std::env::temp_dir().join(format!("mllm4rec-libraries-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("libnccl.so.2");
        std::fs::write(&file, "no library").unwrap();
        let found = Library::Nccl.search(std::slice::from_ref(&folder));
        std::fs::remove_dir_all(&folder).unwrap();
        match found {
            Ok(found) => assert!(found.opened.is_relative(), "the system has another"),
            Err(Lacking::Unusable(said)) => assert!(said.starts_with(&*file.to_string_lossy()), "{said}"),
            Err(Lacking::Absent(said)) => panic!("{said}"),
        }
    }
}
