//! Why a GPU runs below the clock asked for: NVML's bits, by name.

/// In the order of their bits. Those marked slow the GPU against its will: a row measured under one is flagged with it.
const REASONS: [(u64, &str, bool); 11] = [
    (0x1, "gpu-idle", false),
    (0x2, "application-clocks", false),
    (0x4, "sw-power-cap", true),
    (0x8, "hw-slowdown", true),
    (0x10, "sync-boost", false),
    (0x20, "sw-thermal-slowdown", true),
    (0x40, "hw-thermal-slowdown", true),
    (0x80, "hw-power-brake", true),
    (0x100, "display-clocks", false),
    (0x200, "board-limit", true),
    (0x400, "reliability", true),
];

/// The names of the bits that are set; one that is newer than this program stands as a hexadecimal number.
pub fn names(bits: u64) -> Vec<String> {
    let known: u64 = REASONS.iter().map(|(bit, ..)| bit).sum();
    let named = REASONS.iter().filter(|(bit, ..)| bits & bit != 0).map(|(_, name, _)| name.to_string());
    let unknown = (0..u64::BITS).map(|i| 1u64 << i).filter(|bit| bits & bit != 0 && known & bit == 0);
    named.chain(unknown.map(|bit| format!("{bit:#x}"))).collect()
}

/// The names of the reasons that slow the GPU against its will.
pub fn throttling() -> impl Iterator<Item = &'static str> {
    REASONS.into_iter().filter(|(.., throttles)| *throttles).map(|(_, name, _)| name)
}

/// Whether the reason of this name slows the GPU against its will.
pub fn throttles(name: &str) -> bool {
    throttling().any(|known| known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_names_and_new_ones_their_number() {
        assert!(names(0).is_empty());
        assert_eq!(names(0x44), ["sw-power-cap", "hw-thermal-slowdown"]);
        assert_eq!(names(0x1 | 1 << 40), ["gpu-idle", "0x10000000000"]);
        assert!(throttles("sw-power-cap") && !throttles("gpu-idle") && !throttles("0x10000000000"));
    }
}
