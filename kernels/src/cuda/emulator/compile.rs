//! Kernels as a library of the host: compiled once for every text, and kept.

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libloading::Library;

use super::super::{PRELUDE, Source};
use super::signature::{Signature, signatures};

const FLAGS: &str = "-x c++ -std=c++17 -O2 -g1 -w -shared -fPIC -fvisibility=hidden -ffp-contract=off -fno-strict-aliasing \
                     -fno-exceptions -fno-rtti";

/// A kernel called with the addresses of its arguments.
type Wrapper = unsafe extern "C" fn(*mut *mut c_void);
/// Runs a launch; returns something else than 0 if it went wrong.
type Run = unsafe extern "C" fn(*const Launch) -> c_int;

/// A launch as `fibers.h` sees it.
#[repr(C)]
pub(super) struct Launch {
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) shared_bytes: u32,
    pub(super) reversed: u32,
    pub(super) seed: u64,
    pub(super) kernel: Wrapper,
    pub(super) arguments: *mut *mut c_void,
    pub(super) message: *mut c_char,
    pub(super) message_bytes: u64,
}

/// The compiled kernels of a file.
#[derive(Debug)]
pub(super) struct Module {
    kernels: Vec<(Signature, Wrapper)>,
    run: Run,
    /// The library runs one launch at a time.
    turn: Mutex<()>,
    /// Keeps the code where it is.
    _library: Library,
}

type Compiled = Result<Arc<Module>, String>;

impl Module {
    /// The kernels of a file, compiled if no launch before asked for them; or what is wrong in words.
    pub(super) fn of(source: &Source) -> Compiled {
        static MODULES: Mutex<Option<HashMap<u64, Arc<OnceLock<Compiled>>>>> = Mutex::new(None);
        let signatures = signatures(source.text)?;
        let text = host_text(source, &signatures);
        let compilers = compilers();
        let mut hasher = DefaultHasher::new();
        (&text, FLAGS, &compilers).hash(&mut hasher);
        let key = hasher.finish();

        // Others that need the same wait for it, those that need something else do not.
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        let module = Arc::clone(modules.get_or_insert_default().entry(key).or_default());
        drop(modules);
        let compile = || {
            let library = compile(&format!("{}-{key:016x}", source.name), &text, &compilers)?;
            Self::load(&library, signatures)
                .map(Arc::new)
                .map_err(|e| format!("cannot load {}: {e}", library.display()))
        };
        module.get_or_init(compile).clone()
    }

    fn load(path: &Path, signatures: Vec<Signature>) -> Result<Self, libloading::Error> {
        // SAFETY: the library is compiled from our text, which does nothing when it is loaded.
        let library = unsafe { Library::new(path)? };
        let wrapper = |signature: Signature| {
            let name = format!("mllm4rec_call_{}", signature.kernel);
            // SAFETY: `Signature::wrapper` defines the function with this type.
            let wrapper = *unsafe { library.get::<Wrapper>(name)? };
            Ok((signature, wrapper))
        };
        let kernels = signatures.into_iter().map(wrapper).collect::<Result<_, libloading::Error>>()?;
        // SAFETY: `fibers.h` defines the function with this type.
        let run = *unsafe { library.get::<Run>("mllm4rec_run")? };
        Ok(Self { kernels, run, turn: Mutex::new(()), _library: library })
    }

    pub(super) fn kernel(&self, name: &str) -> Option<(&Signature, Wrapper)> {
        self.kernels
            .iter()
            .find(|(signature, _)| signature.kernel == name)
            .map(|(signature, wrapper)| (signature, *wrapper))
    }

    /// # Safety
    /// The launch is one of a kernel of this module, with addresses of arguments as its signature has them.
    pub(super) unsafe fn run(&self, launch: &Launch) -> bool {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller's promise; the launch lives until the call returns, and no other is under way.
        unsafe { (self.run)(launch) == 0 }
    }
}

/// A file's kernels and all that they need, as C++ of the host.
fn host_text(source: &Source, signatures: &[Signature]) -> String {
    let wrappers: String = signatures.iter().map(Signature::wrapper).collect();
    let parts = [
        ("fibers.h", include_str!("fibers.h")),
        ("shim.h", include_str!("shim.h")),
        ("prelude.cuh", PRELUDE),
        (source.name, source.text),
        ("wrappers", &wrappers),
    ];
    let lines = parts.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}\n"));
    format!("#define MLLM4REC_EMULATED\n{}", lines.collect::<String>())
}

/// Compilers to try, in this order.
fn compilers() -> Vec<String> {
    let named = std::env::var("CXX").ok().filter(|named| !named.trim().is_empty());
    named.map_or_else(|| ["c++", "g++", "clang++"].map(str::to_owned).to_vec(), |named| vec![named])
}

/// A text of C++ as a library, compiled as kernels are.
#[cfg(test)]
pub(crate) fn library_of(name: &str, text: &str) -> Result<PathBuf, String> {
    static TURN: Mutex<()> = Mutex::new(());
    let compilers = compilers();
    let mut hasher = DefaultHasher::new();
    (text, FLAGS, &compilers).hash(&mut hasher);
    // Threads of this process would write to the same files.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    compile(&format!("{name}-{:016x}", hasher.finish()), text, &compilers)
}

/// Compiles a text to a library, if none of an earlier process is there.
pub(super) fn compile(name: &str, text: &str, compilers: &[String]) -> Result<PathBuf, String> {
    let folder = std::env::temp_dir().join("mllm4rec-emulator");
    let library = folder.join(format!("{name}.so"));
    if library.exists() {
        return Ok(library);
    }
    let cannot_write = |e| format!("cannot write to {}: {e}", folder.display());
    std::fs::create_dir_all(&folder).map_err(cannot_write)?;
    // Tests of other processes may compile the same.
    let unfinished = folder.join(format!("{name}-{}.so", std::process::id()));
    let text_file = unfinished.with_extension("cpp");
    std::fs::write(&text_file, text).map_err(cannot_write)?;
    let output = call(compilers, &unfinished, &text_file);
    // The text stays for whoever debugs a kernel.
    std::fs::rename(&text_file, library.with_extension("cpp")).map_err(cannot_write)?;
    let output = output?;
    if !output.status.success() {
        return Err(format!("does not compile\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    std::fs::rename(&unfinished, &library).map_err(cannot_write)?;
    Ok(library)
}

/// Calls the first compiler that there is.
fn call(compilers: &[String], library: &Path, text_file: &Path) -> Result<Output, String> {
    for compiler in compilers {
        let mut words = compiler.split_whitespace();
        let program = words.next().unwrap_or_default();
        let flags = FLAGS.split_whitespace();
        match Command::new(program).args(words).args(flags).arg("-o").arg(library).arg(text_file).output() {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            result => return result.map_err(|e| format!("cannot call {compiler}: {e}")),
        }
    }
    let tried = compilers.join(", ");
    Err(format!("needs a C++ compiler, and there is no {tried}: install g++ or clang++, or name one by CXX"))
}
