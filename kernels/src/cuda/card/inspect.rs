//! What there is of CUDA on this machine.

use std::ffi::{OsStr, c_int};
use std::path::{Path, PathBuf};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::sys::CUresult;

use super::device;
use super::failure::words;
use super::libraries::{Found, Library};
use crate::cuda::{Arg, Driver, Geometry, Source};
use crate::inspection::{self, Card, CardReport, Lacking, NoCard, Opened};
use crate::{Error, Result};

const PROBE: Source = Source { name: "probe", text: include_str!("probe.cu") };
/// Values that the probe reads and writes.
const LANES: u16 = 32;

/// Without these nothing runs on a card.
const NEEDED: [Library; 3] = [Library::Driver, Library::Nvrtc, Library::CublasLt];

/// Every library, found or not.
pub(crate) fn libraries() -> Vec<inspection::Library> {
    let report = |library: Library| inspection::Library {
        name: library.name(),
        brought_by: library.brought_by(),
        needed: NEEDED.contains(&library),
        found: library.open().map(opened).map_err(Clone::clone),
    };
    Library::ALL.into_iter().map(report).collect()
}

/// Where the library of collectives is.
///
/// # Errors
/// What is wrong with it, and what brings it.
pub(crate) fn nccl() -> Result<&'static Path, String> {
    let found = Library::Nccl.open().map_err(|lacking| {
        let brought_by = Library::Nccl.brought_by();
        format!(
            "NCCL {lacking}: it comes with {brought_by}; if it lies where the loader does not look, name its folder in \
             MLLM4REC_CUDA_LIBS"
        )
    })?;
    Ok(&found.opened)
}

/// The version of CUDA that the driver is of.
pub(crate) fn driver_version() -> Option<[u32; 3]> {
    Library::Driver.open().ok()?.version
}

fn opened(found: &Found) -> Opened {
    let path = if found.opened.is_absolute() { None } else { mapped(&found.opened) };
    Opened { path: path.unwrap_or_else(|| found.opened.clone()), version: found.version.map(written) }
}

/// `13.0`, or `2.27.3` where there is a third number.
fn written([major, minor, patch]: [u32; 3]) -> String {
    if patch == 0 { format!("{major}.{minor}") } else { format!("{major}.{minor}.{patch}") }
}

/// The file that the loader found for a bare name, which it has mapped into this process.
fn mapped(name: &Path) -> Option<PathBuf> {
    let name = name.file_name()?.to_string_lossy().into_owned();
    let library = name.split_inclusive(".so").next()?;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let is_it = |file: &OsStr| file.to_string_lossy().starts_with(library);
    paths.filter(|path| path.file_name().is_some_and(is_it)).map(Path::to_owned).next()
}

/// The cards that the driver sees, at least one.
pub(crate) fn seen() -> Result<Vec<Card>, NoCard> {
    Library::Driver.open().map_err(|lacking| match lacking {
        Lacking::Absent(_) => NoCard::NoDriver { brought_by: Library::Driver.brought_by() },
        Lacking::Unusable(said) => NoCard::BadDriver(said.clone()),
    })?;
    let refuse = |e: DriverError| match e.0 {
        CUresult::CUDA_ERROR_NO_DEVICE => NoCard::NoneSeen,
        _ => NoCard::BadDriver(words(e)),
    };
    result::init().map_err(refuse)?;
    let count = result::device::get_count().map_err(refuse)?;
    if count == 0 {
        return Err(NoCard::NoneSeen);
    }
    (0..count).map(|number| card(number).map_err(refuse)).collect()
}

fn card(number: c_int) -> Result<Card, DriverError> {
    let device = result::device::get(number)?;
    // SAFETY: the device is one that the driver counts.
    let ask = |attribute| unsafe { result::device::get_attribute(device, attribute) };
    let unsigned = |n: c_int| u32::try_from(n).unwrap_or(0);
    let major = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(Card {
        number: usize::try_from(number).unwrap_or(0),
        name: result::device::get_name(device)?,
        capability: (unsigned(major), unsigned(minor)),
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device)? } as u64,
    })
}

/// The cards that are new enough, if there is all that they need.
pub(crate) fn cards() -> Result<Vec<Card>, NoCard> {
    let usable = new_enough(seen()?)?;
    for library in NEEDED {
        let refuse = |lacking: &Lacking| NoCard::NoLibrary {
            library: library.name(),
            brought_by: library.brought_by(),
            lacking: lacking.clone(),
        };
        library.open().map_err(refuse)?;
    }
    Ok(usable)
}

