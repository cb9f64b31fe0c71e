//! A real ring over loopback, of threads.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result};
use kernels::Tensor;
use kernels::collective::{Bucket, Collective, Tree, slices_of, tcp};

use super::link::Link;

/// Sums that are timed, behind one that is not.
const TIMES: usize = 5;
/// Bytes that are sent to find the bandwidth.
const MUCH: usize = 256 << 20;
/// Turns that are taken to find the latency.
const TURNS: u32 = 2000;

/// One link of this machine.
pub(super) fn loopback() -> Result<Link> {
    let (mut near, mut far) = pair()?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let mut word = [0; 24];
        for _ in 0..TURNS {
            far.read_exact(&mut word)?;
            far.write_all(&word)?;
        }
        let mut left = MUCH;
        let mut bytes = vec![0; 1 << 20];
        while left > 0 {
            left -= far.read(&mut bytes)?.min(left);
        }
        far.write_all(&word)
    });
    let mut word = [0; 24];
    let began = Instant::now();
    for _ in 0..TURNS {
        near.write_all(&word)?;
        near.read_exact(&mut word)?;
    }
    let latency = began.elapsed().as_secs_f64() / f64::from(2 * TURNS);
    let (began, bytes) = (Instant::now(), [1; 1 << 16]);
    (0..MUCH / bytes.len()).try_for_each(|_| near.write_all(&bytes))?;
    near.read_exact(&mut word)?;
    let bandwidth = MUCH as f64 / began.elapsed().as_secs_f64();
    echo.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
    Ok(Link { name: "loopback", bandwidth, latency })
}

/// The streams of a ring, for each rank that to the next and that from the one before.
pub(super) fn ring(world: usize) -> Result<Vec<[TcpStream; 2]>> {
    let (mut to_next, mut from_previous) = (Vec::new(), Vec::new());
    for _ in 0..world {
        let (near, far) = pair()?;
        to_next.push(near);
        from_previous.push(far);
    }
    from_previous.rotate_right(1); // what a rank sends is read by the next one
    Ok(to_next.into_iter().zip(from_previous).map(<[TcpStream; 2]>::from).collect())
}

/// The median time of a sum of slices over a ring of threads.
pub(super) fn all_reduce(world: usize, slices: usize, bytes: usize) -> Result<f64> {
    let members = ring(world)?.into_iter().enumerate().map(|(rank, [next, previous])| {
        std::thread::spawn(move || member(tcp::Ring::new(rank, world, next, previous)?, slices, bytes / 4))
    });
    let members: Vec<_> = members.collect();
    let mut longest = [0.0_f64; TIMES];
    for member in members {
        let times = member.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
        longest.iter_mut().zip(times).for_each(|(longest, time)| *longest = longest.max(time));
    }
    longest.sort_by(f64::total_cmp);
    Ok(longest[TIMES / 2])
}

fn member(mut ring: tcp::Ring, slices: usize, elements: usize) -> Result<Vec<f64>> {
    let like = Tensor::zeros(&[elements]);
    let mut times = Vec::new();
    for turn in 0..=TIMES {
        let mut tree = Tree::new(slices);
        for slice in slices_of(ring.rank(), ring.world(), slices) {
            let values = Tensor::from_f32(&[elements], vec![slice as f32; elements])?;
            tree.push(slice, Bucket::new(vec![values])?)?;
        }
        ring.barrier()?;
        let began = Instant::now();
        let total = ring.all_reduce(tree, &[&like])?;
        let time = began.elapsed().as_secs_f64();
        let expected = (slices * (slices - 1) / 2) as f32;
        anyhow::ensure!(total.tensors()[0].f32()?[0].to_bits() == expected.to_bits(), "the sum is wrong");
        if turn > 0 {
            times.push(time);
        }
    }
    Ok(times)
}

fn pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}
