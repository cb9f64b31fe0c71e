//! Work at random, beside the same without a recording.

use std::sync::Arc;

use super::{Watched, mix, put, scale};
use crate::cuda::{Recording, Stream};
use crate::{Error, Result, Tensor};

const PLACES: usize = 5;
const LENGTHS: [usize; 3] = [3, 8, 70];

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// What work does with tensors in places of its own, of which those that are empty are passed over.
#[derive(Clone, Copy, Debug)]
enum Action {
    Upload { to: usize, len: usize },
    Mix { a: usize, b: usize, to: usize },
    Scale { place: usize, factor: f32 },
    Share { from: usize, to: usize },
    Drop { place: usize },
    Read { place: usize },
    Fail,
}

impl Action {
    fn any(dice: &mut Dice) -> Self {
        let [a, b, to] = [(); 3].map(|()| dice.roll(PLACES));
        match dice.roll(24) {
            0..6 => Self::Upload { to, len: LENGTHS[dice.roll(3)] },
            6..13 => Self::Mix { a, b, to },
            13..16 => Self::Scale { place: to, factor: 0.5 + dice.roll(3) as f32 },
            16..18 => Self::Share { from: a, to },
            18..21 => Self::Drop { place: to },
            21..23 => Self::Read { place: to },
            _ if dice.roll(6) == 0 => Self::Fail,
            _ => Self::Drop { place: to },
        }
    }
}

/// Places that live longer than a pass, and what was read.
struct World {
    on: Stream,
    places: [Option<Tensor>; PLACES],
    read: Vec<Vec<f32>>,
}

impl World {
    fn new(watched: &Arc<Watched>) -> Self {
        Self { on: watched.stream(), places: [const { None }; PLACES], read: Vec::new() }
    }

    /// Does something; `pass` makes uploads differ from pass to pass.
    fn act(&mut self, action: Action, pass: usize) -> Result<()> {
        match action {
            Action::Upload { to, len } => {
                let values: Vec<f32> = (0..len).map(|i| ((i * 7 + pass * 13 + to) % 11) as f32 / 8.0).collect();
                self.places[to] = Some(put(&self.on, &values));
            }
            Action::Mix { a, b, to } => {
                if let (Some(a), Some(b)) = (&self.places[a], &self.places[b])
                    && a.len() == b.len()
                {
                    self.places[to] = Some(mix(&self.on, 0.25, a, b)?);
                }
            }
            Action::Scale { place, factor } => {
                if let Some(tensor) = &mut self.places[place] {
                    scale(&self.on, tensor, factor + pass as f32 / 16.0)?;
                }
            }
            Action::Share { from, to } => self.places[to] = self.places[from].clone(),
            Action::Drop { place } => self.places[place] = None,
            Action::Read { place } => self.read.extend(self.places[place].as_ref().map(Tensor::to_f32)),
            Action::Fail => return Err(Error::Device("the work gives up".to_owned())),
        }
        Ok(())
    }

    /// Does a list of things, and drops some of what it made.
    fn pass(&mut self, actions: &[Action], pass: usize, tidy: bool) -> Result<()> {
        actions.iter().try_for_each(|&action| self.act(action, pass))?;
        if tidy {
            self.places = [const { None }; PLACES];
        }
        Ok(())
    }
}

/// A life of many passes with two recordings, on a device of so many bytes; returns how often they were replayed.
fn live(seed: u64, bytes: usize) -> u64 {
    let mut dice = Dice(seed);
    let devices = [Watched::new(bytes), Watched::new(1 << 20)];
    let [mut recorded, mut plain] = devices.each_ref().map(World::new);
    let mut scripts = [(); 2].map(|()| (0..4 + dice.roll(14)).map(|_| Action::any(&mut dice)).collect::<Vec<_>>());
    let mut recordings = [Recording::default(), Recording::default()];
    let (tidy, mut replayed) = (dice.roll(3) > 0, 0);
    for pass in 0..14 {
        let which = dice.roll(2);
        let script = &mut scripts[which];
        if dice.roll(4) == 0 {
            let at = dice.roll(script.len());
            script[at] = Action::any(&mut dice);
        }
        if dice.roll(12) == 0 {
            replayed += std::mem::take(&mut recordings[which]).replayed();
        }
        let on = recorded.on.clone();
        let found = on.replayed(&mut recordings[which], || recorded.pass(script, pass, tidy));
        let wanted = plain.pass(script, pass, tidy);
        assert_eq!(found.map_err(|e| e.to_string()), wanted.map_err(|e| e.to_string()), "{seed}, {pass}: {script:?}");
        let all = |world: &World| world.places.each_ref().map(|place| place.as_ref().map(Tensor::to_f32));
        assert_eq!(all(&recorded), all(&plain), "{seed}, {pass}: {script:?}");
        assert_eq!(recorded.read, plain.read, "{seed}, {pass}: {script:?}");
    }
    replayed += recordings.iter().map(Recording::replayed).sum::<u64>();
    drop((recorded, plain, recordings));
    assert_eq!(devices.map(|watched| watched.device.used()), [0, 0], "{seed}");
    replayed
}

#[test]
fn whatever_work_does_its_recording_does_not_show() {
    let replayed: u64 = (0..400).map(|seed| live(seed, 1 << 20)).sum();
    assert!(replayed > 1000, "only {replayed} of 5600 passes were replayed");
}

#[test]
fn nor_does_it_where_memory_is_short() {
    let replayed: u64 = (400..600).map(|seed| live(seed, 3000)).sum();
    assert!(replayed > 100, "only {replayed} of 2800 passes were replayed");
}
