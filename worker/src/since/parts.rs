//! Which parts of a table can hold some users, without reading the others.

use std::ops::Range;

use crate::Result;

/// The first and the last id of a part; nothing for an empty one.
pub(super) type Edges = Option<(String, String)>;

/// The parts, of `parts` that are sorted by id, that overlap the ids `first..=last`. `edges` reads a part; few are read if
/// the users are near the part `guess`, and a handful at worst.
pub(super) fn overlapping(
    parts: usize,
    guess: usize,
    (first, last): (&str, &str),
    edges: &mut dyn FnMut(usize) -> Result<Edges>,
) -> Result<Range<usize>> {
    let start = first_reaching(parts, guess, first, edges)?;
    let mut end = start;
    while end < parts && edges(end)?.is_none_or(|(begins, _)| begins.as_str() <= last) {
        end += 1;
    }
    Ok(start..end)
}

/// The first part that ends at `id` or behind it: steps of growing width away from the guess, then halving.
fn first_reaching(
    parts: usize,
    guess: usize,
    id: &str,
    edges: &mut dyn FnMut(usize) -> Result<Edges>,
) -> Result<usize> {
    // An empty part says nothing; the next one that is not empty speaks for it.
    let mut reaches = |mut part: usize| -> Result<bool> {
        while part < parts {
            match edges(part)? {
                Some((_, ends)) => return Ok(ends.as_str() >= id),
                None => part += 1,
            }
        }
        Ok(true)
    };
    // All parts before `low` end before the id; `high` and all behind it do not.
    let (mut low, mut high) = (0, parts);
    let (mut probe, mut step) = (guess.min(parts.saturating_sub(1)), 1);
    while low < high {
        if reaches(probe)? {
            high = probe;
            probe = probe.saturating_sub(step).max(low);
        } else {
            low = probe + 1;
            probe = (probe + step).min(high.saturating_sub(1));
        }
        step *= 2;
        if step > parts.max(1) || !(low..high).contains(&probe) {
            probe = low + (high - low) / 2;
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    /// Parts of the given lengths, of users with even numbers.
    fn table(lengths: &[usize]) -> Vec<Edges> {
        let mut next = 0;
        let mut part = |length: &usize| {
            let from = next;
            next += length;
            (*length > 0).then(|| (id(2 * from), id(2 * (next - 1))))
        };
        lengths.iter().map(&mut part).collect()
    }

    fn id(number: usize) -> String {
        format!("u{number:04}")
    }

    /// The non-empty parts that are found, and which were read.
    fn found(table: &[Edges], guess: usize, first: &str, last: &str) -> (Vec<usize>, BTreeSet<usize>) {
        let mut read = BTreeSet::new();
        let mut edges = |part: usize| {
            read.insert(part);
            Ok(table[part].clone())
        };
        let range = overlapping(table.len(), guess, (first, last), &mut edges).unwrap();
        (range.filter(|part| table[*part].is_some()).collect(), read)
    }

    #[test]
    fn all_overlapping_parts_are_found_whatever_the_guess() {
        for lengths in [&[][..], &[3], &[0, 0], &[2, 3, 1, 4], &[0, 2, 0, 0, 3, 1, 0], &[1, 1, 1, 1, 1, 1, 1, 1, 1]] {
            let table = table(lengths);
            for guess in 0..lengths.len() + 2 {
                for first in 0..24 {
                    for last in first..24 {
                        let (first, last) = (id(first), id(last));
                        let overlaps = |edges: &Edges| edges.as_ref().is_some_and(|(b, e)| *b <= last && *e >= first);
                        let expected: Vec<usize> = (0..table.len()).filter(|i| overlaps(&table[*i])).collect();
                        let (parts, _) = found(&table, guess, &first, &last);
                        assert_eq!(parts, expected, "{lengths:?}, guess {guess}, {first} to {last}");
                    }
                }
            }
        }
    }

    #[test]
    fn few_parts_are_read() {
        let table = table(&[5; 1000]);
        let (parts, read) = found(&table, 500, &id(5000), &id(5008));
        assert_eq!(parts, [500]);
        assert!(read.iter().all(|part| (499..=501).contains(part)), "{read:?}");
        let (parts, read) = found(&table, 3, &id(8000), &id(8015));
        assert_eq!(parts, [800, 801]);
        assert!(read.len() < 40, "{read:?}");
    }
}
