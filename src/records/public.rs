//! Records as they may be published: without host names, without what tells one card from another, and without values that may
//! name people, paths or addresses. Nothing is searched for secrets; what is not known to be harmless is withheld.

use super::{MachineRecord, Measurement, flags};
use serde_json::Value;
use std::collections::BTreeSet;

/// What stands where a value was withheld.
pub const WITHHELD: &str = "withheld";

/// Variables whose values are short words that NCCL, CUDA or this program define.
const WORDED_VARIABLES: [&str; 14] = [
    "NCCL_ALGO",
    "NCCL_PROTO",
    "NCCL_DEBUG",
    "NCCL_DEBUG_SUBSYS",
    "NCCL_P2P_LEVEL",
    "NCCL_NET_GDR_LEVEL",
    "NCCL_NET",
    "NCCL_LAUNCH_MODE",
    "NCCL_CROSS_NIC",
    "NCCL_SOCKET_FAMILY",
    "CUDA_DEVICE_ORDER",
    "CUDA_MODULE_LOADING",
    "CUDA_LAUNCH_BLOCKING",
    "BUBBLEBENCH_WGMMA",
];

/// Variables whose values are interfaces.
const INTERFACE_VARIABLES: [&str; 2] = ["NCCL_IB_HCA", "NCCL_SOCKET_IFNAME"];

/// What interfaces are called by their drivers, a number behind each.
const INTERFACES: [&str; 10] = ["mlx4_", "mlx5_", "eth", "ib", "bond", "hsn", "eno", "ens", "docker", "lo"];

/// Parameters of cases whose values are words of the suite.
const WORDED_PARAMETERS: [&str; 24] = [
    "dtype",
    "recompute",
    "phase",
    "operation",
    "family",
    "product",
    "epilogue",
    "side",
    "main",
    "model",
    "algorithm",
    "protocol",
    "transport",
    "pattern",
    "redop",
    "side_unit",
    "sharing",
    "resource",
    "schedule",
    "commit",
    "nccl",
    "statistic",
    "side_operation",
    "attention",
];

/// Words of the command line that are no options.
const COMMANDS: [&str; 9] = ["measure", "bench", "import", "all", "gpt-layer", "collectives", "corun", "fill", "--"];

/// Options without a value, and options whose value is a word or a number that says what was measured.
const FLAGS: [&str; 6] = ["--fresh", "--allow-software", "--nccl-choices", "--quick", "--full", "--list"];
const WORDED_OPTIONS: [&str; 12] = [
    "--preset",
    "--device",
    "--scale",
    "--sequence",
    "--format",
    "--deadline",
    "--case-deadline",
    "--ranks",
    "--nodes",
    "--from",
    "--operation",
    "--machine",
];

/// The record without secrets, and the names of what was withheld from it. `ids` are the names of the cases: a word of the command
/// line that is part of one is a filter.
pub fn without_secrets(machine: &MachineRecord, ids: &[&str]) -> (MachineRecord, Vec<String>) {
    let (mut open, mut withheld) = (machine.clone(), Vec::new());
    if open.hostname.take().is_some() {
        withheld.push("hostname".to_string());
    }
    if open.gpus.iter_mut().filter_map(|gpu| gpu.uuid.take()).count() > 0 {
        withheld.push("UUIDs of the GPUs".into());
    }
    for (name, value) in &mut open.environment {
        if !is_harmless_variable(name, value) {
            *value = WITHHELD.into();
            withheld.push(name.clone());
        }
    }
    open.run.command = command(machine, ids, &mut withheld);
    let hosts = HostNames::of(machine.hostname.as_deref());
    let texts = open.topology.iter_mut().chain([&mut open.kernel]).chain(open.versions.values_mut().flatten());
    for text in texts.filter(|text| hosts.are_in(text)) {
        *text = WITHHELD.into();
        withheld.push("a text with the host's name".into());
    }
    let mut seen = BTreeSet::new();
    withheld.retain(|name| seen.insert(name.clone()));
    (open, withheld)
}

/// Withholds what the parameters and flags of a record may name; says whether there was anything.
pub fn clean(record: &mut Measurement, hostname: Option<&str>) -> bool {
    let hosts = HostNames::of(hostname);
    let mut changed = false;
    for (name, value) in &mut record.params {
        let Value::String(text) = value else { continue };
        let known = WORDED_PARAMETERS.contains(&name.as_str()) && is_word(text, "_+./- ", 100) && !hosts.are_in(text);
        let open = if known { text.clone() } else { prose(text, &hosts) };
        changed |= *text != open;
        *text = open;
    }
    for flag in &mut record.flags {
        let word = flag.chars().all(|c| c.is_ascii_lowercase() || " :-".contains(c));
        if !flags::ALL.contains(&flag.as_str()) && (!word || hosts.are_in(flag)) {
            *flag = WITHHELD.into();
            changed = true;
        }
    }
    changed
}

