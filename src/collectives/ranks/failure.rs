//! Which rank is to blame when not every rank has replied as it should? A pure decision over what is known at the time.
//!
//! A collective drags everyone along: when one rank stands still, all the others run into their own deadlines. So a
//! rank that failed early is the cause and the rest are its victims, while of ranks that failed at the deadline those
//! that did not reply at all are the cause.

use super::protocol::{FailureKind, Reply};
use super::rank_info::{self, RankInfo};
use crate::Error;
use std::time::Duration;

pub const AGAIN: &str =
    "what was measured is kept: see that rank's own messages, then run the same command again to go on";
const BEHIND: &str = "what was measured is kept: the same command goes on behind this case";

/// What a hang is attributed to where every rank is alive: the case that ran, or the rank that did not reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HangScope {
    Case,
    Rank,
}

#[derive(Debug, Clone, PartialEq)]
pub enum RankOutcome {
    None,
    Good(Reply),
    Bad { what: String, cure: String, kind: FailureKind, after: Duration },
}

impl RankOutcome {
    pub fn of(reply: Reply, after: Duration) -> Self {
        match reply {
            Reply::Failed { what, cure, kind } => RankOutcome::Bad { what, cure, kind, after },
            reply => RankOutcome::Good(reply),
        }
    }
}

#[derive(Debug)]
pub enum GroupFault {
    /// No rank could run the case and all are well: the next case may follow.
    Case(Error),
    /// The ranks are no longer in step: the group is over.
    Group(Error),
}

/// The error for a rank that is gone.
pub fn lost(who: &RankInfo, doing: &str, why: &str) -> Error {
    Error::rank(format!("{who} was lost while {doing}: {why}"), AGAIN)
}

/// The good replies of all ranks, or the fault and the rank it is attributed to. `silent` tells for how long a rank has
/// not been heard, where that is longer than it should be.
pub fn attribute(
    members: &[RankInfo],
    replies: Vec<RankOutcome>,
    doing: &str,
    deadline: Duration,
    scope: HangScope,
    silent: impl Fn(usize) -> Option<Duration>,
) -> Result<Vec<Reply>, GroupFault> {
    let which = |wanted: &dyn Fn(&RankOutcome) -> bool| -> Vec<usize> {
        replies.iter().enumerate().filter(|(_, reply)| wanted(reply)).map(|(rank, _)| rank).collect()
    };
    let missing = which(&|reply| *reply == RankOutcome::None);
    let bad = which(&|reply| matches!(reply, RankOutcome::Bad { .. }));
    if missing.is_empty() && bad.is_empty() {
        return Ok(replies
            .into_iter()
            .filter_map(|r| if let RankOutcome::Good(reply) = r { Some(reply) } else { None })
            .collect());
    }
    // A panic is nobody's victim, whenever it came and whatever the others say.
    let bug = |reply: &RankOutcome| matches!(reply, RankOutcome::Bad { kind: FailureKind::Bug, .. });
    if let Some((rank, RankOutcome::Bad { what, .. })) = replies.iter().enumerate().find(|(_, reply)| bug(reply)) {
        return Err(GroupFault::Group(Error::bug(format!("{} failed while {doing}: {what}", members[rank]))));
    }
    // Stopped, but not for the whole deadline yet.
    if let Some((&rank, silence)) = missing.iter().find_map(|rank| Some((rank, silent(*rank)?))) {
        let why = format!(
            "no sign of life for {:.1} s: it is stopped, or its host or network is down",
            silence.as_secs_f64()
        );
        return Err(GroupFault::Group(lost(&members[rank], doing, &why)));
    }
    let early = bad
        .iter()
        .copied()
        .filter(|&rank| matches!(&replies[rank], RankOutcome::Bad { after, .. } if *after < deadline.mul_f64(0.8)));
    let first =
        early.min_by_key(|&rank| if let RankOutcome::Bad { after, .. } = &replies[rank] { *after } else { deadline });
    let culprit = first.or_else(|| bad.first().copied().filter(|_| missing.is_empty()));
    if let Some((rank, RankOutcome::Bad { what, cure, kind, .. })) = culprit.map(|rank| (rank, &replies[rank])) {
        if bad.len() == members[..replies.len()].len() && first.is_some() {
            let what = format!("{what} (all {} ranks)", bad.len());
            // A GPU that has failed runs no other case either.
            return Err(if *kind == FailureKind::Device {
                GroupFault::Group(Error::gpu(what, format!("{cure}; {BEHIND}")))
            } else {
                GroupFault::Case(Error::machine(what, cure.clone()))
            });
        }
        // When everybody gave up at the deadline, none of them knows who kept them waiting.
        let whoever = if bad.len() == replies.len() && bad.len() > 1 && first.is_none() {
            format!("none of the {} ranks got to the end of it", bad.len())
        } else {
            format!("{} failed", members[rank])
        };
        return Err(GroupFault::Group(of(scope, format!("{whoever} while {doing}: {what}"), cure)));
    }
    let names: Vec<String> = missing.iter().take(4).map(|&rank| members[rank].to_string()).collect();
    let more = if missing.len() > 4 { format!(" and others ({})", rank_info::list(&missing)) } else { String::new() };
    let all = if missing.len() == replies.len() { ": no rank did" } else { "" };
    let what =
        format!("{}{more} did not answer within {:.0} s while {doing}{all}", names.join(", "), deadline.as_secs_f64());
    Err(GroupFault::Group(of(scope, what, "--deadline gives it longer")))
}

