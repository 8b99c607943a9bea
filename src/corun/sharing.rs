//! Sharing modes of the host: which cores and which niceness the main and the side get.

use crate::machine::threads;
use crate::ops::host::HostConfig;
use crate::{Error, Result};

/// Sharing mode of the host: which cores and which niceness the main's and the side's threads get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// Both use all cores; the system decides.
    Free,
    /// The main has the first half of the cores (rounded up), the side the rest, alone and together.
    Split,
    /// Both use all cores; the side's threads yield at niceness 19.
    Nice,
}

impl Sharing {
    /// All three modes, in the order in which cases are listed.
    pub const ALL: [Sharing; 3] = [Sharing::Free, Sharing::Split, Sharing::Nice];

    /// The mode as it stands in case names and records: `free`, `split` or `nice`.
    pub const fn name(self) -> &'static str {
        match self {
            Sharing::Free => "free",
            Sharing::Split => "split",
            Sharing::Nice => "nice",
        }
    }

    /// Thread settings of the main and of the side, on at most `cores` of the cores this process may use; an error
    /// where a single core would have to be split.
    pub fn configs(self, cores: usize) -> Result<(HostConfig, HostConfig)> {
        let mut allowed = threads::available_cores();
        allowed.truncate(cores.max(1));
        self.configs_on(&allowed)
    }

    fn configs_on(self, cores: &[usize]) -> Result<(HostConfig, HostConfig)> {
        let everywhere = HostConfig { threads: cores.len(), cores: None, nice: None };
        match self {
            Sharing::Free => Ok((everywhere.clone(), everywhere)),
            Sharing::Nice => Ok((everywhere.clone(), HostConfig { nice: Some(19), ..everywhere })),
            Sharing::Split if cores.len() < 2 => Err(Error::machine(
                "one core cannot be split between two programs",
                "run it where the process may use two cores or more",
            )),
            Sharing::Split => {
                let (main, side) = cores.split_at(cores.len().div_ceil(2));
                Ok((HostConfig::on_cores(main), HostConfig::on_cores(side)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_shares_no_core_and_leaves_none_out() {
        for cores in [vec![0, 1], vec![3, 5, 9], vec![0, 1, 2, 3, 4, 5, 6, 7]] {
            let (main, side) = Sharing::Split.configs_on(&cores).unwrap();
            let both = [main.cores.unwrap(), side.cores.unwrap()].concat();
            assert_eq!(both, cores);
            assert!(main.threads >= side.threads && side.threads > 0);
        }
        assert!(Sharing::Split.configs_on(&[0]).unwrap_err().to_string().contains("two cores"));
    }

    #[test]
    fn only_the_side_is_nice() {
        let (main, side) = Sharing::Nice.configs_on(&[0, 1]).unwrap();
        assert_eq!((main.nice, side.nice, main.threads, side.threads), (None, Some(19), 2, 2));
        let (main, side) = Sharing::Free.configs_on(&[4]).unwrap();
        assert_eq!((main.threads, &main), (1, &side));
    }
}
