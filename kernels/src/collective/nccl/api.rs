//! The functions of NCCL that a gang needs, looked up in the library that is there.
//!
//! Types and numbers are those of `nccl.h` of NCCL 2.17, which later versions take as they are.

use std::error::Error as _;
use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::fmt;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::cuda;

/// `ncclComm_t`
pub(super) type Handle = *mut c_void;
/// `cudaStream_t`
pub(super) type RawHandle = *mut c_void;
/// `ncclFloat32`
pub(super) const FLOAT: c_int = 7;
/// The first version whose calls return at once whatever the card is at, and whose aborts join the threads of other calls: in
/// those before, an abort from another thread frees what these still use.
pub(super) const LEAST: [u32; 2] = [2, 23];
/// The version of the configuration's layout.
const LAYOUT: c_uint = 21_700;

/// `ncclUniqueId`: where the members meet.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct UniqueId(pub(super) [u8; UniqueId::BYTES]);

impl UniqueId {
    pub(super) const BYTES: usize = 128;
}

/// `ncclConfig_t` of 2.17. It says how large it is: what later versions have behind it they fill in themselves.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
}

impl Config {
    /// Calls return at once, and say later how they went.
    pub(super) fn non_blocking() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: LAYOUT,
            blocking: 0,
            cga_cluster_size: c_int::MIN,
            min_ctas: c_int::MIN,
            max_ctas: c_int::MIN,
            net_name: std::ptr::null(),
        }
    }
}

/// `ncclResult_t`
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) c_int);

impl Code {
    pub(super) const SUCCESS: Self = Self(0);
    pub(super) const CUDA: Self = Self(1);
    pub(super) const SYSTEM: Self = Self(2);
    pub(super) const REMOTE: Self = Self(6);
    pub(super) const IN_PROGRESS: Self = Self(7);
}

type Transfer = unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, Handle, RawHandle) -> Code;
type OfComm = unsafe extern "C" fn(Handle) -> Code;
type Copies = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, Handle, RawHandle) -> Code;
type Broadcasts = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Handle, RawHandle) -> Code;
type Init = unsafe extern "C" fn(*mut Handle, c_int, UniqueId, c_int, *mut Config) -> Code;

/// An opened library.
pub(super) struct Api {
    /// Major, minor and patch.
    pub(super) version: [u32; 3],
    pub(super) get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> Code,
    pub(super) init: Init,
    pub(super) async_error: unsafe extern "C" fn(Handle, *mut Code) -> Code,
    pub(super) abort: OfComm,
    pub(super) finalize: OfComm,
    pub(super) destroy: OfComm,
    pub(super) send: Transfer,
    pub(super) receive: Transfer,
    pub(super) broadcast: Broadcasts,
    pub(super) all_gather: Copies,
    pub(super) group_start: unsafe extern "C" fn() -> Code,
    pub(super) group_end: unsafe extern "C" fn() -> Code,
    error_string: unsafe extern "C" fn(Code) -> *const c_char,
    last_error: unsafe extern "C" fn(Handle) -> *const c_char,
    /// Keeps the code where it is.
    _library: Library,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Api {
    /// That of the library of this machine.
    ///
    /// # Errors
    /// What is wrong with it and what brings it, in words.
    pub(super) fn installed() -> Result<Self, String> {
        Self::open(cuda::nccl()?.as_os_str())
    }

    /// That of a file, or of a name that the loader knows.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn open(file: &OsStr) -> Result<Self, String> {
        // What the loader said is the cause of the error.
        let named = |e: libloading::Error| match e.source() {
            Some(said) => format!("{}: {said}", file.display()),
            None => format!("{}: {e}", file.display()),
        };
        // SAFETY: the library does no more than set itself up when it is loaded, which it may at any time.
        let library = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_LOCAL) }.map_err(named)?;
        // SAFETY: the functions of these names are of these types in every version from 2.17 on.
        let api = unsafe { Self::of(library) }.map_err(named)?;
        let [major, minor, patch] = api.version;
        if [major, minor] < LEAST {
            let [least, least_minor] = LEAST;
            return Err(format!(
                "NCCL {major}.{minor}.{patch} is too old: {least}.{least_minor} is the first that does"
            ));
        }
        Ok(api)
    }

    /// # Safety
    /// The library is NCCL.
    unsafe fn of(library: Library) -> Result<Self, libloading::Error> {
        // SAFETY: that of this function.
        unsafe {
            let get_version = library.get::<unsafe extern "C" fn(*mut c_int) -> Code>("ncclGetVersion")?;
            let mut number = 0;
            get_version(&raw mut number);
            let number = u32::try_from(number).unwrap_or(0);
            Ok(Self {
                version: [number / 10_000, number % 10_000 / 100, number % 100],
                get_unique_id: *library.get("ncclGetUniqueId")?,
                init: *library.get("ncclCommInitRankConfig")?,
                async_error: *library.get("ncclCommGetAsyncError")?,
                abort: *library.get("ncclCommAbort")?,
                finalize: *library.get("ncclCommFinalize")?,
                destroy: *library.get("ncclCommDestroy")?,
                send: *library.get("ncclSend")?,
                receive: *library.get("ncclRecv")?,
                broadcast: *library.get("ncclBroadcast")?,
                all_gather: *library.get("ncclAllGather")?,
                group_start: *library.get("ncclGroupStart")?,
                group_end: *library.get("ncclGroupEnd")?,
                error_string: *library.get("ncclGetErrorString")?,
                last_error: *library.get("ncclGetLastError")?,
                _library: library,
            })
        }
    }

    /// A place to meet, made by one member for all.
    ///
    /// # Errors
    /// What the library says, in words.
    pub(super) fn unique_id(&self) -> Result<UniqueId, String> {
        let mut id = UniqueId([0; UniqueId::BYTES]);
        // SAFETY: the place is as large as the type says.
        match unsafe { (self.get_unique_id)(&raw mut id) } {
            Code::SUCCESS => Ok(id),
            code => Err(self.words(code)),
        }
    }

    /// What the library says of a code, and of the last thing that went wrong in this process.
    pub(super) fn words(&self, code: Code) -> String {
        // SAFETY: both give texts that end with 0 and stay, or nothing; the second uses no communicator.
        let (kind, last) = unsafe { (text((self.error_string)(code)), text((self.last_error)(std::ptr::null_mut()))) };
        match last.trim() {
            "" => kind,
            last => format!("{kind}: {last}"),
        }
    }
}

/// # Safety
/// The pointer is null or that of a text that ends with 0.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: that of this function.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
