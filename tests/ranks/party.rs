//! A handful of rank processes, what they said, and how they ended.

use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const FOLDER: &str = "BUBBLEBENCH_TEST_FOLDER";
pub const CASES: &str = "BUBBLEBENCH_TEST_CASES";
pub const DEADLINE_MS: &str = "BUBBLEBENCH_TEST_DEADLINE_MS";
pub const FAULT: &str = "BUBBLEBENCH_TEST_FAULT";

/// Of every wait on another rank, here.
pub const DEADLINE: Duration = Duration::from_secs(4);
/// How long everybody may take to end once that has passed.
pub const MARGIN: Duration = Duration::from_secs(5);
pub const TOKEN: &str = "a secret of this test";

pub struct Party {
    folder: TempDir,
    pub port: u16,
    pub ranks: Vec<Rank>,
}

pub struct Rank {
    child: Child,
    log: std::path::PathBuf,
}

#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub said: String,
}

/// A port that nobody has at the moment, below those that the system hands out by itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = std::process::id() % 97 * 120 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20000 + (step % 12000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Party {
    pub fn new() -> Self {
        Party { folder: tempfile::tempdir().unwrap(), port: free_port(), ranks: Vec::new() }
    }

    /// `ranks` processes that measure `cases` cases.
    pub fn of(ranks: usize, cases: u64) -> Self {
        let mut party = Party::new();
        (0..ranks).for_each(|rank| party.start(rank, ranks, cases, &[]));
        party
    }

    /// One process as torchrun would start it; `more` variables, an empty value takes one away.
    pub fn start(&mut self, rank: usize, ranks: usize, cases: u64, more: &[(&str, &str)]) {
        let log = self.folder.path().join(format!("log-{}", self.ranks.len()));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "rank_process", "--nocapture", "--test-threads", "1"]);
        let kept = ["PATH", "HOME", "LD_LIBRARY_PATH"].map(|name| (name, std::env::var_os(name)));
        command.env_clear().envs(kept.into_iter().filter_map(|(name, value)| Some((name, value?))));
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", ranks.to_string());
        command.env("LOCAL_RANK", rank.to_string()).env("MASTER_ADDR", "127.0.0.1");
        command.env("MASTER_PORT", self.port.to_string()).env("BUBBLEBENCH_TOKEN", TOKEN);
        command.env(FOLDER, self.folder.path()).env(CASES, cases.to_string()).env("TMPDIR", self.folder.path());
        command.env(DEADLINE_MS, DEADLINE.as_millis().to_string());
        for (name, value) in more {
            if value.is_empty() {
                command.env_remove(name)
            } else {
                command.env(name, value)
            };
        }
        let output = std::fs::File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        self.ranks.push(Rank { child: command.spawn().unwrap(), log });
    }

    /// Cases that are done by now.
    pub fn cases(&self) -> u64 {
        std::fs::read_to_string(self.folder.path().join("cases")).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    pub fn wait_for_cases(&self, cases: u64) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.cases() < cases {
            assert!(Instant::now() < end, "{} cases after a minute: {}", self.cases(), self.said(0));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn said(&self, index: usize) -> String {
        std::fs::read_to_string(&self.ranks[index].log).unwrap_or_default()
    }

    pub fn pid(&self, index: usize) -> u32 {
        self.ranks[index].child.id()
    }

    pub fn signal(&self, index: usize, signal: i32) {
        // SAFETY: sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.pid(index) as i32, signal) }, 0);
    }

    /// How all but the `except`ed ended, each within `limit` from now.
    pub fn all_end(&mut self, limit: Duration, except: &[usize]) -> Vec<Ended> {
        let begun = Instant::now();
        let mut ends = Vec::new();
        for index in (0..self.ranks.len()).filter(|index| !except.contains(index)) {
            let status = self.wait(index, limit.saturating_sub(begun.elapsed()));
            let said = self.said(index);
            let status = status.unwrap_or_else(|| panic!("process {index} is still there after {limit:?}: {said}"));
            ends.push(Ended { code: status.code(), said });
        }
        ends
    }

    fn wait(&mut self, index: usize, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.ranks[index].child.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        for rank in &mut self.ranks {
            // Most have ended long ago.
            let _ = rank.child.kill();
            let _ = rank.child.wait();
        }
    }
}
