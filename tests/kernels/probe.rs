//! The probes of cuda/probe.cu on fibers: what they write, what they leave alone, and that every wait ends.

use bubblebench::stats::SplitMix;
use softgpu::{Arg, Buffer, Config, launch};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const ONE: [u32; 3] = [1, 1, 1];
/// Multiprocessors of the emulation.
const SMS: u32 = 4;

fn number(value: u64) -> Arg {
    Arg::Pointer(value as usize as *mut _)
}

fn word(value: u32) -> Arg {
    Arg::I32(value as i32)
}

/// Words of 64 bits as the kernels write them.
fn words(buffer: &Buffer<u32>) -> Vec<u64> {
    buffer.as_slice().chunks(2).map(|pair| u64::from(pair[0]) | u64::from(pair[1]) << 32).collect()
}

/// How long a wait on that flag took; `None` where it gave up.
fn wait(kernel: &str, flag: &AtomicU32, ticket: u32, timeout_ns: u64) -> Option<u64> {
    let mut waited = Buffer::<u32>::poisoned(2);
    let arguments = [Arg::Pointer(flag.as_ptr().cast()), word(ticket), number(timeout_ns), waited.arg()];
    // SAFETY: the flag is one word, `waited` two; both outlive the launch.
    unsafe { launch(kernel, Config::new(ONE, ONE), &arguments) }.unwrap();
    assert!(waited.intact());
    Some(words(&waited)[0]).filter(|&ns| ns != u64::MAX)
}

#[test]
fn a_wait_ends_when_its_flag_has_reached_the_ticket() {
    for kernel in ["probe_blocker", "probe_gate_wait"] {
        let passes = |flag: u32, ticket| wait(kernel, &AtomicU32::new(flag), ticket, 1000).is_some();
        assert!(passes(1, 1) && passes(7, 3) && passes(0, 0));
        assert!(!passes(0, 1) && !passes(6, 7));
        // Tickets are counted modulo 2³².
        assert!(passes(2, u32::MAX) && !passes(u32::MAX, 2));
    }
}

#[test]
fn a_wait_sees_what_the_host_writes_meanwhile() {
    for kernel in ["probe_blocker", "probe_gate_wait"] {
        let flag = AtomicU32::new(0);
        let waited = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(5));
                flag.store(9, Ordering::Release);
            });
            wait(kernel, &flag, 9, 60_000_000_000)
        });
        assert!(waited.is_some());
    }
}

#[test]
fn the_flush_writes_every_byte_and_none_beyond() {
    let mut random = SplitMix(1);
    for _ in 0..200 {
        let (vectors, value) = (random.below(3000), random.next_u64() as u32);
        let mut memory = Buffer::<u32>::poisoned(4 * vectors);
        let config = Config::new([1 + random.below(9) as u32, 1, 1], [1 + random.below(300) as u32, 1, 1]);
        // SAFETY: the memory holds that many vectors.
        unsafe { launch("probe_flush", config, &[memory.arg(), number(vectors as u64), word(value)]) }.unwrap();
        assert!(memory.intact() && memory.as_slice().iter().all(|&is| is == value));
    }
}

/// Two stamps and their claims, the second no earlier than `window_ns` after the first.
fn stamps(sm: u32, blocks: u32, ticket: u32, window_ns: u64) -> [Vec<u64>; 2] {
    let (mut pair, mut claims) = (Buffer::<u32>::poisoned(16), Buffer::<u32>::poisoned(2));
    let pointer = |arg: Arg, bytes: usize| match arg {
        Arg::Pointer(p) => Arg::Pointer(p.cast::<u8>().wrapping_add(bytes).cast()),
        other => other,
    };
    let config = Config::new([blocks, 1, 1], ONE);
    for (index, since) in [(0, Arg::NULL), (1, pair.arg())] {
        let (stamp, claim) = (pointer(pair.arg(), 32 * index), pointer(claims.arg(), 4 * index));
        let window = if index == 0 { 0 } else { window_ns };
        let arguments = [stamp, claim, word(sm), word(ticket), since, number(window)];
        // SAFETY: two stamps of four words, a claim each.
        unsafe { launch("probe_stamp", config, &arguments) }.unwrap();
    }
    assert!(pair.intact() && claims.intact());
    let all = words(&pair);
    [all[..4].to_vec(), all[4..].to_vec()]
}

#[test]
fn a_stamp_is_taken_on_the_multiprocessor_asked_for_and_on_no_other() {
    for sm in 0..SMS {
        for blocks in [SMS, 4 * SMS, 4 * SMS + 3] {
            let [before, after] = stamps(sm, blocks, 77, 50_000);
            for stamp in [&before, &after] {
                assert_eq!(stamp[2..], [77, u64::from(sm)]);
            }
            assert!(after[0] >= before[0] + 50_000, "the window is waited for");
            assert!(after[1] > before[1]);
        }
    }
    let [before, after] = stamps(SMS + 5, 4 * SMS, 77, 50_000);
    assert!(before.iter().chain(&after).all(|&word| word == u64::MAX), "no block lies there: nothing is written");
}

#[test]
fn the_timer_moves_and_its_steps_are_told() {
    let mut changes = Buffer::<u32>::poisoned(64);
    // SAFETY: room for as many words of 64 bits as are asked for.
    unsafe { launch("probe_tick", Config::new(ONE, ONE), &[changes.arg(), Arg::I32(32), number(1 << 22)]) }.unwrap();
    assert!(changes.intact() && words(&changes).iter().all(|&step| step > 0 && step < u64::MAX));
}

#[test]
fn every_block_says_where_it_ran() {
    let mut ids = Buffer::<u32>::poisoned(11);
    // SAFETY: a word a block.
    unsafe { launch("probe_sm_map", Config::new([11, 1, 1], ONE), &[ids.arg()]) }.unwrap();
    assert!(ids.intact() && ids.as_slice().iter().enumerate().all(|(block, &id)| id == block as u32 % SMS));
}

#[test]
fn a_spin_lasts_as_long_as_asked() {
    let mut ran = Buffer::<u32>::poisoned(2);
    // SAFETY: one word of 64 bits.
    unsafe { launch("probe_spin", Config::new(ONE, ONE), &[ran.arg(), number(100_000)]) }.unwrap();
    assert!(ran.intact() && (100_000..u64::MAX).contains(&words(&ran)[0]));
}
