//! Which of the libraries a CUDA run loads are here, and their versions: what `doctor` lists and `machine.json` records.

use super::libraries::{CUBLASLT, DCGM, NCCL, NVML, open};
use super::{built, gpus, nvml, system};
use serde::Serialize;
use std::collections::BTreeMap;

/// A library that was found and answers.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Library {
    /// The library's short name: `driver`, `nvml`, `cublaslt`, `nccl` or `dcgm`.
    pub name: &'static str,
    /// The version that the library tells, such as `2.30.7`; null where it tells none.
    pub version: Option<String>,
    /// The path it was loaded from; the bare file name where the loader found it.
    pub path: String,
}

/// Every library found, the driver first.
pub fn found() -> Vec<Library> {
    let driver = gpus::driver_present().then(|| Library {
        name: "driver",
        version: gpus::driver_cuda_version().map(|cuda| match driver_release() {
            Some(release) => format!("{release} (CUDA {cuda})"),
            None => format!("CUDA {cuda}"),
        }),
        path: "libcuda.so.1".to_string(),
    });
    let others = [&CUBLASLT, &NCCL, &DCGM].into_iter().filter_map(|wanted| {
        let (library, path) = open(wanted)?;
        Some(Library { name: wanted.name, version: (wanted.version)(&library), path: path.display().to_string() })
    });
    let nvml = nvml::version().ok().map(|(path, version)| Library {
        name: NVML.name,
        version,
        path: path.display().to_string(),
    });
    driver.into_iter().chain(nvml).chain(others).collect()
}

/// The versions that `machine.json` records of driver, CUDA, cuBLASLt, NCCL and nvcc, by name; `None` where one is
/// absent.
pub fn versions() -> BTreeMap<String, Option<String>> {
    let found = found();
    let of = |name: &str| found.iter().find(|library| library.name == name).and_then(|library| library.version.clone());
    let nvcc = built::TOOLKIT.map(|(version, _)| version.to_string());
    let all = [
        ("driver", driver_release().or_else(|| of("nvml"))),
        ("cuda", gpus::driver_cuda_version()),
        ("cublaslt", of("cublaslt")),
        ("nccl", of("nccl")),
        ("nvcc", nvcc),
    ];
    all.into_iter().map(|(name, version)| (name.to_string(), version)).collect()
}

/// The kernel module's release, such as `580.65.06`.
fn driver_release() -> Option<String> {
    let text = system::read_trimmed("/proc/driver/nvidia/version")?;
    let line = text.lines().next()?;
    let release = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(release).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_its_name_even_where_absent() {
        let names: Vec<String> = versions().into_keys().collect();
        assert_eq!(names, ["cublaslt", "cuda", "driver", "nccl", "nvcc"]);
    }
}
