//! The loop that all trainings share: meet the gang, step, validate, keep the best, checkpoint, stop, resume.
//!
//! Every member of a gang runs it, with the same steps in the same order; a training of one worker is a gang of one. What a
//! member decides follows from the words of all, so all decide the same. See `docs/decisions/0012`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use data::artifact::Digest;
use kernels::Device;
use kernels::collective::{Collective, local, slices_of};
use observe::figures;
use proto::{Broken, GenerationId};
use serde_json::json;

use crate::checkpoint::{self, Saver};
use crate::context::{Context, stopped};
use crate::early_stopping::Course;
use crate::gang::{Fault, Meeting, Met, Phase, Resting, Verdict, Watched, Word, decode, encode, meet};
use crate::snapshot::Snapshot;
use crate::{Error, Result};

mod cards;
mod healing;
#[cfg(test)]
mod tests;
mod trainee;

pub(crate) use trainee::{Rules, Sliced, Trainee, about, slices};

/// Times that a member tries a step whose gradients are no numbers, before it leaves it to the others.
const TRIES: u32 = 2;
/// Steps in a row without numbers for anybody: the training has diverged.
const SKIPS: u32 = 5;
/// Generations that may break without a step between them.
const BREAKS: u32 = 5;
/// How much longer a member waits with each of them before it meets the others again.
const PAUSE: Duration = Duration::from_millis(50);

/// Trains to the end and sees to it that the model is committed, from the newest checkpoint that is whole or from where the others
/// of the gang are. A stop leaves a checkpoint of the last step, or members that have it.
pub(crate) fn train(cx: &mut Context, device: &Device, rules: &Rules, trainee: &mut dyn Trainee) -> Result<()> {
    let meeting = Meeting::open(&cx.reach)?;
    let mut course = Course::default();
    if let Some(found) = checkpoint::newest(cx, 0)? {
        trainee.restore(&found)?;
        tracing::info!(step = found.course.step, "training resumes from a checkpoint");
        course = found.course;
    }
    let clock = Clock { earlier: course.seconds, began: Instant::now() };
    let saver = Saver::new(course.step);
    let mut training = Training {
        device,
        rules,
        trainee,
        course,
        clock,
        saver,
        loaded: None,
        tries: 0,
        breaks: 0,
        narrow: false,
        met: false,
        seconds: (0.0, 0.0),
        world: 1,
    };
    let ended = training.run(cx, &meeting);
    training.saver.end(cx);
    ended
}

/// How a generation ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The training is over, and its model committed.
    Over,
    /// The members meet again.
    Regrouped,
    /// This member leaves.
    Left,
}

/// A member's training.
struct Training<'a> {
    device: &'a Device,
    rules: &'a Rules,
    trainee: &'a mut dyn Trainee,
    course: Course,
    clock: Clock,
    saver: Saver,
    /// The digest of what was loaded, once somebody wanted to know.
    loaded: Option<Digest>,
    /// Times that the present step was tried in vain.
    tries: u32,
    /// Generations that broke since the last step.
    breaks: u32,
    /// Whether NCCL has failed.
    narrow: bool,
    /// Whether this member has been in a generation.
    met: bool,
    /// Seconds of computing since the start: of the slowest member of each step, and of all on average.
    seconds: (f64, f64),
    /// The members of the last generation.
    world: usize,
}

