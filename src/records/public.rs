//! A machine's record as it may be published: without the host's name, without what tells one card from another, and without
//! values of variables and options that may name hosts, addresses, people or paths. What is not known to be harmless is
//! withheld.

use super::MachineRecord;

/// What stands where a value was withheld.
pub const WITHHELD: &str = "withheld";

/// Variables whose values are words that NCCL, CUDA or this program define.
const HARMLESS_VARIABLES: [&str; 18] = [
    "NCCL_ALGO",
    "NCCL_PROTO",
    "NCCL_DEBUG",
    "NCCL_DEBUG_SUBSYS",
    "NCCL_P2P_LEVEL",
    "NCCL_NET_GDR_LEVEL",
    "NCCL_SHM_DISABLE",
    "NCCL_NET",
    "NCCL_IB_HCA",
    "NCCL_SOCKET_IFNAME",
    "NCCL_CROSS_NIC",
    "NCCL_COLLNET_ENABLE",
    "NCCL_NVLS_ENABLE",
    "NCCL_LAUNCH_MODE",
    "CUDA_DEVICE_ORDER",
    "CUDA_MODULE_LOADING",
    "CUDA_LAUNCH_BLOCKING",
    "BUBBLEBENCH_WGMMA",
];

/// Options of the command line whose values say what was measured, and nothing of where.
const HARMLESS_OPTIONS: [&str; 12] = [
    "--preset",
    "--device",
    "--machine",
    "--model",
    "--scale",
    "--sequence",
    "--format",
    "--deadline",
    "--case-deadline",
    "--ranks-per-process",
    "--ranks",
    "--max-bytes",
];

/// The record without secrets, and the names of what was withheld from it.
pub fn without_secrets(machine: &MachineRecord) -> (MachineRecord, Vec<String>) {
    let (mut open, mut withheld) = (machine.clone(), Vec::new());
    if open.hostname.take().is_some() {
        withheld.push("hostname".to_string());
    }
    if open.gpus.iter_mut().filter_map(|gpu| gpu.uuid.take()).count() > 0 {
        withheld.push("UUIDs of the GPUs".into());
    }
    for (name, value) in &mut open.environment {
        if !is_harmless(name, value) {
            *value = WITHHELD.into();
            withheld.push(name.clone());
        }
    }
    open.run.command = command(&machine.run.command, &mut withheld);
    (open, withheld)
}

/// The text with what may be a host's name, a path or an address in it withheld: why a case was skipped may name any of them.
pub fn reason_without_secrets(text: &str, hostname: Option<&str>) -> String {
    let trimmed =
        |word: &str| word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '/' && c != '~').to_string();
    let secret = |word: &str| {
        let path = (word.starts_with('/') || word.starts_with('~')) && word.matches('/').count() > 1;
        let numbers = word.split([':', '.']).filter(|part| part.parse::<u8>().is_ok()).count();
        path || numbers >= 4 || hostname.is_some_and(|host| word == host || word.split([':', '.']).next() == Some(host))
    };
    let word = |word: &str| {
        let inner = trimmed(word);
        if !inner.is_empty() && secret(&inner) { word.replace(&inner, WITHHELD) } else { word.to_string() }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Numbers, and words of variables that are known; an address is no number.
fn is_harmless(name: &str, value: &str) -> bool {
    let number = |c: char| c.is_ascii_digit() || ",^=+-".contains(c);
    let word = |c: char| c.is_ascii_alphanumeric() || ",^=+-_:;".contains(c);
    let known = HARMLESS_VARIABLES.contains(&name) && value.len() <= 60;
    value.chars().all(number) || (known && value.chars().all(word))
}

/// The program's own name, options, and the values of options that are known to be harmless.
fn command(words: &[String], withheld: &mut Vec<String>) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut option: Option<&str> = None;
    for (index, word) in words.iter().enumerate() {
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        let shown = match option.take() {
            _ if index == 0 => word.rsplit('/').next().unwrap_or(word).to_string(),
            _ if name.starts_with("--") => {
                let harmless = HARMLESS_OPTIONS.contains(&name);
                match value {
                    Some(value) if !(harmless && is_word(value)) => withhold(withheld, name, &format!("{name}=")),
                    Some(_) => word.clone(),
                    None => {
                        option = Some(name);
                        word.clone()
                    }
                }
            }
            Some(name) if !HARMLESS_OPTIONS.contains(&name) && !is_bare(word) => withhold(withheld, name, ""),
            _ if is_word(word) || is_filter(word) => word.clone(),
            _ => withhold(withheld, "an argument", ""),
        };
        open.push(shown);
    }
    open
}

