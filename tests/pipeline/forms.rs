//! Closed forms: every schedule's own bubble and peak of activations.

use crate::{least, most, peaks, run};
use bubblebench::pipeline::activations::DEFAULT_WEIGHT_SHARE;
use bubblebench::pipeline::{BubbleKind, ScheduleName, StageTimes, Times, bubbles};

fn even(p: usize, f: u64, b: u64, w: u64) -> Times {
    Times::even(p, StageTimes::new(f, b, w), 0)
}

/// Equal stages, no communication, stage i of p: gaps of i·F, (p−1−i)(B+W), (p−1−i) times F, i·(B+W).
#[test]
fn one_f_one_b_has_its_closed_form_gaps() {
    for (p, m, f, b, w) in
        [(5, 12, 70, 60, 35), (1, 3, 5, 6, 7), (2, 2, 9, 3, 1), (8, 8, 20, 40, 40), (4, 32, 1, 50, 0)]
    {
        let timeline = run(ScheduleName::OneFOneB, m, None, &even(p, f, b, w));
        assert_eq!(timeline.iteration_ns, (m + p - 1) as u64 * (f + b + w));
        for i in 0..p {
            let behind = (p - 1 - i) as u64;
            let of = |kind: BubbleKind| -> Vec<u64> {
                bubbles::of_stage(&timeline, i).iter().filter(|b| b.kind == kind).map(|b| b.length_ns()).collect()
            };
            let some = |length: u64| if length == 0 { vec![] } else { vec![length] };
            assert_eq!(of(BubbleKind::Warmup), some(i as u64 * f));
            assert_eq!(of(BubbleKind::BeforeBackward), some(behind * (b + w)));
            assert_eq!(of(BubbleKind::Cooldown), vec![f; behind as usize]);
            assert_eq!(of(BubbleKind::Tail), some(i as u64 * (b + w)));
            assert_eq!(of(BubbleKind::Steady), Vec::<u64>::new());
        }
        assert_eq!(peaks(&timeline, 0.4), (0..p).map(|i| (p - i) as f64).collect::<Vec<_>>());
    }
}

/// With exposed send/recv c and p | m: (m+p−1)(F+B+W) + c(2(p−1)m/p + 2(p−2)).
#[test]
fn one_f_one_b_pays_for_messages_as_the_formula_says() {
    for (p, groups, message) in [(2usize, 3usize, 7u64), (4, 2, 11), (4, 6, 3), (8, 3, 5), (8, 8, 1), (16, 4, 9)] {
        let m = p * groups;
        let timeline = run(ScheduleName::OneFOneB, m, None, &Times::even(p, StageTimes::new(1000, 900, 600), message));
        let exposed = 2 * (p - 1) * m / p + 2 * (p - 2);
        assert_eq!(timeline.iteration_ns, (m + p - 1) as u64 * 2500 + message * exposed as u64, "p {p} m {m}");
    }
}

/// GPipe: every stage waits (p−1)(F+B+W) in all and ends up holding all micro-batches.
#[test]
fn gpipe_has_its_bubble_and_its_memory() {
    for (p, m, f, b, w) in [(4, 6, 10, 12, 8), (2, 1, 3, 4, 5), (8, 24, 100, 90, 60), (16, 16, 7, 30, 1)] {
        let timeline = run(ScheduleName::Gpipe, m, None, &even(p, f, b, w));
        assert_eq!(timeline.iteration_ns, (m + p - 1) as u64 * (f + b + w));
        assert_eq!(peaks(&timeline, 0.4), vec![m as f64; p]);
    }
}

