//! An NCCL of our own making, and groups of emulated devices that it joins.

use std::ffi::{CString, c_char, c_long, c_void};
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use libloading::os::unix::Library;

use crate::Result;
use crate::collective::nccl::api::Api;
use crate::collective::nccl::{Aborter, Nccl};
use crate::collective::{Collective, local};
use crate::cuda::{self, RawStream, Stream};

type Set = unsafe extern "C" fn(*const c_char, c_long);
type Get = unsafe extern "C" fn(*const c_char) -> c_long;

/// A copy of the library with settings and counters of its own.
pub(super) struct Fake {
    pub(super) api: Arc<Api>,
    set: Set,
    get: Get,
    /// Keeps the code where it is.
    _library: Library,
}

impl Fake {
    pub(super) fn new() -> Self {
        Self::of_version(22_703).unwrap()
    }

    /// A library that says it is of such a version.
    pub(super) fn of_version(number: u32) -> Result<Self, String> {
        let text = format!("#define FAKE_VERSION {number}\n{}", include_str!("fake.cpp"));
        let file = copied(&cuda::library_of("fake-nccl", &text)?);
        let api = Api::open(file.as_os_str());
        // SAFETY: the library is ours and does nothing when it is loaded.
        let library = unsafe { Library::open(Some(&file), libloading::os::unix::RTLD_NOW) }.unwrap();
        std::fs::remove_file(&file).unwrap();
        // SAFETY: the text has functions of these types.
        let (set, get) = unsafe { (*library.get("fake_set").unwrap(), *library.get("fake_get").unwrap()) };
        Ok(Self { api: Arc::new(api?), set, get, _library: library })
    }

    pub(super) fn set(&self, setting: &str, value: usize) {
        let name = CString::new(setting).unwrap();
        // SAFETY: the name ends with 0.
        unsafe { (self.set)(name.as_ptr(), value as c_long) };
    }

    pub(super) fn count(&self, counter: &str) -> usize {
        let name = CString::new(counter).unwrap();
        // SAFETY: as above.
        usize::try_from(unsafe { (self.get)(name.as_ptr()) }).unwrap()
    }

    /// Asserts that nothing is left and that nothing was done that must not be.
    pub(super) fn is_clean(&self) {
        for counter in ["alive", "calls_of_the_dead", "bad_destroys"] {
            assert_eq!(self.count(counter), 0, "{counter}");
        }
        assert_eq!(self.count("inits"), self.count("aborts") + self.count("destroys"));
    }

    /// Joins as a member of a group whose device is emulated.
    pub(super) fn join(&self, ring: impl Collective + 'static, aborter: &Aborter) -> Result<(Nccl, Stream)> {
        self.join_on(ring, cuda::emulator_of(1 << 26), Arc::new(Calm::default()), aborter)
    }

    /// The same with a device and what is seen of its stream.
    pub(super) fn join_on(
        &self,
        ring: impl Collective + 'static,
        on: Stream,
        raw: Arc<dyn RawStream>,
        aborter: &Aborter,
    ) -> Result<(Nccl, Stream)> {
        let nccl = Nccl::join(Box::new(ring), Ok(Arc::clone(&self.api)), Some((on.clone(), raw)), aborter)?;
        Ok((nccl, on))
    }

    /// What every member of a group returns, by rank.
    pub(super) fn together<T: Send>(&self, world: usize, work: impl Fn(Nccl, &Stream) -> T + Sync) -> Vec<T> {
        self.each(world, |ring| {
            let (nccl, on) = self.join(ring, &Aborter::new()).unwrap();
            work(nccl, &on)
        })
    }

    /// The same with the groups that they are to be opened over.
    pub(super) fn each<T: Send>(&self, world: usize, work: impl Fn(local::Local) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let work = &work;
            let members: Vec<_> = local::group(world).into_iter().map(|ring| scope.spawn(move || work(ring))).collect();
            members.into_iter().map(|member| member.join().unwrap()).collect()
        })
    }
}

/// A file of the same content: the loader takes it for another library.
fn copied(library: &PathBuf) -> PathBuf {
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let number = COPIES.fetch_add(1, Ordering::Relaxed);
    let copy = std::env::temp_dir().join(format!("mllm4rec-nccl-{}-{number}.so", std::process::id()));
    std::fs::copy(library, &copy).unwrap();
    copy
}

/// The stream of a device that does at once what it is asked for, or never while it is told to be busy.
#[derive(Default)]
pub(super) struct Calm {
    pub(super) is_busy: AtomicBool,
    pub(super) was_asked: AtomicBool,
}

impl RawStream for Calm {
    fn enter(&self) -> Result<*mut c_void> {
        Ok(ptr::null_mut())
    }

    fn is_idle(&self) -> Result<bool> {
        self.was_asked.store(true, Ordering::Release);
        Ok(!self.is_busy.load(Ordering::Acquire))
    }
}
