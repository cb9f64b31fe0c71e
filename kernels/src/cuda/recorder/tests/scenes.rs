//! What a pass may do beside what it did before.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{KERNELS, Watched, block, mix, put, scale};
use crate::cuda::{Address, Arg, Recording, Stream};
use crate::{Error, Result, Tensor};

fn failure() -> Error {
    Error::Device("the work gives up".to_owned())
}

/// Doubles a state and adds uploaded values to it.
fn advance(on: &Stream, state: &mut Tensor, values: &[f32]) -> Result<()> {
    let added = mix(on, 2.0, state, &put(on, values))?;
    scale(on, state, 0.0)?;
    *state = mix(on, 1.0, &added, state)?;
    Ok(())
}

#[test]
fn a_read_in_the_middle_cuts_the_piece_and_may_be_left_out() {
    let watched = Watched::new(1 << 20);
    let on = watched.stream();
    let mut recording = Recording::default();
    let state = put(&on, &[1.0, 2.0]);
    for (i, reads) in [false, false, true, true, false, true].into_iter().enumerate() {
        watched.asked();
        let work = || -> Result<Vec<f32>> {
            let doubled = mix(&on, 1.0, &state, &state)?;
            // What the host computes with is that of this pass.
            let read = if reads { doubled.to_f32() } else { vec![0.0; 2] };
            let moved = mix(&on, 1.0, &doubled, &put(&on, &[read[0] + i as f32, read[1]]))?;
            Ok(moved.to_f32())
        };
        let found = on.replayed(&mut recording, work).unwrap();
        let factor = if reads { 4.0 } else { 2.0 };
        assert_eq!(found, [factor + i as f32, 2.0 * factor]);
        let asked = watched.asked();
        // The first time that it reads, what waits is executed.
        assert_eq!(asked.operations, [2, 0, 1, 0, 0, 0][i], "pass {i}");
        assert_eq!(asked.graphs, [0, 1, 1, 1, 0, 0][i], "pass {i}");
    }
    assert_eq!((recording.recorded(), recording.replayed()), (1, 5));
}

#[test]
fn a_wait_in_the_middle_is_like_a_read() {
    let on = Watched::new(1 << 20).stream();
    let mut recording = Recording::default();
    let mut state = put(&on, &[1.0]);
    for i in 0..4 {
        let work = || -> Result<()> {
            scale(&on, &mut state, 2.0)?;
            on.wait()?;
            scale(&on, &mut state, 3.0)
        };
        on.replayed(&mut recording, work).unwrap();
        assert_eq!(state.to_f32(), [6f32.powi(i + 1)]);
    }
    assert_eq!((recording.recorded(), recording.replayed()), (1, 3));
}

#[test]
fn an_error_or_a_panic_leaves_what_came_before_it() {
    let on = Watched::new(1 << 20).stream();
    let mut recording = Recording::default();
    let mut state = put(&on, &[1.0]);
    for (i, (ends, wanted)) in
        [(2, 6.0), (2, 36.0), (0, 72.0), (2, 432.0), (2, 2592.0), (1, 5184.0), (2, 31104.0)].into_iter().enumerate()
    {
        let work = || -> Result<()> {
            scale(&on, &mut state, 2.0)?;
            match ends {
                0 => Err(failure()),
                1 => panic!("the work panics"),
                _ => scale(&on, &mut state, 3.0),
            }
        };
        let ended = catch_unwind(AssertUnwindSafe(|| on.replayed(&mut recording, work)));
        assert_eq!(matches!(ended, Ok(Ok(()))), ends == 2, "pass {i}");
        assert_eq!(state.to_f32(), [wanted], "pass {i}");
    }
    assert_eq!((recording.recorded(), recording.replayed()), (3, 2));
}

