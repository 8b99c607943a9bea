//! How a GPU is doing, in lines for `bubblebench doctor`: numbers, modes, and what stands in the way of measuring.

use crate::machine::nvml::GpuState;
use crate::units::counted;

pub fn lines(state: &GpuState) -> Vec<String> {
    let joined = [numbers(state).join(", "), modes(state).join(", ")];
    joined.into_iter().filter(|line| !line.is_empty()).chain(hindrances(state)).collect()
}

fn numbers(state: &GpuState) -> Vec<String> {
    let of = |most: Option<String>| most.map(|most| format!(" of {most}")).unwrap_or_default();
    let clock = |what: &str, now: Option<u64>, most: Option<u64>| {
        now.map(|now| format!("{what} {now}{} MHz", of(most.map(|most| most.to_string()))))
    };
    let limit = state.power_limit_w.map(|watts| format!("{watts:.0}"));
    let parts = [
        clock("SM clock", state.sm_clock_mhz, state.sm_clock_max_mhz),
        clock("application clock", state.sm_clock_application_mhz, None),
        clock("memory clock", state.memory_clock_mhz, state.memory_clock_max_mhz),
        state.power_w.map(|watts| format!("{watts:.0}{} W", of(limit))),
        state.temperature_c.map(|celsius| format!("{celsius} °C")),
    ];
    parts.into_iter().flatten().collect()
}

fn modes(state: &GpuState) -> Vec<String> {
    let on = |what: &str, mode: Option<bool>| mode.map(|on| format!("{what} {}", if on { "on" } else { "off" }));
    let errors = |what: &str, count: Option<u64>| count.map(|count| counted(count, &format!("{what} error")));
    let parts = [
        on("ECC", state.ecc),
        errors("corrected", state.ecc_corrected),
        errors("uncorrected", state.ecc_uncorrected),
        on("MIG", state.mig),
        on("persistence", state.persistence),
        state.compute_mode.as_ref().map(|mode| format!("compute mode {mode}")),
        state.nvlinks.map(|links| format!("{} up", counted(links, "NVLink"))),
        Some(format!("{}activity counters (GPM)", if state.gpm { "" } else { "no " })),
    ];
    parts.into_iter().flatten().collect()
}

fn hindrances(state: &GpuState) -> Vec<String> {
    let reasons: Vec<&str> = state.clock_event_reasons.iter().flatten().map(String::as_str).collect();
    let below = (!reasons.is_empty()).then(|| format!("below its clock: {}", reasons.join(", ")));
    let used = state.other_processes.iter().flatten().map(|process| {
        let memory = process.used_memory_bytes.map(|bytes| format!(" ({} MiB)", bytes >> 20)).unwrap_or_default();
        format!("also used by process {}{memory}: times measured now may be longer", process.pid)
    });
    below.into_iter().chain(used).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::nvml::Process;

    #[test]
    fn what_is_known_is_said_and_the_rest_left_out() {
        assert_eq!(lines(&GpuState::default()), ["no activity counters (GPM)"]);
        let state = GpuState {
            sm_clock_mhz: Some(1200),
            sm_clock_max_mhz: Some(1980),
            power_w: Some(690.4),
            power_limit_w: Some(700.0),
            ecc: Some(true),
            ecc_uncorrected: Some(0),
            gpm: true,
            clock_event_reasons: Some(vec!["sw-power-cap".into()]),
            other_processes: Some(vec![Process { pid: 7, used_memory_bytes: Some(1 << 30) }]),
            ..GpuState::default()
        };
        assert_eq!(
            lines(&state),
            [
                "SM clock 1200 of 1980 MHz, 690 of 700 W",
                "ECC on, 0 uncorrected errors, activity counters (GPM)",
                "below its clock: sw-power-cap",
                "also used by process 7 (1024 MiB): times measured now may be longer",
            ]
        );
    }
}
