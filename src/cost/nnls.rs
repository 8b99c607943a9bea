//! Non-negative least squares: min ‖A·c − b‖² with every c ≥ 0.
//!
//! A cost is never negative, and neither is what one more byte or floating-point operation adds to it; without the
//! constraint a fit of few noisy cases trades a negative launch time for a too slow memory. The active-set method of
//! Lawson & Hanson (*Solving Least Squares Problems*, 1974, chapter 23) on the normal equations of scaled columns: the
//! problems here have at most a few dozen unknowns.

/// Below this, relative to the largest possible value 1 of a scaled gradient, a column has nothing left to explain.
const TOLERANCE: f64 = 1e-12;
/// Keeps the factorisation of (nearly) dependent columns defined; columns are scaled to length 1.
const RIDGE: f64 = 1e-11;

/// The non-negative c with the smallest ‖A·c − b‖²: `rows` holds A row by row, `target` holds b. Rows or columns of
/// zeros are allowed; the result is finite and ≥ 0.
pub fn solve(rows: &[Vec<f64>], target: &[f64]) -> Vec<f64> {
    let columns = rows.first().map_or(0, Vec::len);
    let scale: Vec<f64> = (0..columns)
        .map(|j| rows.iter().map(|r| r[j] * r[j]).sum::<f64>().sqrt())
        .map(|length| if length.is_finite() { length } else { 0.0 })
        .collect();
    let problem = Normal::new(rows, target, &scale);
    let scaled = problem.active_set();
    scaled.iter().zip(&scale).map(|(c, s)| if *s > 0.0 { c / s } else { 0.0 }).collect()
}

/// AᵀA and Aᵀb of the scaled columns; b is scaled to length 1 too.
struct Normal {
    gram: Vec<Vec<f64>>,
    moment: Vec<f64>,
    target_length: f64,
}

impl Normal {
    fn new(rows: &[Vec<f64>], target: &[f64], scale: &[f64]) -> Self {
        let target_length = target.iter().map(|b| b * b).sum::<f64>().sqrt();
        let divide = |value: f64, by: f64| if by > 0.0 { value / by } else { 0.0 };
        let sum = |f: &dyn Fn(usize) -> f64| (0..rows.len()).map(f).sum::<f64>();
        let gram = (0..scale.len())
            .map(|i| {
                (0..scale.len())
                    .map(|j| divide(sum(&|r| rows[r][i] * rows[r][j]), scale[i] * scale[j]))
                    .collect::<Vec<_>>()
            })
            .collect();
        let moment =
            (0..scale.len()).map(|j| divide(sum(&|r| rows[r][j] * target[r]), scale[j] * target_length)).collect();
        Normal { gram, moment, target_length }
    }

    fn active_set(&self) -> Vec<f64> {
        let n = self.moment.len();
        let mut x = vec![0.0; n];
        let mut passive = vec![false; n];
        // Lawson & Hanson's outer loop ends after finitely many rounds; the bound is against rounding going in circles.
        for _ in 0..10 * n.max(1) {
            let gradient: Vec<f64> =
                (0..n).map(|i| self.moment[i] - self.gram[i].iter().zip(&x).map(|(g, v)| g * v).sum::<f64>()).collect();
            let best = (0..n).filter(|&i| !passive[i]).max_by(|&a, &b| gradient[a].total_cmp(&gradient[b]));
            match best {
                Some(i) if gradient[i] > TOLERANCE => passive[i] = true,
                _ => break,
            }
            self.descend(&mut x, &mut passive);
        }
        x.iter().map(|v| v * self.target_length).collect()
    }

    /// Moves to the least-squares point of the passive columns, dropping those that would turn negative on the way.
    fn descend(&self, x: &mut [f64], passive: &mut [bool]) {
        loop {
            let chosen: Vec<usize> = (0..x.len()).filter(|&i| passive[i]).collect();
            let goal = self.least_squares(&chosen);
            let step = chosen
                .iter()
                .zip(&goal)
                .filter(|&(_, &z)| z <= 0.0)
                .map(|(&i, &z)| if x[i] > z { x[i] / (x[i] - z) } else { 0.0 })
                .fold(f64::INFINITY, f64::min);
            if step.is_infinite() {
                chosen.iter().zip(&goal).for_each(|(&i, &z)| x[i] = z);
                return;
            }
            for (&i, &z) in chosen.iter().zip(&goal) {
                x[i] += step * (z - x[i]);
                if z <= 0.0 && x[i] <= TOLERANCE {
                    x[i] = 0.0;
                    passive[i] = false;
                }
            }
            if !passive.iter().any(|&p| p) {
                return;
            }
        }
    }

