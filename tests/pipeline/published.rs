//! Bubble ratios that papers print, cell by cell.

use crate::run;
use bubblebench::pipeline::{ScheduleName, StageTimes, Times};
use serde_json::Value;

pub fn rows(key: &str) -> Vec<Value> {
    let text = include_str!("../data/schedules.json");
    let data: Value = serde_json::from_str(text).unwrap();
    data[key].as_array().unwrap().clone()
}

pub fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap()
}

/// The interleaved rule of docs/pipeline.md written a second time, naively: sweep over the stages until all has run.
fn interleaved_reference(p: usize, m: usize, v: usize, times: [f64; 3], message: f64) -> f64 {
    let (forward, backward) = (times[0] / v as f64, (times[1] + times[2]) / v as f64);
    let total = m * v;
    let micro_batch = |k: usize| (k / (p * v)) * p + k % p;
    let chunk = |k: usize| (k % (p * v)) / p;
    let lists: Vec<Vec<(bool, usize, usize)>> = (0..p)
        .map(|i| {
            let ahead = total.min(2 * (p - 1 - i) + (v - 1) * p);
            let mut list: Vec<_> = (0..ahead).map(|k| (true, micro_batch(k), chunk(k))).collect();
            for j in 0..total {
                if ahead + j < total {
                    list.push((true, micro_batch(ahead + j), chunk(ahead + j)));
                }
                list.push((false, micro_batch(j), v - 1 - chunk(j)));
            }
            list
        })
        .collect();
    let mut ended = std::collections::HashMap::new();
    let (mut at, mut free) = (vec![0; p], vec![0.0f64; p]);
    loop {
        let mut moved = false;
        for i in 0..p {
            while let Some(&(is_forward, k, c)) = lists[i].get(at[i]) {
                let source = match (is_forward, i, c) {
                    (true, 0, 0) => None,
                    (true, 0, c) => Some((true, k, c - 1, p - 1)),
                    (true, i, c) => Some((true, k, c, i - 1)),
                    (false, i, c) if i == p - 1 => (c + 1 < v).then_some((false, k, c + 1, 0)),
                    (false, i, c) => Some((false, k, c, i + 1)),
                };
                let mut start = free[i];
                if let Some(source) = source {
                    match ended.get(&source) {
                        None => break,
                        Some(&end) => start = f64::max(start, end + message),
                    }
                }
                free[i] = start + if is_forward { forward } else { backward };
                ended.insert((is_forward, k, c, i), free[i]);
                at[i] += 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    assert!((0..p).all(|i| at[i] == lists[i].len()));
    let iteration = free.iter().copied().fold(0.0, f64::max);
    1.0 - m as f64 * (times[0] + times[1] + times[2]) / iteration
}

#[test]
fn published_bubble_ratios_come_out_to_four_decimals() {
    let exact = [("1f1b", ScheduleName::OneFOneB), ("zb_h1", ScheduleName::ZbH1), ("zb_h2", ScheduleName::ZbH2)];
    let mut checked = 0;
    for (key, doubled, suffix) in [("rows", 1, ""), ("zb_v_rows", 2, "_chunk")] {
        for row in rows(key) {
            let time = |name: &str| 1000 * doubled * number(&row, &format!("{name}{suffix}"));
            let stage = StageTimes::new(time("t_f"), time("t_b"), time("t_w"));
            let times = Times::even(number(&row, "p") as usize, stage, 1000 * number(&row, "t_comm"));
            for (column, name) in exact {
                let published = row["bubble"][column].as_f64().unwrap();
                let ours = run(name, number(&row, "m") as usize, None, &times).bubble_ratio();
                assert!((ours - published).abs() <= 0.00006, "{column} {row}: {ours}, published {published}");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 27);
}

#[test]
fn interleaved_follows_its_rule_and_lies_just_above_the_published_figures() {
    for row in rows("rows") {
        let (p, m, v) = (number(&row, "p"), number(&row, "m"), number(&row, "interleave_chunks"));
        let t = [number(&row, "t_f"), number(&row, "t_b"), number(&row, "t_w")];
        let message = number(&row, "t_comm");
        let stage = StageTimes::new(t[0] * 1000, t[1] * 1000, t[2] * 1000);
        let times = Times::even(p as usize, stage, message * 1000);
        let ours = run(ScheduleName::Interleaved, m as usize, Some(v as usize), &times).bubble_ratio();
        let rule = interleaved_reference(p as usize, m as usize, v as usize, t.map(|x| x as f64), message as f64);
        assert!((ours - rule).abs() < 1e-7, "{ours} against {rule}");
        let published = row["bubble"]["1f1b_i"].as_f64().unwrap();
        assert!(ours >= published - 0.0001 && ours <= published + 0.005, "{ours}, published {published}");
    }
}
