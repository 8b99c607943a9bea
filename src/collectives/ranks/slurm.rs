//! The first host of a Slurm node list: `gpu[007-009,012],login1` begins with `gpu007`, `rack[1-2]node[3-4]` with
//! `rack1node3`. Rank 0 of a step is on it.

use crate::{Error, Result};

pub fn first_host(list: &str) -> Result<String> {
    let wrong = || {
        Error::input(
            format!("`{list}` is no Slurm node list that this program can read"),
            "set MASTER_ADDR to the name of rank 0's host: scontrol show hostnames | head -n 1",
        )
    };
    let mut host = String::new();
    let mut rest = list.trim();
    while let Some(at) = rest.find(['[', ',']) {
        host.push_str(&rest[..at]);
        if rest.as_bytes()[at] == b',' {
            return sound(host).ok_or_else(wrong);
        }
        let inside = &rest[at + 1..];
        let end = inside.find(']').ok_or_else(wrong)?;
        let first = inside[..end].split([',', '-']).next().filter(|f| !f.is_empty()).ok_or_else(wrong)?;
        if !first.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        host.push_str(first);
        rest = &inside[end + 1..];
    }
    host.push_str(rest);
    sound(host).ok_or_else(wrong)
}

fn sound(host: String) -> Option<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    Some(host).filter(|host| !host.is_empty() && host.chars().all(fine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_begin_with_their_first_host() {
        for (list, first) in [
            ("node1", "node1"),
            ("node1,node2", "node1"),
            ("gpu[007-009,012],login1", "gpu007"),
            ("gpu[12]", "gpu12"),
            ("a-b[3,5-7].example.org,c", "a-b3.example.org"),
            ("rack[1-2]node[03-04]", "rack1node03"),
            (" n[0-1] ", "n0"),
        ] {
            assert_eq!(first_host(list).unwrap(), first, "{list}");
        }
    }

    #[test]
    fn what_is_no_list_is_named() {
        for list in ["", ",a", "gpu[7", "gpu[]", "gpu[a-b]", "a b", "gpu]1"] {
            assert!(first_host(list).unwrap_err().to_string().contains("MASTER_ADDR"), "{list}");
        }
    }
}