    /// Cholesky on the chosen columns.
    fn least_squares(&self, chosen: &[usize]) -> Vec<f64> {
        let n = chosen.len();
        let mut l = vec![vec![0.0; n]; n];
        for i in 0..n {
            for j in 0..=i {
                let dot: f64 = (0..j).map(|k| l[i][k] * l[j][k]).sum();
                let ridge = if i == j { RIDGE } else { 0.0 };
                let value = self.gram[chosen[i]][chosen[j]] + ridge - dot;
                l[i][j] = if i == j { value.max(RIDGE).sqrt() } else { value / l[j][j] };
            }
        }
        let mut z: Vec<f64> = chosen.iter().map(|&i| self.moment[i]).collect();
        for i in 0..n {
            let dot: f64 = (0..i).map(|k| l[i][k] * z[k]).sum();
            z[i] = (z[i] - dot) / l[i][i];
        }
        for i in (0..n).rev() {
            let dot: f64 = (i + 1..n).map(|k| l[k][i] * z[k]).sum();
            z[i] = (z[i] - dot) / l[i][i];
        }
        z
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    fn product(rows: &[Vec<f64>], c: &[f64]) -> Vec<f64> {
        rows.iter().map(|r| r.iter().zip(c).map(|(a, b)| a * b).sum()).collect()
    }

    #[test]
    fn known_answers() {
        // Lines through points: y = 1 + 2x.
        let line: Vec<Vec<f64>> = (0..4).map(|x| vec![1.0, f64::from(x)]).collect();
        let c = solve(&line, &[1.0, 3.0, 5.0, 7.0]);
        assert!((c[0] - 1.0).abs() < 1e-9 && (c[1] - 2.0).abs() < 1e-9, "{c:?}");
        // y = −1 + 2x without the constraint; with it the line goes through 0: slope Σxy/Σx² = (1·1+2·3+3·5)/14.
        let c = solve(&line, &[-1.0, 1.0, 3.0, 5.0]);
        assert!(c[0] == 0.0 && (c[1] - 22.0 / 14.0).abs() < 1e-9, "{c:?}");
        // A falling line: the best non-negative answer is the mean.
        let c = solve(&line, &[7.0, 5.0, 3.0, 1.0]);
        assert!((c[0] - 4.0).abs() < 1e-9 && c[1] == 0.0, "{c:?}");
        assert_eq!(solve(&line, &[-1.0, -1.0, -1.0, -1.0]), vec![0.0, 0.0]);
        assert_eq!(solve(&[], &[]), Vec::<f64>::new());
    }

    #[test]
    fn random_truths_are_recovered_whatever_the_units() {
        let mut random = SplitMix(3);
        for _ in 0..200 {
            let columns = 1 + random.below(5);
            let truth: Vec<f64> =
                (0..columns).map(|_| if random.below(3) == 0 { 0.0 } else { random.unit() + 0.1 }).collect();
            let unit: Vec<f64> = (0..columns).map(|_| 10f64.powi(random.below(13) as i32 - 6)).collect();
            let rows: Vec<Vec<f64>> =
                (0..3 * columns + 2).map(|_| unit.iter().map(|u| u * (random.unit() + 0.01)).collect()).collect();
            let scaled: Vec<f64> = truth.iter().zip(&unit).map(|(t, u)| t / u).collect();
            let found = solve(&rows, &product(&rows, &scaled));
            for j in 0..columns {
                assert!((found[j] * unit[j] - truth[j]).abs() < 1e-5, "{found:?} is not {scaled:?}");
            }
        }
    }

    /// The Karush–Kuhn–Tucker conditions are what makes an answer *the* answer: gradient 0 where c > 0, ≤ 0 where c = 0.
    #[test]
    fn the_answer_is_optimal() {
        let mut random = SplitMix(5);
        for _ in 0..200 {
            let columns = 1 + random.below(6);
            let rows: Vec<Vec<f64>> =
                (0..8).map(|_| (0..columns).map(|_| random.symmetric()).collect::<Vec<_>>()).collect();
            let target: Vec<f64> = (0..8).map(|_| random.symmetric()).collect();
            let c = solve(&rows, &target);
            let fitted = product(&rows, &c);
            for j in 0..columns {
                let gradient: f64 = (0..8).map(|r| rows[r][j] * (target[r] - fitted[r])).sum();
                assert!(c[j] >= 0.0 && gradient < 1e-6, "column {j}: {gradient}");
                assert!(c[j] < 1e-9 || gradient.abs() < 1e-6, "column {j}: {gradient} at {}", c[j]);
            }
        }
    }

    #[test]
    fn dependent_and_empty_columns_do_no_harm() {
        let rows: Vec<Vec<f64>> = (1..6).map(|x| vec![f64::from(x), 2.0 * f64::from(x), 0.0]).collect();
        let target: Vec<f64> = (1..6).map(|x| 4.0 * f64::from(x)).collect();
        let c = solve(&rows, &target);
        assert!((c[0] + 2.0 * c[1] - 4.0).abs() < 1e-6 && c[2] == 0.0, "{c:?}");
    }
}