/// A sentence whose words are all letters, numbers or names of libraries and element types; every other word is withheld.
fn prose(text: &str, hosts: &HostNames) -> String {
    let word = |word: &str| {
        let inner = word.trim_matches(|c: char| "()[]{},;:.!?'\"`".contains(c));
        let open = inner.is_empty() || (is_plain(inner) && !hosts.are_in(inner));
        if open { word.to_string() } else { word.replace(inner, WITHHELD) }
    };
    text.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// `rank`, `back-to-back`, `3`, `3.5`, `libnccl.so.2`, `bf16`, `16MiB`.
fn is_plain(word: &str) -> bool {
    let letters = word.chars().all(|c| c.is_ascii_alphabetic() || "-'".contains(c));
    let library = word.starts_with("lib") && word.contains(".so") && is_word(word, "._-", 40);
    let digits = word.trim_start_matches(['+', '-']).trim_end_matches('%');
    let number =
        !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.') && digits.matches('.').count() < 2;
    let dtype = ["bf16", "f16", "f32", "f64", "f8e4m3", "f8e5m2"].contains(&word);
    let size =
        ["KiB", "MiB", "GiB"].iter().any(|unit| word.strip_suffix(unit).is_some_and(|n| n.parse::<u64>().is_ok()));
    letters || library || number || dtype || size
}

/// ASCII letters, digits and these signs, at most so many.
fn is_word(text: &str, signs: &str, most: usize) -> bool {
    text.len() <= most && text.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c))
}

/// The host's names: the whole and its first part.
struct HostNames(Vec<String>);

impl HostNames {
    fn of(hostname: Option<&str>) -> Self {
        let whole = hostname.unwrap_or_default().to_ascii_lowercase();
        let first = whole.split('.').next().unwrap_or_default().to_string();
        // `host` and the like are words of the suite's own.
        let own = |name: &String| name.len() > 2 && !["host", "localhost", "node", "gpu"].contains(&name.as_str());
        HostNames([whole, first].into_iter().filter(own).collect())
    }

    fn are_in(&self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        self.0.iter().any(|name| text.contains(name.as_str()))
    }
}

fn is_harmless_variable(name: &str, value: &str) -> bool {
    let mut parts = value.split([',', ';']).map(|part| part.trim_start_matches(['^', '=']));
    let number = |part: &str| !part.is_empty() && part.len() < 12 && part.chars().all(|c| c.is_ascii_digit());
    let switch =
        |part: &str| ["true", "false", "none", "auto", "yes", "no"].contains(&part.to_ascii_lowercase().as_str());
    // Longer words with digits in them are nobody's algorithm or level.
    let word = |part: &str| {
        is_word(part, "", 8) || (part.len() <= 24 && part.chars().all(|c| c.is_ascii_uppercase() || "_6".contains(c)))
    };
    let interface = |part: &str| {
        let (name, port) = part.split_once(':').unwrap_or((part, "1"));
        number(port)
            && INTERFACES.iter().any(|known| {
                name.strip_prefix(known).is_some_and(|rest| rest.len() < 4 && rest.chars().all(|c| c.is_ascii_digit()))
            })
    };
    parts.all(|part| {
        let known = (WORDED_VARIABLES.contains(&name) && word(part))
            || (INTERFACE_VARIABLES.contains(&name) && interface(part));
        number(part) || switch(part) || known
    })
}

