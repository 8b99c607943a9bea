//! Dropout's mask: which elements are dropped follows from a seed, an offset and the element's index, so that no device
//! stores it and every device drops the same ones.
//!
//! The generator is Philox4x32-10 (Salmon et al., SC 2011), one counter for each group of four elements; `cuda/philox.cuh` is
//! the same on the GPU.

use crate::{Error, Result};

/// Which elements are dropped (Srivastava et al., JMLR 15, 2014): with the same values the same ones, on every device and
/// for every type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Probability that an element is dropped, at least 0 and below 1.
    pub probability: f64,
    /// Key of the generator.
    pub seed: u64,
    /// Where in the seed's sequence the mask starts; [`Dropout::after`] is where the next may.
    pub offset: u64,
}

impl Dropout {
    /// The first offset that a mask of `len` elements leaves free: a counter serves four elements.
    pub const fn after(&self, len: usize) -> u64 {
        self.offset.wrapping_add(len.div_ceil(4) as u64)
    }

    /// The threshold below which a word of the generator drops its element, and what the elements that are kept are
    /// multiplied by: 1 ÷ (1 − probability). An error where the probability is not at least 0 and below 1.
    pub fn numbers(&self) -> Result<(u32, f32)> {
        if !(0.0..1.0).contains(&self.probability) {
            return Err(Error::input(
                format!("dropout: a probability of {}", self.probability),
                "choose at least 0 and less than 1",
            ));
        }
        // `as` saturates: a probability this close to 1 keeps one word in 2³².
        let threshold = (self.probability * 2f64.powi(32)).round() as u32;
        Ok((threshold, (1.0 / (1.0 - self.probability)) as f32))
    }

    /// The generator's words of `4·N` elements from `4·group` on: lane n of word w belongs to element `4·(group + n) + w`.
    #[inline(always)]
    pub fn words<const N: usize>(&self, group: u64) -> [[u32; N]; 4] {
        let first = self.offset.wrapping_add(group);
        philox(std::array::from_fn(|lane| first.wrapping_add(lane as u64)), self.seed)
    }
}

/// Ten rounds over `N` counters at once: in arrays, so that a compiler can keep them in vector registers.
#[inline(always)]
fn philox<const N: usize>(counters: [u64; N], key: u64) -> [[u32; N]; 4] {
    let (mut w0, mut w1) = (counters.map(|c| c as u32), counters.map(|c| (c >> 32) as u32));
    let (mut w2, mut w3) = ([0u32; N], [0u32; N]);
    let (mut key0, mut key1) = (key as u32, (key >> 32) as u32);
    for _ in 0..10 {
        for (((w0, w1), w2), w3) in w0.iter_mut().zip(&mut w1).zip(&mut w2).zip(&mut w3) {
            let first = 0xd251_1f53 * u64::from(*w0);
            let second = 0xcd9e_8d57 * u64::from(*w2);
            (*w0, *w1) = ((second >> 32) as u32 ^ *w1 ^ key0, second as u32);
            (*w2, *w3) = ((first >> 32) as u32 ^ *w3 ^ key1, first as u32);
        }
        key0 = key0.wrapping_add(0x9e37_79b9);
        key1 = key1.wrapping_add(0xbb67_ae85);
    }
    [w0, w1, w2, w3]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Dropout = Dropout { probability: 0.0, seed: 1, offset: 0 };

    /// The answer published with the generator (Random123), and two that an implementation of its own in another language
    /// gave, with the upper halves of counter and key at work.
    #[test]
    fn philox_gives_its_known_answers() {
        assert_eq!(philox([0], 0), [[0x6627_e8d5], [0xe169_c58d], [0xbc57_ac4c], [0x9b00_dbd8]]);
        let alone = |counter, key| philox([counter], key).map(|word| word[0]);
        let first = [0xe69c_9c31, 0xb5a3_d762, 0xe733_bfc1, 0x341a_787c];
        assert_eq!(alone(0x85a3_08d3_243f_6a88, 0x299f_31d0_a409_3822), first);
        let second = [0xb012_3968, 0x05bc_1849, 0xe67c_8042, 0x2341_a5f3];
        assert_eq!(alone(u64::MAX, 0xabcd_0123_4567_89ef), second);
        let of = |offset: u64, group| Dropout { offset, seed: 0xabcd_0123_4567_89ef, ..NONE }.words::<3>(group);
        let (all, alone) = (of(u64::MAX - 1, 1), of(0, 0));
        // Counters u64::MAX, 0, 1: the second is the first of a sequence that starts at 0.
        assert_eq!(all.map(|word| word[1]), alone.map(|word| word[0]));
        assert_eq!(all.map(|word| word[2]), alone.map(|word| word[1]));
        assert_ne!(all.map(|word| word[0]), alone.map(|word| word[2]));
    }

    #[test]
    fn numbers_of_usual_probabilities() {
        let of = |probability| Dropout { probability, ..NONE }.numbers().unwrap();
        assert_eq!(of(0.0), (0, 1.0));
        assert_eq!(of(0.5), (1 << 31, 2.0));
        assert_eq!(of(0.1).0, 429_496_730);
        for wrong in [-0.1, 1.0, f64::NAN] {
            assert!(Dropout { probability: wrong, ..NONE }.numbers().is_err());
        }
    }

    #[test]
    fn masks_in_a_row_do_not_overlap() {
        assert_eq!((NONE.after(0), NONE.after(1), NONE.after(4), NONE.after(5)), (0, 1, 1, 2));
    }
}