fn new_enough(seen: Vec<Card>) -> Result<Vec<Card>, NoCard> {
    let (new, old): (Vec<Card>, Vec<Card>) =
        seen.into_iter().partition(|card| card.capability >= NoCard::LEAST_CAPABILITY);
    match old.into_iter().next() {
        Some(Card { name, capability, .. }) if new.is_empty() => Err(NoCard::TooOld { name, capability }),
        _ => Ok(new),
    }
}

/// Tries a card.
pub(crate) fn examine(card: Card) -> CardReport {
    let tried = device::Card::open(card.number).and_then(|opened| {
        probe(&opened)?;
        Ok(opened.unused_bytes())
    });
    match tried {
        Ok(free_bytes) => CardReport { card, free_bytes, problem: None },
        Err(e) => CardReport { card, free_bytes: None, problem: Some(format!("{e}{}", mismatch())) },
    }
}

/// A frequent reason, where it applies: code of a newer compiler than the driver knows.
fn mismatch() -> String {
    let version = |library: Library| library.open().ok().and_then(|found| found.version);
    match (version(Library::Driver), version(Library::Nvrtc)) {
        (Some([driver, ..]), Some([nvrtc, ..])) if nvrtc > driver => format!(
            "; NVRTC is of CUDA {nvrtc} and the driver of CUDA {driver}: update the driver, or install NVRTC and cuBLASLt of \
             CUDA {driver}"
        ),
        _ => String::new(),
    }
}

/// Compiles a small kernel, runs it and looks at what it wrote.
fn probe(driver: &dyn Driver) -> Result<()> {
    let values: Vec<u8> = (0..LANES).flat_map(|i| f32::from(i).to_ne_bytes()).collect();
    let [x, y] = [driver.allocate(values.len())?, driver.allocate(values.len())?];
    let mut found = vec![0; values.len()];
    let geometry = Geometry::blocks(1, u32::from(LANES));
    let ran = driver.write(x, &values).and_then(|()| {
        // SAFETY: x and y hold 32 floats each.
        unsafe { driver.launch(&PROBE, PROBE.name, geometry, &[Arg::Address(x), Arg::Address(y)])? };
        driver.read(y, &mut found)
    });
    driver.free(x);
    driver.free(y);
    ran?;
    let wanted = f32::from(LANES * (LANES - 1) / 2 + 16);
    if found.chunks_exact(4).all(|value| value == wanted.to_ne_bytes()) {
        return Ok(());
    }
    Err(Error::Kernel {
        op: PROBE.name,
        kernel: PROBE.name.to_owned(),
        what: "computes something else than it should".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::compile::compile;
    use super::*;
    use crate::cuda::emulator::Emulator;

    #[test]
    fn the_probe_computes_what_it_should() {
        probe(&Emulator::new()).unwrap();
    }

    #[test]
    fn the_probe_compiles_for_every_architecture_and_for_none_that_is_too_old() {
        if Library::Nvrtc.open().is_err() {
            eprintln!("skipped: there is no NVRTC; set MLLM4REC_CUDA_LIBS to its folder");
            return;
        }
        for arch in ["sm_80", "sm_89", "sm_90a"] {
            let compiled = compile(&PROBE, arch).unwrap();
            assert_eq!(compiled.usage.iter().map(|usage| usage.spilled).sum::<u32>(), 0, "{arch}");
        }
        assert!(compile(&PROBE, "sm_75").is_err());
    }

    #[test]
    fn old_cards_are_left_out_and_named_if_there_are_no_others() {
        let card =
            |number, major| Card { number, name: format!("card {number}"), capability: (major, 5), memory_bytes: 1 };
        assert_eq!(new_enough(vec![card(0, 7), card(1, 8)]).unwrap(), [card(1, 8)]);
        assert!(
            matches!(new_enough(vec![card(0, 7), card(1, 6)]), Err(NoCard::TooOld { name, .. }) if name == "card 0")
        );
    }

    #[test]
    fn versions_are_written_as_people_write_them() {
        assert_eq!([written([13, 0, 0]), written([2, 27, 3])], ["13.0", "2.27.3"]);
    }

    #[test]
    fn a_library_that_was_found_by_name_has_a_file() {
        let libc = mapped(Path::new("libc.so.6")).unwrap();
        assert!(libc.is_absolute() && libc.is_file(), "{}", libc.display());
    }
}