#[test]
fn an_error_of_a_kernel_shows_with_the_next_read() {
    let on = Watched::new(1 << 20).stream();
    let mut recording = Recording::default();
    let (x, mut y) = (put(&on, &[1.0; 4]), put(&on, &[0.0; 4]));
    for fails in [false, false, true] {
        let a = if fails { Arg::Address(Address(1 << 50)) } else { x.arg().unwrap() };
        let args = [a, x.arg().unwrap(), Arg::F32(1.0), y.arg_mut().unwrap(), Arg::U32(4)];
        // SAFETY: the emulator refuses the address at which nothing is.
        let work = || unsafe { on.launch(&KERNELS, "mix", block(4), &args) };
        let result = on.replayed(&mut recording, work);
        assert_eq!(result.is_err(), fails, "{result:?}");
    }
    assert_eq!(y.to_f32(), [2.0; 4]);
    assert_eq!((recording.recorded(), recording.replayed()), (1, 1));
}

#[test]
fn a_state_that_moves_from_tensor_to_tensor_is_right() {
    let on = Watched::new(1 << 20).stream();
    let mut recording = Recording::default();
    let (mut state, mut wanted) = (put(&on, &[1.0, 2.0]), [1.0, 2.0]);
    for i in 0..10 {
        let values = [i as f32, -1.0];
        on.replayed(&mut recording, || advance(&on, &mut state, &values)).unwrap();
        wanted = [0, 1].map(|j| 2.0 * wanted[j] + values[j]);
        assert_eq!(state.to_f32(), wanted);
    }
}

#[test]
fn tensors_may_be_dropped_in_another_order() {
    let on = Watched::new(1 << 20).stream();
    let mut recording = Recording::default();
    for late in [false, false, true, true, false] {
        let work = || -> Result<Vec<f32>> {
            let x = put(&on, &[1.0, 2.0]);
            let first = mix(&on, 1.0, &x, &x)?;
            let second = mix(&on, 3.0, &x, &first)?;
            // Where it is dropped here, the third takes its place.
            let kept = late.then_some(first);
            let third = mix(&on, 10.0, &second, &x)?;
            Ok([third.to_f32(), kept.map_or(vec![], |kept| kept.to_f32())].concat())
        };
        let wanted = [51.0, 102.0, 2.0, 4.0];
        assert_eq!(on.replayed(&mut recording, work).unwrap(), wanted[..if late { 4 } else { 2 }]);
    }
    // Memory for the late pass serves the others too.
    assert_eq!((recording.recorded(), recording.replayed()), (2, 3));
}

#[test]
fn what_was_made_before_may_be_dropped_while_operations_wait() {
    let watched = Watched::new(1 << 20);
    let on = watched.stream();
    let mut recording = Recording::default();
    for i in 0..4 {
        let outer = put(&on, &[i as f32, 1.0]);
        let work = || -> Result<Vec<f32>> {
            let sum = mix(&on, 2.0, &outer, &outer)?;
            drop(outer);
            let sum = mix(&on, 1.0, &sum, &put(&on, &[0.5, 0.5]))?;
            Ok(sum.to_f32())
        };
        assert_eq!(on.replayed(&mut recording, work).unwrap(), [3.0 * i as f32 + 0.5, 3.5]);
    }
    assert_eq!((recording.recorded(), recording.replayed()), (1, 3));
    drop(recording);
    assert_eq!(watched.device.used(), 0);
}

#[test]
fn an_upload_does_not_overtake_what_reads_its_place() {
    let on = Watched::new(1 << 20).stream();
    let mut recording = Recording::default();
    let mut kept = put(&on, &[7.0]);
    for i in 0..6 {
        let before = kept.to_f32()[0];
        let work = || -> Result<Tensor> {
            let sum = mix(&on, 1.0, &kept, &kept)?;
            kept = put(&on, &[i as f32]);
            mix(&on, 1.0, &sum, &kept)
        };
        let sum = on.replayed(&mut recording, work).unwrap();
        assert_eq!(sum.to_f32(), [2.0 * before + i as f32]);
    }
}