/// The words of the command line that say what was measured.
fn command(machine: &MachineRecord, ids: &[&str], withheld: &mut Vec<String>) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut option: Option<&str> = None;
    for (index, word) in machine.run.command.iter().enumerate() {
        let before = option.take();
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        let of_name = |name: &str, value: &str| {
            WORDED_OPTIONS.contains(&name)
                && (is_word(value, "_:.-", 24) && (name != "--machine" || value == machine.name))
        };
        let program = word.rsplit('/').next().is_some_and(|program| program == "cargo");
        let shown = match (index, value, before) {
            (0, ..) => Some(if program { "cargo" } else { "bubblebench" }.to_string()),
            (_, None, Some(before)) if of_name(before, word) => Some(word.clone()),
            (_, Some(value), _) if of_name(name, value) => Some(word.clone()),
            (_, None, None) if COMMANDS.contains(&word.as_str()) || FLAGS.contains(&word.as_str()) => {
                Some(word.clone())
            }
            (_, None, _) if WORDED_OPTIONS.contains(&name) => {
                option = Some(name);
                Some(word.clone())
            }
            (_, None, None) if !word.is_empty() && ids.iter().any(|id| id.contains(word.as_str())) => {
                Some(word.clone())
            }
            // In a record that was published before.
            _ if word == WITHHELD => Some(word.clone()),
            _ => None,
        };
        if shown.is_none() {
            withheld.push("words of the command line".into());
        }
        open.push(shown.unwrap_or_else(|| WITHHELD.into()));
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::measurement::{Backend, Kind};
    use crate::records::{files, machine::Gpu};
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
        given.topology = vec!["0-1: NVLink".into(), "on GPU-Node-17".into()];
        let kept = [
            ("NCCL_ALGO", "^Ring,Tree"),
            ("NCCL_PROTO", "LL128"),
            ("NCCL_MAX_NCHANNELS", "8"),
            ("NCCL_IB_HCA", "=mlx5_0:1,mlx5_1"),
            ("NCCL_SOCKET_IFNAME", "eth0"),
            ("NCCL_SOCKET_FAMILY", "AF_INET6"),
            ("NCCL_NET_PLUGIN", "none"),
            ("CUDA_VISIBLE_DEVICES", "0,1"),
            ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
        ];
        let secret = [
            ("NCCL_COMM_ID", "10.0.0.7:29500"),
            ("NCCL_COMM_ID2", "192-168-3-7"),
            ("NCCL_HOSTID", "gpu-node-17"),
            ("NCCL_TOPO_FILE", "/home/alice/topo.xml"),
            ("CUDA_CACHE_PATH", "GPU-1234"),
            ("NCCL_SOCKET_IFNAME2", "enxa4bb6d1f22e7"),
            ("NCCL_LAUNCH_MODE", "ghp_16C7e42Falice"),
            ("NCCL_NET", "node17secret"),
        ];
        for (name, value) in kept.into_iter().chain(secret) {
            given.environment.insert(name.into(), value.into());
        }
        let words = "/home/alice/bin/alice-bench measure all /op/ --preset quick --results /scratch/alice/run --coordinator \
                     gpu-node-17:29500 --machine-file=/x/y all_reduce/r2 /home/alice --token-ghp_abc -x alice --device cuda:0 \
                     --machine alice --model=alice";
        given.run.command = words.split_whitespace().map(String::from).collect();
        let ids = ["gpt/h64/op/ln1/forward", "host/all_reduce/r2/f32/8B"];
        let (open, withheld) = without_secrets(&given, &ids);
        let text = serde_json::to_string(&open).unwrap().to_lowercase();
        for secret in
            ["alice", "gpu-node", "gpu-1234", "10.0.0.7", "scratch", "/x/y", "ghp_", "17secret", "enxa4", "192-"]
        {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert_eq!(
            open.run.command.join(" ").replace("withheld", "-"),
            "bubblebench measure all /op/ --preset quick - - - - - all_reduce/r2 - - - - --device cuda:0 --machine - -"
        );
        for (name, value) in kept {
            assert_eq!(open.environment[name], value, "{name}");
        }
        assert!(
            withheld.contains(&"NCCL_COMM_ID".to_string()) && withheld.contains(&"hostname".to_string()),
            "{withheld:?}"
        );
        assert_eq!(withheld.iter().filter(|name| name.starts_with("words")).count(), 1);
    }

    #[test]
    fn a_record_without_secrets_stays_as_it_is() {
        assert_eq!(without_secrets(&machine(), &[]), (machine(), Vec::new()));
    }

    #[test]
    fn reasons_keep_words_and_numbers_only() {
        let hosts = HostNames::of(Some("frontera.tacc.edu"));
        let clean = |text: &str| prose(text, &hosts);
        let same = "no libnccl.so.2 on rank 3, 3.5 GiB of bf16 in 16MiB pieces (50%); it's back-to-back.";
        assert_eq!(clean(same), same);
        for secret in [
            "gpu18",
            "gpu17.cluster.org:29500",
            "alice@gpu17",
            "open(path=/home/alice)",
            "file:///home/alice/z",
            "~alice/x",
            "/alice",
            "tcp://10.0.0.7:29500",
            "[10.0.0.8]:29500",
            "10.0.0.9/24",
            "1,10.0.0.7,x",
            "fe80::a6bb:6dff:fe1f:22e7",
            "GPU-0a1b2c3d",
            "0000:3b:00.0",
            "Frontera",
            "frontera.tacc.edu",
        ] {
            let text = clean(&format!("lost ({secret}, gone)")).to_lowercase();
            assert!(
                text.starts_with("lost (") && text.contains("withheld") && text.ends_with(", gone)"),
                "{secret}: {text}"
            );
            assert!(!text.contains(&secret.to_lowercase()) && !text.contains("alice"), "{secret}: {text}");
        }
        assert_eq!(clean("a\n/home/alice\tb"), "a withheld b");
    }

    #[test]
    fn parameters_and_flags_that_nobody_knows_are_cleaned() {
        let mut record = Measurement::blank("a", Kind::Operation, Backend::Host);
        record.flags = ["noisy", "sw-power-cap", "host-gpu17"].map(String::from).into();
        for (name, value) in [("coordinator", "10.9.9.9:29500"), ("main", "gpt-h512-a8-forward"), ("reason", "no GPU")]
        {
            record.params.insert(name.into(), value.into());
        }
        assert!(clean(&mut record, None));
        assert_eq!(record.flags, ["noisy", "sw-power-cap", WITHHELD]);
        assert_eq!(record.params["coordinator"], WITHHELD);
        assert_eq!(
            (&record.params["main"], &record.params["reason"]),
            (&"gpt-h512-a8-forward".into(), &"no GPU".into())
        );
        assert!(!clean(&mut record, None));
    }
}
