//! The recurrence: sequences in parallel, time in order, channels in vector lanes.

use rayon::prelude::*;

use super::States;
use super::coefficients::{Coefficients, Sums};
use crate::simd::{lanes, vectorised};
use crate::{Result, Segments};

/// Whole sequences are put together until a task has this many rows: a function of the lengths alone.
const ROWS: usize = 64;

/// Fills the states from the projected inputs; both as real and imaginary part.
pub(super) fn scan(c: &Coefficients, segments: &Segments, v: [&[f32]; 2], h: [&mut [f32]; 2]) {
    let groups = groups(segments);
    let [h_re, h_im] = h.map(|part| split(part, &groups, c.state()));
    let tasks: Vec<_> = groups.iter().zip(h_re.into_iter().zip(h_im)).collect();
    tasks.into_par_iter().for_each(|(group, (h_re, h_im))| {
        let rows = group.rows(c.state());
        let [v_re, v_im] = v.map(|part| &part[rows.clone()]);
        scan_group(&group.lengths, &c.lambda_re, &c.lambda_im, &c.gamma, v_re, v_im, h_re, h_im);
    });
}

/// Turns the gradient that reaches every state from its output into the gradient of the projected input, in place, and
/// returns the sums that the coefficients' gradients are made of.
pub(super) fn scan_back(c: &Coefficients, segments: &Segments, states: &States, g: [&mut [f32]; 2]) -> Result<Sums> {
    let groups = groups(segments);
    let States { v, h, .. } = states;
    let [v_re, v_im, h_re, h_im] = [v[0].f32()?, v[1].f32()?, h[0].f32()?, h[1].f32()?];
    let [g_re, g_im] = g.map(|part| split(part, &groups, c.state()));
    let tasks: Vec<_> = groups.iter().zip(g_re.into_iter().zip(g_im)).collect();
    let parts: Vec<Sums> = tasks
        .into_par_iter()
        .map(|(group, (g_re, g_im))| {
            let rows = group.rows(c.state());
            let mut sums = Sums::zeros(c.state());
            let v = [&v_re[rows.clone()], &v_im[rows.clone()]];
            let h = [&h_re[rows.clone()], &h_im[rows]];
            scan_group_back(&group.lengths, &c.lambda_re, &c.lambda_im, &c.gamma, v, h, g_re, g_im, &mut sums);
            sums
        })
        .collect();
    let mut total = Sums::zeros(c.state());
    parts.iter().for_each(|part| total.add(part));
    Ok(total)
}

/// Neighbouring sequences of one task.
struct Group {
    first_row: usize,
    lengths: Vec<usize>,
}

impl Group {
    fn len(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// The elements of the group in a `[n, state]` array.
    fn rows(&self, state: usize) -> std::ops::Range<usize> {
        self.first_row * state..(self.first_row + self.len()) * state
    }
}

fn groups(segments: &Segments) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for range in segments.ranges().filter(|r| !r.is_empty()) {
        match groups.last_mut().filter(|group| group.len() < ROWS) {
            Some(group) => group.lengths.push(range.len()),
            None => groups.push(Group { first_row: range.start, lengths: vec![range.len()] }),
        }
    }
    groups
}

/// Cuts an array into the groups' parts.
fn split<'a>(mut rest: &'a mut [f32], groups: &[Group], state: usize) -> Vec<&'a mut [f32]> {
    groups
        .iter()
        .map(|group| {
            let (head, tail) = std::mem::take(&mut rest).split_at_mut(group.len() * state);
            rest = tail;
            head
        })
        .collect()
}