fn withhold(withheld: &mut Vec<String>, name: &str, before: &str) -> String {
    withheld.push(name.into());
    format!("{before}{WITHHELD}")
}

/// A subcommand or a group behind an option that takes no value.
fn is_bare(word: &str) -> bool {
    ["measure", "bench", "all", "gpt-layer", "collectives", "corun", "fill"].contains(&word)
}

fn is_word(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || "_-:%".contains(c))
}

/// Part of a case's name: `/op/`, `all_reduce/r2`. A path of a home or a scratch folder is none.
fn is_filter(text: &str) -> bool {
    let inner = text.trim_matches('/');
    let parts = inner.split('/').count();
    inner.split('/').all(is_word) && (parts == 1 || !text.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Gpu, files};
    use std::path::Path;

    fn machine() -> MachineRecord {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/results/published/amd-epyc-2c/machine.json");
        files::read_json(Path::new(file), "machine").unwrap()
    }

    #[test]
    fn hosts_cards_paths_and_addresses_are_withheld() {
        let mut given = machine();
        given.hostname = Some("gpu-node-17.example.org".into());
        given.gpus = vec![Gpu { uuid: Some("GPU-1234".into()), ..Gpu::default() }];
        for (name, value) in [
            ("NCCL_COMM_ID", "10.0.0.7:29500"),
            ("NCCL_HOSTID", "gpu-node-17"),
            ("NCCL_TOPO_FILE", "/home/alice/topo.xml"),
            ("CUDA_VISIBLE_DEVICES", "GPU-1234"),
            ("NCCL_ALGO", "Ring"),
            ("NCCL_MAX_NCHANNELS", "8"),
            ("OMP_NUM_THREADS", "4"),
        ] {
            given.environment.insert(name.into(), value.into());
        }
        let words = "/home/alice/bin/bubblebench measure all /op/ --preset quick --results /scratch/alice/run --coordinator \
                     gpu-node-17:29500 --machine-file=/x/y all_reduce/r2 /home/alice";
        given.run.command = words.split_whitespace().map(String::from).collect();
        let (open, withheld) = without_secrets(&given);
        let text = serde_json::to_string(&open).unwrap();
        for secret in ["alice", "gpu-node", "GPU-1234", "10.0.0.7", "scratch", "/x/y"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert_eq!(
            open.run.command.join(" "),
            "bubblebench measure all /op/ --preset quick --results withheld --coordinator withheld --machine-file=withheld \
             all_reduce/r2 withheld"
        );
        assert_eq!(
            (open.environment["NCCL_ALGO"].as_str(), open.environment["NCCL_MAX_NCHANNELS"].as_str()),
            ("Ring", "8")
        );
        assert!(
            withheld.contains(&"NCCL_COMM_ID".to_string()) && withheld.contains(&"hostname".to_string()),
            "{withheld:?}"
        );
    }

    #[test]
    fn reasons_keep_what_names_nobody() {
        let clean = |text: &str| reason_without_secrets(text, Some("node17"));
        assert_eq!(
            clean("no libnccl.so.2 in /home/alice/lib, and none loaded"),
            "no libnccl.so.2 in withheld, and none loaded"
        );
        assert_eq!(clean("rank 3 on node17: lost (10.0.0.7:29500)"), "rank 3 on withheld: lost (withheld)");
        assert_eq!(clean("no 1/2 of it in 3.5 GiB, driver 535.129.03"), "no 1/2 of it in 3.5 GiB, driver 535.129.03");
    }

    #[test]
    fn a_record_without_secrets_stays_as_it_is() {
        assert_eq!(without_secrets(&machine()), (machine(), Vec::new()));
    }
}
