//! `--device auto|host|cuda[:N]`: as typed, and as meant.

use super::gpus;
use crate::records::measurement::Backend;
use crate::{Error, Result, nearest};
use std::fmt;
use std::str::FromStr;

/// A device as it is typed after `--device`: `auto`, `host`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// `auto`: a GPU where there is one, else the host.
    #[default]
    Auto,
    /// `host`: this machine's CPU.
    Host,
    /// `cuda:N`: the GPU with that CUDA ordinal. `cuda` alone (`None`) is the process's own GPU: the first, or that of
    /// LOCAL_RANK under a launcher.
    Cuda(Option<u32>),
}

/// A device that is there: what a [`DeviceChoice`] resolves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Device {
    /// This machine's CPU.
    Host,
    /// The GPU with this CUDA ordinal, which counts what CUDA_VISIBLE_DEVICES leaves visible.
    Cuda(u32),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "auto" => Ok(DeviceChoice::Auto),
            None if text == "host" => Ok(DeviceChoice::Host),
            None if text == "cuda" => Ok(DeviceChoice::Cuda(None)),
            Some(("cuda", index)) => {
                index.parse().map(|index| DeviceChoice::Cuda(Some(index))).map_err(|_| unknown(text))
            }
            _ => Err(unknown(text)),
        }
    }
}

fn unknown(text: &str) -> Error {
    Error::input(format!("`{text}` is no device"), nearest::cure(text, DeviceChoice::FORMS))
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Host => f.write_str("host"),
            DeviceChoice::Cuda(None) => f.write_str("cuda"),
            DeviceChoice::Cuda(Some(index)) => write!(f, "cuda:{index}"),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Host => f.write_str("host"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl Device {
    /// The backend that records of a measurement on this device name: the host's or CUDA's.
    pub const fn backend(self) -> Backend {
        match self {
            Device::Host => Backend::Host,
            Device::Cuda(_) => Backend::Cuda,
        }
    }
}

impl DeviceChoice {
    /// How a device is asked for; N is a GPU's number.
    pub const FORMS: [&str; 4] = ["auto", "host", "cuda", "cuda:N"];

    /// Reads a device as it is typed; an error names the four ways to write one.
    pub fn parse(text: &str) -> Result<Self> {
        text.parse()
    }

    /// The device that is meant, with LOCAL_RANK read from the environment; an error where a GPU was asked for that is
    /// not there.
    pub fn resolve(self) -> Result<Device> {
        let local_rank = std::env::var("LOCAL_RANK").ok().and_then(|rank| rank.parse().ok());
        self.of_rank(local_rank)
    }

    /// The device that is meant by its host's `local_rank`-th process (`None`: the only one); an error where a GPU was
    /// asked for that is not there.
    pub fn of_rank(self, local_rank: Option<u32>) -> Result<Device> {
        self.among(local_rank, || gpus::list().map(|gpus| gpus.into_iter().map(|gpu| gpu.name).collect()))
    }

    fn among(self, local_rank: Option<u32>, names: impl FnOnce() -> Result<Vec<String>>) -> Result<Device> {
        let own = local_rank.unwrap_or(0);
        match self {
            DeviceChoice::Host => Ok(Device::Host),
            // Nothing was asked for: no driver or no GPU is no error.
            DeviceChoice::Auto => match names() {
                Ok(names) if !names.is_empty() => Ok(Device::Cuda(own % names.len() as u32)),
                _ => Ok(Device::Host),
            },
            DeviceChoice::Cuda(None) => {
                let names = existing(names, "cuda")?;
                Ok(Device::Cuda(own % names.len() as u32))
            }
            DeviceChoice::Cuda(Some(index)) => {
                let names = existing(names, &self.to_string())?;
                if (index as usize) < names.len() {
                    return Ok(Device::Cuda(index));
                }
                let list: Vec<String> =
                    names.iter().enumerate().map(|(i, name)| format!("cuda:{i} ({name})")).collect();
                Err(Error::input(
                    format!("no GPU {index}: there is {}", list.join(", ")),
                    "choose one of these, or host",
                ))
            }
        }
    }
}

/// The GPUs' names; without any, the error names the device that was asked for.
fn existing(names: impl FnOnce() -> Result<Vec<String>>, asked: &str) -> Result<Vec<String>> {
    let wrong = |what: &str, cure: &str| Error::machine(format!("no device {asked}: {what}"), cure);
    match names() {
        Ok(names) if names.is_empty() => Err(wrong("there is only the host", "use --device host")),
        Err(Error::Machine { what, cure }) => Err(wrong(&format!("there is only the host ({what})"), &cure)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(text: &str) -> DeviceChoice {
        text.parse().unwrap()
    }

    fn two() -> Result<Vec<String>> {
        Ok(vec!["NVIDIA H200".to_string(), "NVIDIA A100".to_string()])
    }

    fn none() -> Result<Vec<String>> {
        Err(Error::machine("no CUDA driver", "install it"))
    }

    #[test]
    fn choices_are_written_as_they_are_read() {
        for text in ["auto", "host", "cuda", "cuda:0", "cuda:17"] {
            assert_eq!(choice(text).to_string(), text);
        }
        for bad in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:1:2", "CUDA", "host:1", "cuda:99999999999"] {
            let error = bad.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains("known are auto, host, cuda, cuda:N"), "{error}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_named_with_those_that_are() {
        let error = choice("cuda:99").among(None, two).unwrap_err().to_string();
        assert!(error.contains("99") && error.contains("cuda:1 (NVIDIA A100)"), "{error}");
        let error = choice("cuda:99").among(None, none).unwrap_err().to_string();
        assert!(
            error.contains("cuda:99") && error.contains("only the host") && error.contains("install it"),
            "{error}"
        );
    }

    #[test]
    fn auto_takes_a_gpu_where_there_is_one() {
        assert_eq!(choice("auto").among(None, two).unwrap(), Device::Cuda(0));
        assert_eq!(choice("auto").among(None, none).unwrap(), Device::Host);
        assert_eq!(choice("host").among(Some(1), two).unwrap(), Device::Host);
        assert_eq!(choice("cuda").among(Some(3), two).unwrap(), Device::Cuda(1));
        assert_eq!(choice("cuda:0").among(Some(1), two).unwrap(), Device::Cuda(0));
    }
}
