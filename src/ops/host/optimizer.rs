//! Parameter updates: AdamW and SGD with momentum. Both stream parameters, gradients and state once.

use super::simd::vectorized;
use super::team::Team;
use crate::ops::{AdamW, Sgd};
use rayon::prelude::*;

/// m = β₁m + (1 − β₁)g; v = β₂v + (1 − β₂)g²; p −= lr·(m̂/(√v̂ + ε) + decay·p), m̂ and v̂ corrected for their start at
/// zero (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2, with the schedule multiplier in lr).
pub fn adamw(team: Team, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], config: AdamW) {
    let correction = |beta: f64| 1.0 / (1.0 - beta.powf(f64::from(config.step)));
    let (beta1, beta2) = (config.beta1 as f32, config.beta2 as f32);
    let (new1, new2) = ((1.0 - config.beta1) as f32, (1.0 - config.beta2) as f32);
    let (correct1, correct2) = (correction(config.beta1) as f32, correction(config.beta2) as f32);
    let (rate, epsilon) = (config.learning_rate as f32, config.epsilon as f32);
    let keep = (1.0 - config.learning_rate * config.weight_decay) as f32;
    let piece = team.elements_per_piece(param.len(), 7);
    let pieces =
        (param.par_chunks_mut(piece), grad.par_chunks(piece), m.par_chunks_mut(piece), v.par_chunks_mut(piece));
    pieces.into_par_iter().for_each(|(param, grad, m, v)| {
        vectorized!(|| {
            for (((p, &g), m), v) in param.iter_mut().zip(grad).zip(m).zip(v) {
                *m = beta1.mul_add(*m, new1 * g);
                *v = beta2.mul_add(*v, new2 * g * g);
                let step = *m * correct1 / ((*v * correct2).sqrt() + epsilon);
                *p = keep.mul_add(*p, -rate * step);
            }
        });
    });
}

/// v = momentum·v + g; p −= lr·v
pub fn sgd(team: Team, param: &mut [f32], grad: &[f32], velocity: &mut [f32], config: Sgd) {
    let (rate, momentum) = (config.learning_rate as f32, config.momentum as f32);
    let piece = team.elements_per_piece(param.len(), 5);
    let pieces = (param.par_chunks_mut(piece), grad.par_chunks(piece), velocity.par_chunks_mut(piece));
    pieces.into_par_iter().for_each(|(param, grad, velocity)| {
        vectorized!(|| {
            for ((p, &g), v) in param.iter_mut().zip(grad).zip(velocity) {
                *v = momentum.mul_add(*v, g);
                *p = (-rate).mul_add(*v, *p);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::testing::{TEAM, close, random, shapes, wide};

    #[test]
    fn updates_agree_with_plain_loops_over_several_steps() {
        for mut r in shapes(50) {
            let most = if r.below(10) == 0 { 100_000 } else { 2000 };
            let len = 1 + r.below(most);
            let (mut p, mut m, mut v) = (random(&mut r, len), vec![0.0; len], vec![0.0; len]);
            let (mut q, mut momentum) = (p.clone(), vec![0.0; len]);
            let (mut pe, mut me, mut ve) = (wide(&p), vec![0.0; len], vec![0.0; len]);
            let (mut qe, mut se) = (wide(&p), vec![0.0; len]);
            for step in 1..=3 {
                let c = AdamW { step, learning_rate: 0.01, ..AdamW::default() };
                let sc = Sgd { learning_rate: 0.05, momentum: 0.9 };
                let grad = random(&mut r, len);
                adamw(TEAM, &mut p, &grad, &mut m, &mut v, c);
                sgd(TEAM, &mut q, &grad, &mut momentum, sc);
                for (i, g) in wide(&grad).into_iter().enumerate() {
                    me[i] = c.beta1 * me[i] + (1.0 - c.beta1) * g;
                    ve[i] = c.beta2 * ve[i] + (1.0 - c.beta2) * g * g;
                    let (mh, vh) =
                        (me[i] / (1.0 - c.beta1.powi(step as i32)), ve[i] / (1.0 - c.beta2.powi(step as i32)));
                    pe[i] -= c.learning_rate * (mh / (vh.sqrt() + c.epsilon) + c.weight_decay * pe[i]);
                    se[i] = sc.momentum * se[i] + g;
                    qe[i] -= sc.learning_rate * se[i];
                }
            }
            for (what, values, exact) in
                [("p", &p, &pe), ("m", &m, &me), ("v", &v, &ve), ("sgd", &q, &qe), ("s", &momentum, &se)]
            {
                close(what, values, exact, 1e-5);
            }
        }
    }
}
