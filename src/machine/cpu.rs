//! The processor: model, cores, caches, the instruction sets that matter to products. Linux from /proc and /sys, macOS
//! from sysctl; what neither tells is left out.

use super::system::{read_trimmed, sysctl};
use crate::records::machine::Cpu;
use std::collections::BTreeSet;
use std::fs;

const CPU: &str = "/sys/devices/system/cpu/cpu0";

pub fn probe() -> Cpu {
    Cpu {
        model: model().unwrap_or_else(|| format!("unknown {}", std::env::consts::ARCH)),
        cores: super::cores() as u64,
        last_level_cache_bytes: last_level_cache_bytes(),
        features: features(),
        governor: read_trimmed(format!("{CPU}/cpufreq/scaling_governor")),
    }
}

fn model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpuinfo_field(&info, "model name")
        .or_else(|| sysctl("machdep.cpu.brand_string"))
        .or_else(|| read_trimmed("/sys/firmware/devicetree/base/model"))
}

fn cpuinfo_field(info: &str, name: &str) -> Option<String> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_string())
        .filter(|value| !value.is_empty())
}

/// Without trademarks, clock and core counts: what is left names the processor on any machine it is in.
pub fn plain_model(model: &str) -> String {
    let model = model.split('@').next().unwrap_or(model).replace("(R)", " ").replace("(TM)", " ").replace("(tm)", " ");
    let noise = |word: &&str| !["CPU", "Processor"].contains(word) && !word.ends_with("-Core");
    model.split_whitespace().filter(noise).collect::<Vec<_>>().join(" ")
}

/// A core's deepest data cache: its level, its bytes, and the cores that share it as Linux lists them.
fn deepest_cache(core: usize) -> Option<(u64, u64, String)> {
    let cache = |index: usize| -> Option<(u64, u64, String)> {
        let folder = format!("/sys/devices/system/cpu/cpu{core}/cache/index{index}");
        if read_trimmed(format!("{folder}/type"))? == "Instruction" {
            return None;
        }
        let level = read_trimmed(format!("{folder}/level"))?.parse().ok()?;
        let bytes = cache_size(&read_trimmed(format!("{folder}/size"))?)?;
        Some((level, bytes, read_trimmed(format!("{folder}/shared_cpu_list")).unwrap_or_default()))
    };
    (0..8).filter_map(cache).max()
}

/// One instance of the highest level that the first core uses.
pub fn last_level_cache_bytes() -> Option<u64> {
    deepest_cache(0).map(|(_, bytes, _)| bytes).or_else(|| {
        ["hw.l3cachesize", "hw.l2cachesize"]
            .iter()
            .find_map(|name| sysctl(name)?.parse().ok().filter(|&bytes| bytes > 0))
    })
}

/// All instances together that the given cores use: what data spread over all cores can stay in.
pub fn last_level_caches_bytes(cores: &[usize]) -> Option<u64> {
    let instances: BTreeSet<(String, u64)> =
        cores.iter().filter_map(|&core| deepest_cache(core)).map(|(_, bytes, shared)| (shared, bytes)).collect();
    let together = instances.iter().map(|(_, bytes)| bytes).sum();
    if together > 0 { Some(together) } else { last_level_cache_bytes() }
}

/// `32768K`, `16M`, or bytes.
fn cache_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn features() -> Vec<String> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512bf16", std::is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(target_arch = "aarch64")]
    let known = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
        ("sve", std::arch::is_aarch64_feature_detected!("sve")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let known: [(&str, bool); 0] = [];
    known.iter().filter(|(_, there)| *there).map(|(name, _)| name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_read_in_the_kernels_units() {
        assert_eq!(cache_size("32768K"), Some(32 << 20));
        assert_eq!(cache_size("16M"), Some(16 << 20));
        assert_eq!(cache_size("512"), Some(512));
        assert_eq!(cache_size("x"), None);
        assert_eq!(cache_size("1Q"), None);
    }

    #[test]
    fn the_model_is_found_among_other_fields() {
        let info = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n";
        assert_eq!(cpuinfo_field(info, "model name").as_deref(), Some("AMD EPYC"));
        assert_eq!(cpuinfo_field(info, "flags"), None);
        assert_eq!(plain_model("Intel(R) Core(TM) i7-1185G7 @ 3.00GHz"), "Intel Core i7-1185G7");
    }
}
