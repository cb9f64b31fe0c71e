//! A group of one on a card. Groups of several cards were never tried.

use crate::Device;
use crate::collective::local;
use crate::collective::nccl::api::Api;
use crate::collective::nccl::{Aborter, Nccl};
use crate::collective::tests::{bits, totals};

/// Groups that are opened one after the other; `MLLM4REC_NCCL_ROUNDS` asks for another number.
const ROUNDS: usize = 20;
/// What a process may hold more of the card after all rounds than after the first: NCCL keeps some of its own.
const SLACK_BYTES: u64 = 64 << 20;

/// The card and NCCL, or why there is none of them.
fn found() -> Result<Device, String> {
    let device = Device::cuda(0, 1).map_err(|e| e.to_string())?;
    Api::installed().map(|_| device)
}

#[test]
fn groups_of_one_card_sum_abort_and_begin_anew_without_a_leak() {
    let device = match found() {
        Ok(device) => device,
        Err(said) => {
            eprintln!("skipped: {said}");
            return;
        }
    };
    let on = device.stream().unwrap();
    let rounds = std::env::var("MLLM4REC_NCCL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let wanted = bits(&totals(local::group(1), 3, 100_003)[0]);
    let mut free = Vec::new();
    for round in 0..rounds {
        let aborter = Aborter::new();
        let mut member = Nccl::open_with(Box::new(local::alone()), &device, &aborter).unwrap();
        for most_gathered_bytes in [0, usize::MAX] {
            member.most_gathered_bytes = most_gathered_bytes;
            member.piece = 30_000;
            assert!(bits(&super::total(&mut member, on, 3, 100_003).unwrap()) == wanted, "round {round}");
        }
        if round % 2 == 0 {
            aborter.abort().unwrap();
        }
        drop(member);
        device.wait().unwrap();
        if round == 0 || round + 1 == rounds {
            free.push(crate::inspect().cards[0].free_bytes.unwrap());
        }
    }
    let [first, last] = [free[0], free[free.len() - 1]];
    eprintln!("free bytes of the card behind {rounds} groups: {first} after the first, {last} after the last");
    assert!(last + SLACK_BYTES >= first, "{} bytes are gone", first - last);
}
