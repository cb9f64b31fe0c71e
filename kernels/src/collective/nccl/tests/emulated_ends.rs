//! How groups of emulated devices end: in order, by an error, or from another thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::fake::{Calm, Fake};
use super::total;
use crate::collective::nccl::{Aborter, Nccl};
use crate::collective::{Collective, local};
use crate::cuda::{self, Stream};
use crate::{Error, Result};

/// Steps aside until it is so.
fn until(so: impl Fn() -> bool) {
    while !so() {
        std::thread::yield_now();
    }
}

/// Aborts every member from other threads, several times each, once it is time.
fn aborted(fake: &Fake, world: usize, is_time: impl Fn() -> bool, work: impl Fn(Nccl, &Stream) -> Result<()> + Sync) {
    let aborters: Vec<Aborter> = (0..world).map(|_| Aborter::new()).collect();
    let ends = std::thread::scope(|scope| {
        let members: Vec<_> = local::group(world)
            .into_iter()
            .map(|ring| {
                let (aborter, work) = (&aborters[ring.rank()], &work);
                scope.spawn(move || {
                    let (member, on) = fake.join(ring, aborter)?;
                    work(member, &on)
                })
            })
            .collect();
        until(is_time);
        for aborter in &aborters {
            for _ in 0..3 {
                scope.spawn(|| aborter.abort().unwrap());
            }
        }
        members.into_iter().map(|member| member.join().unwrap()).collect::<Vec<_>>()
    });
    for end in ends {
        let said = end.unwrap_err().to_string();
        assert!(said.contains("aborted"), "{said}");
    }
    fake.is_clean();
    assert_eq!((fake.count("aborts"), fake.count("destroys")), (world, 0));
    assert!(aborters.iter().all(Aborter::is_aborted));
}

#[test]
fn an_abort_frees_a_member_that_waits_for_others_to_join() {
    let fake = Fake::new();
    fake.set("nobody_joins", 1);
    aborted(&fake, 2, || fake.count("inits") == 2, |_, _| Ok(()));
}

#[test]
fn an_abort_frees_a_member_that_hangs_in_a_sum() {
    for group in [1, 2] {
        let fake = Fake::new();
        fake.set("hang_in_group", group);
        let is_time = || fake.count("groups") >= 3 * group;
        aborted(&fake, 3, is_time, |mut member, on| {
            total(&mut member, on, 5, 1000)?;
            total(&mut member, on, 5, 1000).map(drop)
        });
    }
}

#[test]
fn an_abort_frees_a_member_whose_stream_does_not_come_to_an_end() {
    let (fake, raw, aborter) = (Fake::new(), Arc::new(Calm::default()), Aborter::new());
    raw.is_busy.store(true, Ordering::Release);
    let end = std::thread::scope(|scope| {
        let member = scope.spawn(|| {
            let (mut member, on) = fake.join_on(local::alone(), cuda::emulator_of(1 << 20), raw.clone(), &aborter)?;
            total(&mut member, &on, 1, 10).map(drop)
        });
        until(|| raw.was_asked.load(Ordering::Acquire));
        aborter.abort().unwrap();
        member.join().unwrap()
    });
    assert!(matches!(end, Err(Error::Gang(_))), "{end:?}");
    fake.is_clean();
}

#[test]
fn a_member_that_is_aborted_before_it_joins_does_not() {
    let (fake, aborter) = (Fake::new(), Aborter::new());
    aborter.abort().unwrap();
    assert!(matches!(fake.join(local::alone(), &aborter), Err(Error::Gang(_))));
    assert_eq!(fake.count("inits"), 0);
}