/// Narayanan et al. (arXiv 2104.04473, §2.2): interleaving divides the bubble (p−1)(F+B+W) by v; a stage holds
/// 2(p−1−i) + (v−1)p + 1 chunks of activations.
#[test]
fn interleaving_divides_the_bubble_by_the_chunks() {
    for (p, groups) in [(2, 3), (4, 4), (8, 2), (8, 5)] {
        for v in [1, 2, 3, 4] {
            let (m, [f, b, w]) = (p * groups, [60, 48, 36].map(|t| t * v as u64));
            let timeline = run(ScheduleName::Interleaved, m, Some(v), &even(p, f, b, w));
            assert_eq!(timeline.iteration_ns, m as u64 * (f + b + w) + (p as u64 - 1) * (f + b + w) / v as u64);
            let chunks = |i: usize| (2 * (p - 1 - i) + (v - 1) * p + 1).min(m * v) as f64 / v as f64;
            let held = peaks(&timeline, 0.4);
            assert!((0..p).all(|i| (held[i] - chunks(i)).abs() < 1e-9), "p {p} m {m} v {v}: {held:?}");
        }
    }
}

/// Qi et al. (arXiv 2401.10241, §2), while W is no longer than F and B: H1's bubble is (p−1)(F+B−W), H2's (p−1)(F+B−2W).
/// Stage i holds c(p−1−i) + 1 micro-batches and what c·i waiting W still need.
#[test]
fn zb_h_schedules_have_their_bubbles() {
    for (p, m) in [(2, 6), (4, 8), (6, 24), (8, 16), (8, 64)] {
        for (f, b, w) in [(50, 50, 50), (60, 50, 40), (50, 60, 40), (50, 50, 20), (30, 60, 30)] {
            for (name, depth) in [(ScheduleName::ZbH1, 1), (ScheduleName::ZbH2, 2)] {
                let timeline = run(name, m, None, &even(p, f, b, w));
                let bubble = (p as u64 - 1) * (f + b - depth * w);
                assert_eq!(timeline.iteration_ns, m as u64 * (f + b + w) + bubble, "{} p {p} m {m}", name.text());
                let (held, depth) = (peaks(&timeline, 0.4), depth as usize);
                let of = |i: usize| (depth * (p - 1 - i) + 1) as f64 + 0.4 * (depth * i) as f64;
                assert!((0..p).all(|i| held[i] <= of(i) + 1e-9), "{} p {p} m {m}: {held:?}", name.text());
                assert_eq!(held[0], of(0));
            }
        }
    }
    let h2 = run(ScheduleName::ZbH2, 24, None, &even(6, 50, 50, 50));
    assert!((0..6).all(|s| bubbles::of_stage(&h2, s).is_empty()));
}

/// Li & Hoefler (arXiv 2107.06925, §3): with m = p the critical path holds p forwards and 2p − 2 backwards.
#[test]
fn chimera_has_its_critical_path() {
    for p in [2, 4, 6, 8, 16] {
        for (f, b, w) in [(10, 12, 8), (20, 10, 10), (7, 9, 5)] {
            let timeline = run(ScheduleName::Chimera, p, None, &even(p, f, b, w));
            assert_eq!(timeline.iteration_ns, p as u64 * f + (2 * p as u64 - 2) * (b + w), "p {p}");
            let held = peaks(&timeline, 0.0);
            assert!(most(&held) <= p as f64 && least(&held) >= (p / 2 + 1) as f64, "p {p}: {held:?}");
        }
    }
    // With F = B blocks follow each other without a gap: p − 2 slots are lost however many there are.
    for (p, blocks) in [(4, 1), (8, 5), (16, 3)] {
        let timeline = run(ScheduleName::Chimera, p * blocks, None, &even(p, 10, 6, 4));
        assert_eq!(timeline.iteration_ns, (p * blocks * 20 + (p - 2) * 10) as u64);
    }
}

