//! From the stored logarithms to the numbers of the recurrence, and back for gradients.

/// Coefficients of every channel of the state.
pub(super) struct Coefficients {
    nu: Vec<f32>,
    theta: Vec<f32>,
    /// Real part of λ.
    pub(super) lambda_re: Vec<f32>,
    /// Imaginary part of λ.
    pub(super) lambda_im: Vec<f32>,
    /// The normalisation of the input.
    pub(super) gamma: Vec<f32>,
}

/// Sums over all positions, per channel.
#[derive(Clone)]
pub(super) struct Sums {
    /// `Re Σ g_t conj(h_{t-1})`.
    pub(super) lambda_re: Vec<f32>,
    /// `Im Σ g_t conj(h_{t-1})`.
    pub(super) lambda_im: Vec<f32>,
    /// `Σ Re(conj(v_t) g_t)`.
    pub(super) gamma: Vec<f32>,
}

impl Sums {
    pub(super) fn zeros(state: usize) -> Self {
        let zeros = vec![0.0; state];
        Self { lambda_re: zeros.clone(), lambda_im: zeros.clone(), gamma: zeros }
    }

    pub(super) fn add(&mut self, other: &Self) {
        crate::simd::add(&mut self.lambda_re, &other.lambda_re);
        crate::simd::add(&mut self.lambda_im, &other.lambda_im);
        crate::simd::add(&mut self.gamma, &other.gamma);
    }
}

impl Coefficients {
    /// `params_log` holds log ν, log θ and log γ, one row each.
    pub(super) fn new(params_log: &[f32]) -> Self {
        let state = params_log.len() / 3;
        let exp = |row: usize| params_log[row * state..][..state].iter().map(|&v| f64::from(v).exp());
        let lambda =
            |part: fn(f64) -> f64| exp(0).zip(exp(1)).map(move |(nu, theta)| ((-nu).exp() * part(theta)) as f32);
        Self {
            nu: exp(0).map(|v| v as f32).collect(),
            theta: exp(1).map(|v| v as f32).collect(),
            lambda_re: lambda(f64::cos).collect(),
            lambda_im: lambda(f64::sin).collect(),
            gamma: exp(2).map(|v| v as f32).collect(),
        }
    }

    /// The size of the state.
    pub(super) fn state(&self) -> usize {
        self.gamma.len()
    }

    /// Adds the gradient of the stored logarithms: with `z = conj(Σ g h̄) · λ`, `dν = -Re z` and `dθ = -Im z`, each times
    /// the number whose logarithm is stored.
    pub(super) fn add_gradient(&self, sums: &Sums, d_params_log: &mut [f32]) {
        let state = self.state();
        let (d_nu, rest) = d_params_log.split_at_mut(state);
        let (d_theta, d_gamma) = rest.split_at_mut(state);
        for s in 0..state {
            let (re, im) = (sums.lambda_re[s], sums.lambda_im[s]);
            d_nu[s] -= self.nu[s] * (re * self.lambda_re[s] + im * self.lambda_im[s]);
            d_theta[s] -= self.theta[s] * (re * self.lambda_im[s] - im * self.lambda_re[s]);
            d_gamma[s] += self.gamma[s] * sums.gamma[s];
        }
    }
}
