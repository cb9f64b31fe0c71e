#![allow(clippy::unwrap_used)]
use super::processor::model;
use super::*;

#[test]
fn what_the_system_writes_is_read() {
    assert_eq!(model("processor\t: 0\nmodel name\t: AMD EPYC\n").as_deref(), Some("AMD EPYC"));
    assert_eq!(model("Processor : ARMv8"), None);
    let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12.2.0\n";
    assert_eq!(release_in(closed).as_deref(), Some("550.54.15"));
    let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n";
    assert_eq!(release_in(open).as_deref(), Some("580.65.06"));
    assert_eq!(release_in("none"), None);
}

#[test]
fn a_machine_is_described_whatever_it_has() {
    let found = inspect();
    assert!(!found.processor.name.is_empty() && found.processor.threads >= 1, "{found:?}");
    let names: Vec<&str> = found.libraries.iter().map(|library| library.name).collect();
    assert_eq!(names, ["CUDA driver", "NVRTC", "cuBLASLt", "NCCL"]);
    for library in &found.libraries {
        match &library.found {
            Ok(opened) => assert!(opened.path.is_absolute() && opened.version.is_some(), "{library:?}"),
            Err(lacking) => assert!(!lacking.said().is_empty(), "{library:?}"),
        }
    }
    let missing = found.libraries.iter().any(|library| library.needed && library.found.is_err());
    match &found.usable {
        Ok(cards) => assert!(!missing && !cards.is_empty() && cards.len() <= found.cards.len(), "{found:?}"),
        Err(why) => assert!(why.to_string().len() < 200 && why.is_there() != found.cards.is_empty(), "{found:?}"),
    }
}

#[test]
fn what_is_missing_is_said_briefly_and_with_the_way_out() {
    let driver = NoCard::NoDriver { brought_by: "the driver" };
    assert_eq!(driver.to_string(), "no CUDA driver on this machine");
    assert_eq!(driver.remedy().unwrap(), "it comes with the driver");
    let without = |lacking| NoCard::NoLibrary { library: "NVRTC", brought_by: "the package cuda-nvrtc", lacking };
    let library = without(Lacking::Absent("no such file".to_owned()));
    assert_eq!(library.to_string(), "NVRTC is missing");
    let damaged = without(Lacking::Unusable("lacks nvrtcVersion".to_owned()));
    assert_eq!(damaged.to_string(), "NVRTC cannot be used (lacks nvrtcVersion)");
    assert!(library.is_there() && library.remedy().unwrap().contains("the package cuda-nvrtc"));
    let old = NoCard::TooOld { name: "Tesla T4".to_owned(), capability: (7, 5) };
    assert_eq!(old.to_string(), "Tesla T4 has compute capability 7.5, the kernels need 8.0");
    assert!(!driver.is_there() && !NoCard::NoneSeen.is_there());
}
