//! How all members come to have what each has worked on, be everybody left or not.

use kernels::collective::Collective;

use super::SharedLruRec;
use super::part::Part;
use crate::Result;

impl SharedLruRec {
    /// The `holders`, ranks that have done the same steps, come to have all parts as these steps left them: each part from one who has
    /// worked on it, or from one who makes it from what it has heard, where nobody is left who has. Everybody in the gang calls
    /// this; `goes_on` is asked behind each step that is made again.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] if a member is gone, or if this does not go on: nothing is lost by either. [`crate::Error::Input`] for a part
    /// that nobody can make, which is a fault of the caller.
    pub fn settle(&mut self, gang: &mut dyn Collective, holders: &[usize], goes_on: &dyn Fn() -> bool) -> Result<()> {
        self.pending = None;
        if holders.is_empty() {
            return Ok(());
        }
        let givers = self.givers(gang, holders)?;
        for (number, giver) in givers.iter().enumerate() {
            if *giver == Some(gang.rank()) {
                self.make(number, goes_on)?;
            }
        }
        let holds = holders.contains(&gang.rank());
        for (number, giver) in givers.into_iter().enumerate() {
            if let Some(giver) = giver {
                self.hand_on(gang, number, giver, holds)?;
            }
        }
        if holds {
            self.heard.clear();
        }
        Ok(())
    }

    /// Of each part the rank that gives it to others, unless all holders have it.
    fn givers(&self, gang: &mut dyn Collective, holders: &[usize]) -> Result<Vec<Option<usize>>> {
        let steps = self.part_steps(gang)?;
        let giver = |number: usize| {
            let has = |rank: &usize| steps[*rank][1 + number] == steps[*rank][0];
            // Who is to make one that nobody has follows from the part, so that many make some at the same time.
            let giver = holders.iter().find(|rank| has(rank)).unwrap_or(&holders[number % holders.len()]);
            (!holders.iter().all(has)).then_some(*giver)
        };
        Ok((0..self.parts.len()).map(giver).collect())
    }

    /// Of every rank the steps that it has done, and those of each of its parts.
    fn part_steps(&self, gang: &mut dyn Collective) -> Result<Vec<Vec<u64>>> {
        let own = std::iter::once(self.optimizer.steps()).chain(self.parts.iter().map(Part::steps));
        let all = gang.all_gather(own.flat_map(u64::to_le_bytes).collect())?;
        let numbers = |bytes: &Vec<u8>| {
            let (words, rest) = bytes.as_chunks();
            let fits = rest.is_empty() && words.len() == 1 + self.parts.len();
            fits.then(|| words.iter().map(|word| u64::from_le_bytes(*word)).collect())
        };
        let all: Option<Vec<Vec<u64>>> = all.iter().map(numbers).collect();
        Ok(all.ok_or_else(|| kernels::Error::Gang("a member has other parts of the items".to_owned()))?)
    }

    /// Makes a part what its steps make of it, from what was said of them.
    fn make(&mut self, number: usize, goes_on: &dyn Fn() -> bool) -> Result<()> {
        let part = &mut self.parts[number];
        for step in &self.heard {
            if step.number > part.steps() {
                if !goes_on() {
                    return Err(kernels::Error::Gang("the gang is over before all items are made".to_owned()).into());
                }
                part.learn(step)?;
            }
        }
        match part.steps() == self.optimizer.steps() {
            true => Ok(()),
            false => self.expect_complete(),
        }
    }

    /// Gives a part to those who hold the rest.
    fn hand_on(&mut self, gang: &mut dyn Collective, number: usize, from: usize, holds: bool) -> Result<()> {
        let gives = from == gang.rank();
        let mut files = if gives { self.parts[number].save()? } else { [Vec::new(), Vec::new()] };
        for file in &mut files {
            gang.broadcast(from, file)?;
        }
        if holds && !gives {
            self.parts[number] = self.parts[number].loaded(&files)?;
        }
        Ok(())
    }
}
