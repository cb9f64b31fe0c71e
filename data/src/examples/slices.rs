//! The slices of a step: which examples are computed together.

use std::cmp::Reverse;

/// Deals the examples of a step out to slices of like size: the largest first, each to the slice that has least so far. Every
/// slice has one at least, so there are fewer of them where there are fewer examples. In a slice examples stand in their order.
///
/// A function of the sizes alone: what is computed together, and with it every bit of the sum, is the same for any number of
/// workers.
#[must_use]
pub fn deal(sizes: &[usize], slices: usize) -> Vec<Vec<usize>> {
    let mut dealt: Vec<(usize, Vec<usize>)> = vec![(0, Vec::new()); slices.min(sizes.len())];
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|example| (Reverse(sizes[*example]), *example));
    for example in order {
        let least = dealt.iter_mut().min_by_key(|(size, examples)| (!examples.is_empty(), *size));
        if let Some((size, examples)) = least {
            *size += sizes[example];
            examples.push(example);
        }
    }
    dealt
        .into_iter()
        .map(|(_, mut examples)| {
            examples.sort_unstable();
            examples
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::deal;

    #[test]
    fn every_example_is_dealt_once() {
        for (examples, slices) in [(0, 4), (1, 4), (3, 4), (64, 4), (61, 8), (5, 1)] {
            let sizes: Vec<usize> = (0..examples).map(|i| (i * 37) % 50).collect();
            let dealt = deal(&sizes, slices);
            assert_eq!(dealt.len(), slices.min(examples));
            assert!(dealt.iter().all(|slice| !slice.is_empty() && slice.is_sorted()));
            let mut all: Vec<usize> = dealt.concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..examples), "{examples} over {slices}");
        }
    }

    #[test]
    fn slices_are_of_like_size() {
        // A few long ones among many short ones, as histories are.
        let sizes: Vec<usize> = (0..64).map(|i| if i % 16 == 0 { 50 } else { 3 + i % 5 }).collect();
        let of = |slice: &Vec<usize>| slice.iter().map(|i| sizes[*i]).sum::<usize>();
        let dealt: Vec<usize> = deal(&sizes, 8).iter().map(of).collect();
        let (most, least) = (dealt.iter().max().copied(), dealt.iter().min().copied());
        let mean = sizes.iter().sum::<usize>() / 8;
        assert!(most <= Some(mean + 50 / 8) && least >= Some(mean - 50 / 8), "{dealt:?}");
    }
}