impl Training<'_> {
    /// From generation to generation.
    fn run(&mut self, cx: &mut Context, meeting: &Meeting) -> Result<()> {
        let mut broken = None;
        loop {
            // As long as it is not there, the others wait for it.
            let about = self.computing(cx, |this| {
                meet(Phase::Join);
                Ok(this.trainee.about(this.course.step))
            })?;
            cx.tell_ready(meeting, self.course.step, about, broken.take());
            let Some(generation) = cx.seat.wait(&cx.stop()) else {
                // Whoever waits cannot know whether others have what it has.
                self.save_now(cx);
                return Err(stopped());
            };
            let (number, seat, stop) = (generation.number, cx.seat.clone(), cx.stop());
            let over = || stop.is_cancelled() || seat.aborted(number).is_some();
            let ended = match meeting.ring(&generation, &seat, &over) {
                Met::Ring(ring) => self.widen(cx, ring).and_then(|mut gang| self.live(cx, number, &mut *gang)),
                Met::Broken(missed) => {
                    broken = Some(self.broken(cx, missed)?);
                    continue;
                }
            };
            cx.seat.leave();
            match ended {
                Ok(End::Over) => return Ok(()),
                Ok(End::Regrouped) => {}
                Ok(End::Left) => return Err(stopped()),
                Err(Error::Kernels(kernels::Error::Gang(reason))) => {
                    let reason = cx.seat.aborted(number).unwrap_or(reason);
                    broken = Some(self.broken(cx, Broken { generation: number, reason, unreachable: None })?);
                }
                Err(Error::Kernels(e)) if e.is_stuck() => {
                    // The session ends this process: nothing is to be done with this device before.
                    cx.seat.stick(e.to_string());
                    loop {
                        std::thread::park();
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// A generation has broken, and the members are to meet again: but not for ever without a step.
    fn broken(&mut self, cx: &Context, missed: Broken) -> Result<Broken> {
        let Broken { generation, reason, .. } = &missed;
        let step = self.course.step;
        tracing::info!(number = %generation, reason, step, "generation broken");
        self.breaks += 1;
        if self.breaks >= BREAKS {
            self.save_now(cx);
            let what = format!("{BREAKS} generations broke before step {} was done, the last one: {reason}", step + 1);
            return Err(Error::Gang(what));
        }
        std::thread::sleep(self.breaks * PAUSE);
        Ok(missed)
    }

    /// A generation.
    fn live(&mut self, cx: &mut Context, number: GenerationId, gang: &mut dyn Collective) -> Result<End> {
        self.world = gang.world();
        figures().generation.set(i64::try_from(number.0).unwrap_or(i64::MAX));
        tracing::info!(%number, rank = gang.rank(), world = gang.world(), step = self.course.step, "generation begins");
        self.computing(cx, |this| this.fault(cx, number, Phase::Sync))?;
        if !std::mem::replace(&mut self.met, true) && gang.rank() == 0 {
            self.look_again(cx)?;
        }
        self.heal(cx, number, gang)?;
        if gang.rank() == 0 {
            checkpoint::discard_after(cx, self.course.step);
        }
        loop {
            if self.course.validation_due(self.rules.validate_every, self.rules.steps)
                && let Some(end) = self.validate(cx, number, gang)?
            {
                return Ok(end);
            }
            if self.course.step >= self.rules.steps || self.course.is_exhausted(self.rules.patience) {
                return self.finish(cx, gang);
            }
            if gang.world() == 1 && cx.check().is_err() {
                self.save_now(cx);
                return Ok(End::Left); // without another step
            }
            if let Some(end) = self.step(cx, number, gang)? {
                return Ok(end);
            }
        }
    }

    /// Lets happen what tests want. Says whether this member's gradients are to be broken.
    fn fault(&self, cx: &Context, number: GenerationId, phase: Phase) -> Result<bool> {
        match meet(phase) {
            Some(Fault::Abort) if self.world > 1 => {
                cx.seat.abort(number, "a fault on purpose".to_owned());
                Ok(false)
            }
            Some(Fault::Abort) => Err(kernels::Error::Gang("a fault on purpose".to_owned()).into()),
            fault => Ok(fault == Some(Fault::Nan)),
        }
    }

    /// A step of all members: each computes its slices, and all learn from the sum. Where one is in trouble, nobody does.
    fn step(&mut self, cx: &mut Context, number: GenerationId, gang: &mut dyn Collective) -> Result<Option<End>> {
        let (tree, mut word) = self.computing(cx, |this| {
            let broken = this.fault(cx, number, Phase::Forward)?;
            let (began, mut resting) = (Instant::now(), Resting::new(gang, &cx.seat));
            let (tree, mut word) = this.trainee.learn(&mut resting, this.course.step, &|| cx.seat.beat())?;
            let computed = began.elapsed().saturating_sub(resting.waited());
            figures().step_seconds.observe(computed.as_secs_f64());
            figures().allreduce_seconds.observe(resting.waited().as_secs_f64());
            figures().step.set(i64::try_from(this.course.step).unwrap_or(i64::MAX));
            word.micros = u64::try_from(computed.as_micros()).unwrap_or(u64::MAX);
            if broken {
                "a fault on purpose".clone_into(&mut word.trouble);
            }
            this.fault(cx, number, Phase::AllReduce)?;
            Ok((tree, word))
        })?;
        (word.leaves, word.regroups) = (cx.check().is_err(), cx.seat.regroups());
        word.tries = self.tries;
        word.settles = self.trainee.is_full() || (gang.rank() == 0 && self.saver.is_due());
        let verdict = Word::verdict(&decode(&gang.all_gather(encode(&word))?)?)?;
        if !verdict.troubled.is_empty() {
            return self.try_again(gang.rank(), &verdict, &word);
        }
        let total = gang.all_reduce(tree, &self.trainee.parameters())?;
        self.computing(cx, |this| {
            this.fault(cx, number, Phase::Commit)?;
            this.trainee.apply(&mut Resting::new(gang, &cx.seat), total)
        })?;
        self.count(cx, &verdict);
        if verdict.ends {
            return self.part(cx, gang, &verdict, word.leaves).map(Some);
        }
        if verdict.settles {
            self.settle(cx, gang)?;
            if gang.rank() == 0 && self.saver.is_due() {
                self.save(cx, number)?;
            }
        }
        Ok(None)
    }

    /// Everybody comes to have what only some have learnt.
    fn settle(&mut self, cx: &Context, gang: &mut dyn Collective) -> Result<()> {
        let (all, beat): (Vec<usize>, _) = ((0..gang.world()).collect(), || {
            cx.seat.beat();
            true
        });
        self.computing(cx, |this| this.trainee.settle(&mut Resting::new(gang, &cx.seat), &all, &beat))
    }

    /// A step is done.
    fn count(&mut self, cx: &mut Context, verdict: &Verdict) {
        (self.course.step, self.tries, self.breaks) = (self.course.step + 1, 0, 0);
        self.course.skipped_in_row = 0;
        cx.seat.warm_up();
        // Ranks come in the order of their slices.
        self.course.loss = Some(verdict.figures.iter().sum());
        self.seconds = (self.seconds.0 + verdict.seconds.0, self.seconds.1 + verdict.seconds.1);
        self.tell(cx, self.rules.steps);
    }

    /// Gradients that are no numbers may come of a bad moment of a device: once all try again. Whoever has them again goes, as long
    /// as others do not. Where all have them, or where they are there again without whoever went, it is the step: it is left out by
    /// all and counted, but not many in a row.
    fn try_again(&mut self, rank: usize, verdict: &Verdict, word: &Word) -> Result<Option<End>> {
        // Who has come meanwhile takes the others' word for what it has not seen.
        self.tries = verdict.tries + 1;
        let step = self.course.step + 1;
        tracing::warn!(step, tries = self.tries, ranks = ?verdict.troubled, "gradients are no numbers");
        let everybody = verdict.troubled.len() == self.world || self.tries > TRIES;
        if self.tries < TRIES || !(everybody || verdict.troubled.contains(&rank)) {
            return Ok(None);
        }
        if everybody && self.course.skipped_in_row + 1 < SKIPS {
            tracing::warn!(step, about = self.trainee.about(self.course.step), "step left out");
            (self.course.step, self.tries, self.breaks) = (step, 0, 0);
            self.course.skipped += 1;
            self.course.skipped_in_row += 1;
            return Ok(None);
        }
        let loss = word.figures.iter().map(|bits| f64::from_bits(*bits)).sum();
        let (key, learning_rate) = self.rules.learning_rate;
        let diverged = Error::Diverged { stage: self.rules.stage, step, loss, key, learning_rate };
        Err(if everybody { diverged } else { Error::Gang(diverged.to_string()) })
    }

    /// Validates the steps so far, every member a part of the users.
    fn validate(&mut self, cx: &mut Context, number: GenerationId, gang: &mut dyn Collective) -> Result<Option<End>> {
        self.settle(cx, gang)?;
        let mut word = Word { step: self.course.step, ..Word::default() };
        self.computing(cx, |this| {
            for chunk in slices_of(gang.rank(), gang.world(), this.trainee.chunks()) {
                match this.trainee.validate(cx, chunk) {
                    Ok(sum) => word.figures.push(sum.to_bits()),
                    Err(Error::Stopped(_)) => {
                        "its users are not validated".clone_into(&mut word.trouble);
                        return Ok(());
                    }
                    Err(e) => return Err(e),
                }
                cx.seat.beat();
            }
            Ok(())
        })?;
        (word.leaves, word.regroups) = (cx.check().is_err(), cx.seat.regroups());
        let verdict = Word::verdict(&decode(&gang.all_gather(encode(&word))?)?)?;
        if verdict.troubled.is_empty() {
            let figure = self.trainee.figure(&verdict.figures);
            if self.course.observe(figure) {
                self.computing(cx, |this| this.trainee.keep())?;
            }
            if gang.rank() == 0 {
                self.save(cx, number)?;
            }
        }
        // A validation that was left undone is done by whoever goes on.
        if verdict.ends { self.part(cx, gang, &verdict, word.leaves).map(Some) } else { Ok(None) }
    }

    /// Ends a generation in order: nobody goes before all have what was done together.
    fn part(&mut self, cx: &Context, gang: &mut dyn Collective, verdict: &Verdict, leaves: bool) -> Result<End> {
        self.settle(cx, gang)?;
        if verdict.all_leave && gang.rank() == 0 {
            self.save_now(cx);
        }
        gang.barrier()?;
        Ok(if leaves { End::Left } else { End::Regrouped })
    }

    /// The training is over: one commits, and nobody goes before the model is safe.
    fn finish(&mut self, cx: &mut Context, gang: &mut dyn Collective) -> Result<End> {
        self.tell(cx, self.course.step);
        if gang.rank() == 0 {
            self.saver.end(cx);
            self.course.seconds = self.clock.seconds();
            let mut output = self.computing(cx, |this| this.trainee.output(&this.course, &|| cx.seat.beat()))?;
            output.stats.notes.extend(self.waiting().map(|share| ("waiting_share".to_owned(), json!(share))));
            cx.commit(0, output)?;
            checkpoint::clear(cx);
        }
        gang.barrier()?;
        Ok(End::Over)
    }

    /// Does something that may take as long as steps may, and not longer.
    fn computing<T>(&mut self, cx: &Context, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        cx.seat.watch(Watched::Computes(Instant::now()));
        let done = work(self);
        cx.seat.watch(Watched::Not);
        done
    }

    fn snapshot(&self) -> Result<Snapshot> {
        let course = Course { seconds: self.clock.seconds(), ..self.course.clone() };
        let files = self.trainee.files()?.into_iter().map(|(name, bytes)| (name, Bytes::from(bytes)));
        Ok(Snapshot { course, files: files.collect() })
    }

    /// Begins to write a checkpoint.
    fn save(&mut self, cx: &Context, number: GenerationId) -> Result<()> {
        let snapshot = self.computing(cx, |this| {
            this.fault(cx, number, Phase::Checkpoint)?;
            this.snapshot()
        })?;
        self.saver.begin(cx, snapshot);
        Ok(())
    }

    /// Writes a checkpoint of the last step, unless there is one.
    fn save_now(&mut self, cx: &Context) {
        self.saver.end(cx);
        if self.saver.is_behind(self.course.step) {
            match self.trainee.settle(&mut local::alone(), &[0], &|| true).and_then(|()| self.snapshot()) {
                Ok(snapshot) => self.saver.begin(cx, snapshot),
                Err(e) => tracing::warn!(error = %e, "cannot write a checkpoint"),
            }
        }
        self.saver.end(cx);
    }

    /// The share of its time that a member has waited for slower ones, on average.
    fn waiting(&self) -> Option<f64> {
        let (slowest, mean) = self.seconds;
        (self.world > 1 && slowest > 0.0).then(|| 1.0 - mean / slowest)
    }

    fn tell(&self, cx: &mut Context, total: u64) {
        let course = &self.course;
        cx.progress(course.step, total, "steps", || {
            let loss = course.loss.map_or_else(String::new, |loss| format!("loss {loss:.3}  "));
            let best = match course.best {
                Some(best) => format!("best {} {best:.4} at {}", self.rules.metric, course.best_step),
                None => "not validated yet".to_owned(),
            };
            let waiting = self.waiting().map(|share| format!("  {:.0} % waiting", 100.0 * share));
            let skipped = if course.skipped > 0 { format!("  {} left out", course.skipped) } else { String::new() };
            loss + &best + &waiting.unwrap_or_default() + &skipped
        });
    }
}

/// Measures the time that went into a training, over all attempts.
struct Clock {
    /// Seconds of earlier attempts.
    earlier: f64,
    began: Instant,
}

impl Clock {
    fn seconds(&self) -> f64 {
        self.earlier + self.began.elapsed().as_secs_f64()
    }
}
