//! The linear recurrence alone, without the projections around it.

use anyhow::Result;
use kernels::lru_scan;
use kernels::{Device, Segments, Tensor};

use super::super::noise;
use super::reference::{Host, relative, sample};
use super::{Ready, on_device};

/// Channels that are compared.
const COMPARED: usize = 16;

/// What goes into the recurrence.
pub(super) struct Scan {
    v: [Tensor; 2],     // real and imaginary part, [rows, state]
    params_log: Tensor, // log ν, log θ, log γ: [3, state]
    segments: Segments,
}

impl Scan {
    /// Coefficients as a fresh model has them: |λ| from 0.8 to 0.99, any angle.
    pub(super) fn new(sequences: usize, length: usize, state: usize, device: &Device) -> Result<Self> {
        let share = |channel: usize| (channel as f32 + 0.5) / state as f32;
        let radius = |channel| 0.8 + 0.19 * share(channel);
        let nu = (0..state).map(|channel| (-radius(channel).ln()).ln());
        let theta = (0..state).map(|channel| (std::f32::consts::TAU * share(channel * 37 % state)).ln());
        let gamma = (0..state).map(|channel| (1.0 - radius(channel).powi(2)).sqrt().ln());
        let part =
            |seed| device.put(&noise::tensor(seed, &[sequences * length, state], 1.0)?).map_err(anyhow::Error::from);
        Ok(Self {
            v: [part(1)?, part(2)?],
            params_log: device.put(&Tensor::from_f32(&[3, state], nu.chain(theta).chain(gamma).collect())?)?,
            segments: Segments::from_lengths(vec![length; sequences]),
        })
    }

    fn scan(&self) -> Result<[Tensor; 2]> {
        let [re, im] = &self.v;
        Ok(lru_scan::scan([re, im], &self.params_log, &self.segments)?)
    }
}

impl Ready for Scan {
    fn run(&mut self, _turn: usize) -> Result<()> {
        self.scan().map(drop)
    }

    /// Of some channels of the first and the last sequence.
    fn error(&mut self) -> Result<Option<f64>> {
        let [h_re, h_im] = self.scan()?;
        on_device(&h_re)?;
        let [v_re, v_im, h_re, h_im, params] = [&self.v[0], &self.v[1], &h_re, &h_im, &self.params_log].map(Host::of);
        let mut pairs = Vec::new();
        for sequence in [0, self.segments.len() - 1] {
            for channel in sample(h_re.cols(), COMPARED) {
                let [nu, theta, gamma] = [0, 1, 2].map(|row| f64::from(params.at(row, channel)).exp());
                let ((sin, cos), decay) = (theta.sin_cos(), (-nu).exp());
                let (mut re, mut im) = (0.0, 0.0);
                for row in self.segments.range(sequence) {
                    let [a, b] = [&v_re, &v_im].map(|v| gamma * f64::from(v.at(row, channel)));
                    (re, im) = (decay * (cos * re - sin * im) + a, decay * (cos * im + sin * re) + b);
                    pairs.extend([(h_re.at(row, channel), re), (h_im.at(row, channel), im)]);
                }
            }
        }
        Ok(Some(relative(pairs)))
    }
}