fn of(scope: HangScope, what: String, cure: &str) -> Error {
    match scope {
        HangScope::Case => Error::gpu(what, format!("{cure}; {BEHIND}")),
        HangScope::Rank => Error::rank(what, format!("{cure}; {AGAIN}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn members(count: usize) -> Vec<RankInfo> {
        (0..count)
            .map(|rank| RankInfo { rank, host: format!("node{rank}"), pid: 7, device: 0, gpu: "x".into() })
            .collect()
    }

    fn good() -> RankOutcome {
        RankOutcome::Good(Reply::Done)
    }

    fn bad(what: &str, seconds: f64) -> RankOutcome {
        RankOutcome::Bad {
            what: what.into(),
            cure: "buy more".into(),
            kind: FailureKind::Case,
            after: Duration::from_secs_f64(seconds),
        }
    }

    fn text(replies: Vec<RankOutcome>, silent: Option<usize>) -> (bool, String) {
        let silent = |rank| Some(Duration::from_secs(3)).filter(|_| silent == Some(rank));
        match attribute(&members(replies.len()), replies, "timing x", DEADLINE, HangScope::Case, silent).unwrap_err() {
            GroupFault::Case(error) => (true, error.to_string()),
            GroupFault::Group(error) => (false, error.to_string()),
        }
    }

    #[test]
    fn everybody_well_is_an_answer_from_each() {
        let replies = attribute(&members(2), vec![good(), good()], "x", DEADLINE, HangScope::Rank, |_| None).unwrap();
        assert_eq!(replies.len(), 2);
    }

    #[test]
    fn what_nobody_can_do_is_the_cases_own_fault() {
        let (case, text) = text(vec![bad("no fp8", 0.1), bad("no fp8", 0.1)], None);
        assert!(case && text.contains("no fp8 (all 2 ranks); buy more"), "{text}");
    }

    #[test]
    fn a_gpu_that_failed_on_every_rank_is_no_cases_fault() {
        let broken = |seconds| {
            let (what, cure) = ("an illegal address".into(), "see dmesg".into());
            RankOutcome::Bad { what, cure, kind: FailureKind::Device, after: Duration::from_secs_f64(seconds) }
        };
        let (case, text) = text(vec![broken(0.1), broken(0.2)], None);
        assert!(!case && text.contains("an illegal address (all 2 ranks); see dmesg"), "{text}");
    }

    /// One rank's panic while the others wait for it.
    #[test]
    fn a_bug_of_one_rank_is_told_as_one_and_not_as_that_ranks_fault() {
        let (what, cure) = ("index out of bounds".into(), crate::error::REPORT.into());
        let panicked = RankOutcome::Bad { what, cure, kind: FailureKind::Bug, after: Duration::from_secs(9) };
        for other in [RankOutcome::None, bad("no memory", 0.01), bad("timed out", 10.0)] {
            let replies = vec![other, panicked.clone()];
            let fault = attribute(&members(2), replies, "timing x", DEADLINE, HangScope::Case, |_| None).unwrap_err();
            let GroupFault::Group(error) = fault else { panic!("the ranks are not in step any more") };
            assert_eq!(error.exit_code(), 101);
            let text = error.to_string();
            assert!(text.contains("rank 1 (node1, process 7, GPU 0) failed while timing x: index"), "{text}");
        }
    }

    #[test]
    fn who_fails_early_is_the_cause_and_who_fails_late_a_victim() {
        let (case, early) = text(vec![RankOutcome::None, bad("out of memory", 0.2), RankOutcome::None], None);
        assert!(
            !case && early.contains("rank 1 (node1, process 7, GPU 0) failed while timing x: out of memory"),
            "{early}"
        );
        let (_, late) = text(vec![bad("timed out", 10.0), RankOutcome::None, bad("timed out", 10.0)], None);
        assert!(late.contains("rank 1 (node1, process 7, GPU 0) did not answer within 10 s while timing x"), "{late}");
        let (_, all_late) = text(vec![bad("timed out", 10.0), bad("timed out", 10.0)], None);
        assert!(all_late.contains("none of the 2 ranks got to the end of it while timing x: timed out"), "{all_late}");
    }

    #[test]
    fn nobody_answering_names_everyone_but_a_silent_rank_alone() {
        let (_, all) = text(vec![RankOutcome::None; 6], None);
        assert!(
            all.contains("rank 0 (") && all.contains("and others (ranks 0–5)") && all.contains("no rank did"),
            "{all}"
        );
        let (_, silent) = text(vec![RankOutcome::None; 6], Some(4));
        assert!(silent.contains("rank 4 (") && silent.contains("no sign of life for 3.0 s"), "{silent}");
        assert!(!silent.contains("rank 0 ("), "{silent}");
    }
}
