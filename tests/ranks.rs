//! Ranks as processes: they meet, measure together, and whatever happens to one of them ends all of them in time, with
//! the culprit named. The processes are this test program itself, started again as one rank.

#[path = "ranks/losses.rs"]
mod losses;
#[path = "ranks/meeting.rs"]
mod meeting;
#[path = "ranks/party.rs"]
mod party;
#[path = "ranks/threads.rs"]
mod threads;
#[path = "ranks/transport.rs"]
mod transport;

/// Not a test: the life of one rank, when this program is started as one.
#[test]
fn rank_process() {
    if std::env::var_os(party::FOLDER).is_some() {
        transport::live();
    }
}