#[test]
fn an_abort_that_hangs_is_told_and_the_member_gives_up() {
    let (fake, aborter) = (Fake::new(), Aborter::new());
    fake.set("hang_in_abort", 1);
    let (mut member, on) = fake.join(local::alone(), &aborter).unwrap();
    let end = aborter.abort();
    assert!(matches!(&end, Err(Error::Stuck(said)) if said.contains("end of this process")), "{end:?}");
    fake.set("hang_in_abort", 0);
    assert!(total(&mut member, &on, 1, 10).is_err());
    drop(member);
    fake.is_clean();
    assert_eq!(fake.count("aborts"), 1);
}

#[test]
fn an_error_in_a_sum_aborts_and_names_the_way_out() {
    let fake = Fake::new();
    fake.set("fail_in_group", 2);
    let ends = fake.together(2, |mut member, on| {
        total(&mut member, on, 2, 10).unwrap();
        let said = total(&mut member, on, 2, 10).unwrap_err().to_string();
        // It is of no use any more, and says so.
        assert!(total(&mut member, on, 2, 10).is_err());
        said
    });
    for said in ends {
        assert!(said.contains("nccl-test to 4194660 bytes") && said.contains("--shm-size=1g"), "{said}");
    }
    fake.is_clean();
    assert_eq!((fake.count("aborts"), fake.count("destroys")), (2, 0));
}

#[test]
fn a_member_that_cannot_be_reached_is_told_from_one_that_waits() {
    let fake = Fake::new();
    fake.set("fail_in_init", 1);
    let aborter = Aborter::new();
    let ends = fake.each(2, |ring| match ring.rank() {
        0 => fake.join(ring, &aborter).map(drop),
        _ => {
            let end = fake.join(ring, &Aborter::new()).map(drop);
            until(|| fake.count("inits") == 1);
            aborter.abort().unwrap();
            end
        }
    });
    let said = ends[1].as_ref().unwrap_err().to_string();
    assert!(said.contains("connection refused") && said.contains("NCCL_SOCKET_IFNAME"), "{said}");
    assert!(ends[0].as_ref().unwrap_err().to_string().contains("was aborted"), "{ends:?}");
    fake.is_clean();
}

#[test]
fn everybody_hears_that_there_is_no_place_to_meet() {
    let fake = Fake::new();
    fake.set("no_id", 1);
    let ends = fake.each(2, |ring| fake.join(ring, &Aborter::new()).map(drop));
    for end in ends {
        let said = end.unwrap_err().to_string();
        assert!(said.contains("rank 0") && said.contains("no socket interface found"), "{said}");
    }
    assert_eq!(fake.count("inits"), 0);
}

#[test]
fn members_with_different_versions_do_not_join() {
    let (new, old) = (Fake::new(), Fake::of_version(22_505).unwrap());
    let ends = new.each(3, |ring| {
        let fake = if ring.rank() == 1 { &old } else { &new };
        fake.join(ring, &Aborter::new()).map(drop)
    });
    for end in ends {
        let said = end.unwrap_err().to_string();
        assert!(said.contains("2.27 on ranks 0, 2 and 2.25 on rank 1"), "{said}");
    }
    assert_eq!(new.count("inits") + old.count("inits"), 0);
}

#[test]
fn a_version_that_is_too_old_is_refused() {
    let said = Fake::of_version(22_203).err().unwrap();
    assert!(said.contains("NCCL 2.22.3 is too old"), "{said}");
}

#[test]
fn a_thousand_groups_leave_nothing_behind() {
    let fake = Fake::new();
    let on = cuda::emulator_of(1 << 18);
    for round in 0..1000 {
        let aborter = Aborter::new();
        let (mut member, on) = fake.join_on(local::alone(), on.clone(), Arc::new(Calm::default()), &aborter).unwrap();
        // Some twenty of these would fill the memory of the device.
        assert_eq!(total(&mut member, &on, 1, 3000).unwrap().len(), 3000);
        if round % 2 == 0 {
            aborter.abort().unwrap();
        }
    }
    fake.is_clean();
    assert_eq!((fake.count("inits"), fake.count("aborts")), (1000, 500));
}