#[test]
fn recordings_share_memory_and_know_each_other() {
    let watched = Watched::new(1 << 20);
    let on = watched.stream();
    let mut recordings = [Recording::default(), Recording::default()];
    let mut used = Vec::new();
    for i in 0..8 {
        let (values, which) = ([i as f32; 8], i % 2);
        let work = || -> Result<Vec<f32>> {
            let x = put(&on, &values);
            let y = mix(&on, which as f32, &x, &x)?;
            let z = mix(&on, 1.0, &y, &x)?;
            Ok(z.to_f32())
        };
        assert_eq!(on.replayed(&mut recordings[which], work).unwrap(), [(which + 2) as f32 * i as f32; 8]);
        used.push(watched.device.used());
    }
    assert!(used.iter().all(|&bytes| bytes == used[0]), "{used:?}");
    for recording in &recordings {
        assert_eq!((recording.recorded(), recording.replayed()), (1, 3));
    }
    let [first, second] = recordings;
    drop(first);
    assert_eq!(watched.device.used(), used[0]);
    drop(second);
    assert_eq!(watched.device.used(), 0);
}

#[test]
fn a_pass_within_a_pass_is_part_of_it() {
    let on = Watched::new(1 << 20).stream();
    let [mut outer, mut inner] = [Recording::default(), Recording::default()];
    let mut state = put(&on, &[1.0]);
    for i in 0..3 {
        let work = || -> Result<()> {
            scale(&on, &mut state, 2.0)?;
            on.replayed(&mut inner, || scale(&on, &mut state, 5.0))
        };
        on.replayed(&mut outer, work).unwrap();
        assert_eq!(state.to_f32(), [10f32.powi(i + 1)]);
    }
    assert_eq!((outer.recorded(), outer.replayed()), (1, 2));
    assert_eq!((inner.recorded(), inner.replayed()), (0, 0));
}

#[test]
fn a_recording_goes_to_another_device_with_its_work() {
    let watched = [(); 2].map(|()| Watched::new(1 << 20));
    let streams = watched.each_ref().map(Watched::stream);
    let mut recording = Recording::default();
    for i in [0, 0, 1, 1, 0] {
        let on = &streams[i];
        let work = || -> Result<Vec<f32>> { Ok(mix(on, 2.0, &put(on, &[1.0]), &put(on, &[3.0]))?.to_f32()) };
        assert_eq!(on.replayed(&mut recording, work).unwrap(), [5.0]);
        assert_eq!(watched[1 - i].device.used(), 0);
    }
    assert_eq!((recording.recorded(), recording.replayed()), (3, 2));
    // A device may go before its recordings.
    drop(streams);
    assert_eq!(watched[0].device.used(), 0);
}

#[test]
fn recordings_give_way_where_memory_is_short() {
    let watched = Watched::new(4096);
    let on = watched.stream();
    let mut recordings = [Recording::default(), Recording::default()];
    let pass = |recording: &mut Recording, n: usize| {
        let work = || -> Result<Vec<f32>> {
            let x = put(&on, &vec![1.0; n]);
            let y = mix(&on, 1.0, &x, &x)?;
            drop(x);
            Ok(mix(&on, 1.0, &y, &y)?.to_f32())
        };
        assert_eq!(on.replayed(recording, work).unwrap(), vec![4.0; n]);
    };
    pass(&mut recordings[0], 200); // of three blocks of 800 bytes
    pass(&mut recordings[0], 200);
    pass(&mut recordings[1], 300); // which leave no room for 1200
    pass(&mut recordings[1], 300);
    pass(&mut recordings[0], 200);
    pass(&mut recordings[1], 500); // two of 2000 fit, a third does not
    assert_eq!(watched.device.used(), 0);
    assert!(recordings[1].difference().unwrap().contains("not enough memory"));
    assert_eq!(recordings.each_ref().map(Recording::recorded), [2, 1]);
    assert_eq!(recordings.each_ref().map(Recording::replayed), [1, 1]);
    // Outside of a pass too.
    pass(&mut recordings[0], 200);
    assert!(watched.device.used() > 2000);
    drop(put(&on, &[0.0; 1000]));
    assert_eq!(watched.device.used(), 0);
}