/// Qi et al. (arXiv 2405.15362): (p+2)/2 and (p+4)/3 micro-batches at most, about the same on every stage, and with F =
/// B = W about half and two thirds of 1F1B's bubble.
#[test]
fn v_schedules_hold_half_and_a_third() {
    for p in [4, 6, 8, 12, 16, 31] {
        for groups in [2, 6] {
            let times = even(p, 60, 60, 60);
            let one = run(ScheduleName::OneFOneB, groups * p, None, &times).bubble_ratio();
            let (half, third) = ((p + 2) as f64 / 2.0, (p + 4) as f64 / 3.0);
            for (name, memory, bubble) in [(ScheduleName::VHalf, half, 0.75), (ScheduleName::VMin, third, 0.8)] {
                let timeline = run(name, groups * p, None, &times);
                let (held, what) = (peaks(&timeline, DEFAULT_WEIGHT_SHARE), format!("{} p {p}", name.text()));
                assert!(most(&held) <= memory + 1e-9 && least(&held) >= memory - 1.5, "{what}: {held:?} of {memory}");
                assert!(timeline.bubble_ratio() <= bubble * one, "{what}: {} of {one}", timeline.bubble_ratio());
            }
        }
    }
}

/// DeepSeek-V3 (arXiv 2412.19437, table 2): a bubble of (p/2−1)(F&B + (B+W) − 3W) with F = B, and p + 1 micro-batches of
/// activations. Where F is longer the order loses F instead of B: (p/2−1)(F&B + F − 2W).
#[test]
fn dualpipe_has_its_bubble_and_its_memory() {
    for p in [2, 4, 6, 8, 16] {
        for m in [2 * p, 2 * p + 2, 5 * p] {
            for (f, b, w) in [(100, 100, 100), (100, 100, 60), (120, 100, 80), (100, 90, 60)] {
                for overlapped_ns in [None, Some((f + b + w) * 9 / 10)] {
                    let times = Times { overlapped_ns, ..even(p, f, b, w) };
                    let timeline = run(ScheduleName::Dualpipe, m, None, &times);
                    let pair = overlapped_ns.unwrap_or(f + b + w);
                    let bubble = |x: u64| (p as u64 / 2 - 1) * (pair + x + w - 3 * w);
                    // The device with the most pairs has the least to do.
                    let idle = (0..p).map(|s| timeline.iteration_ns - timeline.busy_ns(s)).max().unwrap();
                    assert_eq!(idle, bubble(f), "p {p} m {m} F {f} B {b} W {w} {overlapped_ns:?}");
                    assert_eq!(peaks(&timeline, 0.4), vec![(p + 1) as f64; p]);
                    if f == b {
                        assert_eq!(idle, bubble(b));
                    }
                }
            }
        }
    }
}

/// DualPipeV is one half of a DualPipe of 2p devices: the same bubble in half-stages, (2p+1)/2 micro-batches.
#[test]
fn dualpipev_is_half_a_dualpipe() {
    for p in [1, 2, 3, 4, 8] {
        for m in [2 * p, 2 * p + 1, 4 * p] {
            for (f, b, w) in [(100, 100, 100), (100, 100, 60), (120, 100, 80)] {
                for overlapped_ns in [None, Some((f + b + w) * 9 / 10)] {
                    let timeline =
                        run(ScheduleName::Dualpipev, m, None, &Times { overlapped_ns, ..even(p, 2 * f, 2 * b, 2 * w) });
                    let doubled = Times { overlapped_ns, ..even(2 * p, f, b, w) };
                    let whole = run(ScheduleName::Dualpipe, 2 * m, None, &doubled);
                    let halved = Times { overlapped_ns: overlapped_ns.map(|t| 2 * t), ..even(p, 2 * f, 2 * b, 2 * w) };
                    let timeline =
                        if overlapped_ns.is_some() { run(ScheduleName::Dualpipev, m, None, &halved) } else { timeline };
                    assert_eq!(timeline.iteration_ns, whole.iteration_ns, "p {p} m {m} {overlapped_ns:?}");
                    assert_eq!(peaks(&timeline, 0.4), vec![(2 * p + 1) as f64 / 2.0; p]);
                }
            }
        }
    }
}