vectorised! {
    fn scan_group(
        lengths: &[usize],
        lambda_re: &[f32],
        lambda_im: &[f32],
        gamma: &[f32],
        v_re: &[f32],
        v_im: &[f32],
        h_re: &mut [f32],
        h_im: &mut [f32],
    ) {
        let state = gamma.len();
        let mut row = 0;
        for &len in lengths {
            for t in 0..len {
                let at = row * state;
                row += 1;
                let (v_re, v_im) = (&v_re[at..][..state], &v_im[at..][..state]);
                let (past_re, now_re) = h_re.split_at_mut(at);
                let (past_im, now_im) = h_im.split_at_mut(at);
                let (now_re, now_im) = (&mut now_re[..state], &mut now_im[..state]);
                if t == 0 {
                    for s in 0..state {
                        now_re[s] = gamma[s] * v_re[s];
                        now_im[s] = gamma[s] * v_im[s];
                    }
                    continue;
                }
                let (past_re, past_im) = (&past_re[at - state..][..state], &past_im[at - state..][..state]);
                let (lambda_re, lambda_im) = (&lambda_re[..state], &lambda_im[..state]);
                for s in 0..state {
                    let (re, im) = (past_re[s], past_im[s]);
                    now_re[s] = gamma[s].mul_add(v_re[s], lambda_re[s].mul_add(re, -(lambda_im[s] * im)));
                    now_im[s] = gamma[s].mul_add(v_im[s], lambda_re[s].mul_add(im, lambda_im[s] * re));
                }
            }
        }
    }

    fn scan_group_back(
        lengths: &[usize],
        lambda_re: &[f32],
        lambda_im: &[f32],
        gamma: &[f32],
        v: [&[f32]; 2],
        h: [&[f32]; 2],
        g_re: &mut [f32],
        g_im: &mut [f32],
        sums: &mut Sums,
    ) {
        const LANES: usize = lanes::LANES;
        let state = gamma.len();
        let whole = state / LANES * LANES;
        // Few channels at a time, so that what they carry and sum up stays in registers.
        for first in (0..whole).step_by(LANES) {
            let channels = Channels::<LANES>::new(first, lambda_re, lambda_im, gamma);
            channels.back(lengths, state, v, h, g_re, g_im, sums);
        }
        for first in whole..state {
            let channel = Channels::<1>::new(first, lambda_re, lambda_im, gamma);
            channel.back(lengths, state, v, h, g_re, g_im, sums);
        }
    }
}

/// Some neighbouring channels of the state.
struct Channels<const N: usize> {
    first: usize,
    lambda_re: [f32; N],
    lambda_im: [f32; N],
    gamma: [f32; N],
}

impl<const N: usize> Channels<N> {
    #[inline(always)]
    fn new(first: usize, lambda_re: &[f32], lambda_im: &[f32], gamma: &[f32]) -> Self {
        Self { first, lambda_re: at(lambda_re, first), lambda_im: at(lambda_im, first), gamma: at(gamma, first) }
    }

    /// Goes back over the sequences of a group.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn back(
        &self,
        lengths: &[usize],
        state: usize,
        v: [&[f32]; 2],
        h: [&[f32]; 2],
        g_re: &mut [f32],
        g_im: &mut [f32],
        sums: &mut Sums,
    ) {
        let mut sum_re: [f32; N] = at(&sums.lambda_re, self.first);
        let mut sum_im: [f32; N] = at(&sums.lambda_im, self.first);
        let mut sum_gamma: [f32; N] = at(&sums.gamma, self.first);
        let mut row = lengths.iter().sum::<usize>();
        for &len in lengths.iter().rev() {
            let (mut carry_re, mut carry_im) = ([0.0f32; N], [0.0f32; N]);
            for t in (0..len).rev() {
                row -= 1;
                let here = row * state + self.first;
                let (v_re, v_im): ([f32; N], [f32; N]) = (at(v[0], here), at(v[1], here));
                let (mut re, mut im): ([f32; N], [f32; N]) = (at(g_re, here), at(g_im, here));
                for s in 0..N {
                    re[s] += carry_re[s];
                    im[s] += carry_im[s];
                    sum_gamma[s] += v_re[s].mul_add(re[s], v_im[s] * im[s]);
                    // What goes on to the state before: conj(λ) g.
                    carry_re[s] = self.lambda_re[s].mul_add(re[s], self.lambda_im[s] * im[s]);
                    carry_im[s] = self.lambda_re[s].mul_add(im[s], -(self.lambda_im[s] * re[s]));
                }
                if t > 0 {
                    let (h_re, h_im): ([f32; N], [f32; N]) = (at(h[0], here - state), at(h[1], here - state));
                    for s in 0..N {
                        sum_re[s] += re[s].mul_add(h_re[s], im[s] * h_im[s]);
                        sum_im[s] += im[s].mul_add(h_re[s], -(re[s] * h_im[s]));
                    }
                }
                for s in 0..N {
                    g_re[here + s] = re[s] * self.gamma[s];
                    g_im[here + s] = im[s] * self.gamma[s];
                }
            }
        }
        sums.lambda_re[self.first..][..N].copy_from_slice(&sum_re);
        sums.lambda_im[self.first..][..N].copy_from_slice(&sum_im);
        sums.gamma[self.first..][..N].copy_from_slice(&sum_gamma);
    }
}

/// The values at a place.
#[inline(always)]
fn at<const N: usize>(values: &[f32], place: usize) -> [f32; N] {
    let mut found = [0.0; N];
    found.copy_from_slice(&values[place..][..N]);
    found
}
