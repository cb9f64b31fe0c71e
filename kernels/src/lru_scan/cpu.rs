//! The recurrence: sequences in parallel, time in order, channels in vector lanes.

use rayon::prelude::*;

use super::{
    Saved,
    coefficients::{Coefficients, Sums},
};
use crate::{Result, Segments, simd::vectorised};

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
pub(super) fn scan_back(c: &Coefficients, segments: &Segments, saved: &Saved, g: [&mut [f32]; 2]) -> Result<Sums> {
    let groups = groups(segments);
    let [v_re, v_im, h_re, h_im] = [saved.v_re.f32()?, saved.v_im.f32()?, saved.h_re.f32()?, saved.h_im.f32()?];
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
        let state = gamma.len();
        let (lambda_re, lambda_im) = (&lambda_re[..state], &lambda_im[..state]);
        let (sum_re, sum_im) = (&mut sums.lambda_re[..state], &mut sums.lambda_im[..state]);
        let sum_gamma = &mut sums.gamma[..state];
        let mut carry_re = vec![0.0f32; state];
        let mut carry_im = vec![0.0f32; state];
        let mut end = lengths.iter().sum::<usize>();
        for &len in lengths.iter().rev() {
            carry_re.fill(0.0);
            carry_im.fill(0.0);
            for t in (0..len).rev() {
                end -= 1;
                let at = end * state;
                let (v_re, v_im) = (&v[0][at..][..state], &v[1][at..][..state]);
                let (now_re, now_im) = (&mut g_re[at..][..state], &mut g_im[at..][..state]);
                let (carry_re, carry_im) = (&mut carry_re[..state], &mut carry_im[..state]);
                for s in 0..state {
                    let re = now_re[s] + carry_re[s];
                    let im = now_im[s] + carry_im[s];
                    (now_re[s], now_im[s]) = (re, im);
                    sum_gamma[s] += v_re[s].mul_add(re, v_im[s] * im);
                    // What goes on to the state before: conj(λ) g.
                    carry_re[s] = lambda_re[s].mul_add(re, lambda_im[s] * im);
                    carry_im[s] = lambda_re[s].mul_add(im, -(lambda_im[s] * re));
                }
                if t > 0 {
                    let before = at - state;
                    let (h_re, h_im) = (&h[0][before..][..state], &h[1][before..][..state]);
                    for s in 0..state {
                        let (re, im) = (now_re[s], now_im[s]);
                        sum_re[s] += re.mul_add(h_re[s], im * h_im[s]);
                        sum_im[s] += im.mul_add(h_re[s], -(re * h_im[s]));
                    }
                }
                for s in 0..state {
                    now_re[s] *= gamma[s];
                    now_im[s] *= gamma[s];
                }
            }
        }
    }
}
