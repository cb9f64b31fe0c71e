//! Which rows of a gradient belong to which row of the table, as a device wants to know it.

/// Rows that are added one after the other: part of the order of summation, so it is a constant.
pub(super) const BAND: usize = 32;
/// Marks a band whose id has several, as in the kernels.
const ONE_OF_SEVERAL: u32 = 1 << 31;

/// The rows in the order of their ids, cut into bands of one id.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Bands {
    /// Rows sorted by id; those of one id in order.
    order: Vec<u32>,
    /// For every place in that order the length of the band that begins there; 0 where none does.
    lengths: Vec<u32>,
    /// Beside it the id, or which of the bands of all ids with several it is.
    places: Vec<u32>,
    /// The ids with several bands: the first of them, how many there are, and the id.
    several: [Vec<u32>; 3],
}

impl Bands {
    pub(super) fn of(ids: &[u32]) -> Self {
        let order = sorted(ids);
        let mut bands = Self { lengths: vec![0; ids.len()], places: vec![0; ids.len()], order, ..Self::default() };
        let (mut begin, mut parts) = (0, 0);
        while begin < ids.len() {
            let id = ids[bands.order[begin] as usize];
            let len = bands.order[begin..].iter().take_while(|&&row| ids[row as usize] == id).count();
            let count = len.div_ceil(BAND);
            for (i, at) in (begin..begin + len).step_by(BAND).enumerate() {
                let length = BAND.min(begin + len - at) as u32;
                let (length, place) =
                    if count > 1 { (length | ONE_OF_SEVERAL, parts + i as u32) } else { (length, id) };
                (bands.lengths[at], bands.places[at]) = (length, place);
            }
            if count > 1 {
                let entry = [parts, count as u32, id];
                bands.several.iter_mut().zip(entry).for_each(|(list, value)| list.push(value));
                parts += count as u32;
            }
            begin += len;
        }
        bands
    }

    /// All lists one after the other, the last three as long as is asked for: of `n` rows no more than `n / BAND` ids have
    /// several bands, and no more than twice as many bands belong to such.
    pub(super) fn words(self, several: usize) -> Vec<u32> {
        debug_assert!(self.several[0].len() <= several);
        let padded = self.several.map(|list| [&list[..], &vec![0; several - list.len()]].concat());
        [self.order, self.lengths, self.places].into_iter().chain(padded).flatten().collect()
    }
}

/// The rows sorted by id, those of one id in order: digit by digit, so that the time is a few passes over the ids.
fn sorted(ids: &[u32]) -> Vec<u32> {
    let largest = ids.iter().copied().max().unwrap_or(0);
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    let mut next = vec![0; ids.len()];
    for shift in (0..u32::BITS - largest.leading_zeros()).step_by(8) {
        let digit = |row: u32| (ids[row as usize] >> shift) as usize & 255;
        let mut places = [0; 257];
        order.iter().for_each(|&row| places[digit(row) + 1] += 1);
        (0..256).for_each(|i| places[i + 1] += places[i]);
        for &row in &order {
            next[places[digit(row)]] = row;
            places[digit(row)] += 1;
        }
        std::mem::swap(&mut order, &mut next);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_cut() {
        let mut ids = vec![70_000; 2 * BAND + 1];
        ids[3] = 5;
        ids.push(5);
        ids.push(300);
        let bands = Bands::of(&ids);
        let last = ids.len() as u32 - 1;
        assert_eq!((&bands.order[..4], bands.order[66]), (&[3, last - 1, last, 0][..], last - 2));
        let begun: Vec<_> =
            (0..).zip(bands.lengths.iter().zip(&bands.places)).filter(|(_, (len, _))| **len > 0).collect();
        let wanted = [(0, 2, 5), (2, 1, 300), (3, 32 | ONE_OF_SEVERAL, 0), (35, 32 | ONE_OF_SEVERAL, 1)];
        assert_eq!(begun, wanted.each_ref().map(|(at, len, place)| (*at, (len, place))));
        assert_eq!(bands.several, [vec![0], vec![2], vec![70_000]]);
        let words = bands.words(2);
        assert_eq!((words.len(), &words[3 * ids.len()..]), (3 * 67 + 6, &[0, 0, 2, 0, 70_000, 0][..]));
    }

    #[test]
    fn any_ids_are_sorted() {
        for n in [0, 1, 2, 1000] {
            let ids: Vec<u32> = (0..n).map(|i: u32| i.wrapping_mul(0x9E37_79B9) >> (i % 5 * 7)).collect();
            let mut wanted: Vec<u32> = (0..n).collect();
            wanted.sort_by_key(|&row| ids[row as usize]);
            assert_eq!(sorted(&ids), wanted);
        }
        assert_eq!(Bands::of(&[]).words(0), [0; 0]);
    }
}
