#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use super::device::Card;
use super::libraries::Library;
use crate::cuda::{Address, Arg, Driver, Geometry, Operation, Source};

const TWICE: Source = Source {
    name: "twice",
    text: "extern \"C\" __global__ void twice(\n    float* x,\n    u32 n\n) {\n    u32 i = blockIdx.x * blockDim.x + threadIdx.x;\n\
           \x20   if (i < n) x[i] *= 2.0f;\n}\n",
};

#[test]
fn a_library_is_opened_or_its_absence_is_explained() {
    for library in Library::ALL {
        match library.open() {
            Ok(found) => {
                eprintln!("{}: {} ({:?})", library.name(), found.opened.display(), found.version);
                assert!(found.version.is_some(), "{}", library.name());
            }
            Err(lacking) => assert!(!lacking.said().is_empty(), "{}", library.name()),
        }
    }
}

#[test]
fn a_card_computes_or_its_absence_is_told() {
    let card = match Card::open(0) {
        Ok(card) => card,
        Err(error) => {
            let said = error.to_string();
            assert!(
                ["is missing", "cannot be used", "there is no card", "starting CUDA"]
                    .iter()
                    .any(|words| said.contains(words)),
                "{said}"
            );
            eprintln!("skipped: {said}");
            return;
        }
    };
    let card = Arc::new(card);
    let values: Vec<u8> = (0..1000u16).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    let [x, y] = [(); 2].map(|()| card.allocate(values.len()).unwrap());
    card.fill(y, 0, values.len()).unwrap();
    card.write(x, &values).unwrap();
    let geometry = Geometry::blocks(4, 256);
    // SAFETY: the arguments are those of the kernel.
    unsafe { card.launch(&TWICE, "twice", geometry, &[Arg::Address(x), Arg::U32(1000)]).unwrap() };
    card.copy(x, y, values.len()).unwrap();
    let mut found = vec![0; values.len()];
    card.read(y, &mut found).unwrap();
    let wanted: Vec<u8> = (0..1000u16).flat_map(|i| (2.0 * f32::from(i)).to_le_bytes()).collect();
    assert_eq!(found, wanted);
    replays(&card, x, y, &wanted);
    uploads_much(&card);
    assert!(matches!(card.allocate(1 << 50), Err(crate::Error::Memory { .. })));
    card.free(x);
    card.free(y);
    card.wait().unwrap();
}

/// Doubles the first half of what is at `x` in a graph, then in the same graph all of it, and copies it to `y`.
fn replays(card: &Arc<Card>, x: Address, y: Address, values: &[u8]) {
    let geometry = Geometry::blocks(4, 256);
    let arguments = |n| [Arg::Address(x), Arg::U32(n)];
    let twice =
        Operation::Launch { source: TWICE, kernel: "twice", geometry, arguments: arguments(500).to_vec().into() };
    let copy = Operation::Copy { from: x, to: y, bytes: values.len() };
    let mut graph = Arc::clone(card).record(&[twice, copy]).unwrap();
    card.fill(y, 0, values.len()).unwrap();
    for (n, factors) in [(500, [2.0, 1.0]), (1000, [4.0, 2.0])] {
        graph.change(0, &arguments(n)).unwrap();
        // SAFETY: the arrays are those of the caller.
        unsafe { graph.launch().unwrap() };
        let mut found = vec![0; values.len()];
        card.read(y, &mut found).unwrap();
        let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>();
        let scaled = floats(values).into_iter().enumerate().map(|(i, v)| factors[i / 500] * v);
        assert_eq!(floats(&found), scaled.collect::<Vec<f32>>());
    }
}

/// Uploads more than there is pinned memory for, in pieces of all sizes.
fn uploads_much(card: &Card) {
    let all: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let to = card.allocate(all.len()).unwrap();
    let (mut begin, mut bytes) = (0, 1);
    while begin < all.len() {
        let end = all.len().min(begin + bytes);
        card.write(to.offset(begin), &all[begin..end]).unwrap();
        (begin, bytes) = (end, bytes * 3 % 5_000_000);
    }
    let mut found = vec![0; all.len()];
    card.read(to, &mut found).unwrap();
    assert!(found == all);
    card.free(to);
}
