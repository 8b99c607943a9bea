//! A kernel that never ends would take the whole run with it: the host waits for the GPU for ever. So a case on a GPU
//! has a time limit. When it is over, the case's name is left in the run's folder and the program ends; the same
//! command then goes on with the next case ([`super::recorder`] writes the line of the one that was stuck).

use crate::machine;
use crate::records::files;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The note that a stuck case leaves in the run's folder (`stuck.json`) for the run that goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stuck {
    /// Id of the run that was measuring.
    pub run: String,
    /// Name of the case that did not end.
    pub case: String,
    /// The limit that the case exceeded, in seconds.
    pub limit_s: f64,
}

fn note(folder: &Path) -> PathBuf {
    folder.join("stuck.json")
}

/// Reads and deletes the folder's note: the case that this run was stuck in, or `None` where there is no note or it is
/// of another run.
pub fn take(folder: &Path, run: &str) -> Option<Stuck> {
    let path = note(folder);
    let stuck: Option<Stuck> = serde_json::from_str(&files::read_text(&path).ok()?).ok();
    // One of another run says nothing any more.
    let _ = std::fs::remove_file(&path);
    stuck.filter(|stuck| stuck.run == run)
}

#[derive(Default)]
struct Watched {
    case: Option<(String, Instant)>,
    closed: bool,
}

type Shared = Arc<(Mutex<Watched>, Condvar)>;

/// Limits the time of each case by a thread of its own; dropping it ends the watch.
pub struct Watchdog(Shared);

impl Watchdog {
    /// Starts the watch: when a case takes longer than `limit`, its name is left in `folder` and the process ends with
    /// code 2.
    pub fn start(folder: PathBuf, run: String, limit: Duration) -> Self {
        Self::with(limit, move |case| {
            let stuck = Stuck { run: run.clone(), case: case.to_string(), limit_s: limit.as_secs_f64() };
            // The program ends whether the note could be written or not.
            let _ = files::write_json(&note(&folder), &stuck);
            eprintln!(
                "bubblebench: {case} did not end within {} s; the same command goes on with the next case; measured by its name, --case-limit gives it longer",
                limit.as_secs_f64()
            );
            // Nothing in an orderly exit may wait for the GPU.
            machine::leave(2);
        })
    }

    fn with(limit: Duration, bark: impl Fn(&str) + Send + 'static) -> Self {
        let shared = Shared::default();
        let theirs = Arc::clone(&shared);
        let body = move || watch(&theirs, limit, bark);
        // Without a thread nothing is watched, and nothing else is lost.
        let _ = std::thread::Builder::new().name("watchdog".into()).spawn(body);
        Watchdog(shared)
    }

    /// The time of this case begins.
    pub fn begin(&self, case: &str) {
        lock(&self.0).case = Some((case.to_string(), Instant::now()));
        self.0.1.notify_one();
    }

    /// The case that began last is over, and its time is not limited any more.
    pub fn end(&self) {
        lock(&self.0).case = None;
        self.0.1.notify_one();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        lock(&self.0).closed = true;
        self.0.1.notify_one();
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Watched> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(shared: &Shared, limit: Duration, bark: impl Fn(&str)) {
    let mut watched = lock(shared);
    while !watched.closed {
        let left = match &watched.case {
            None => Duration::from_secs(3600),
            Some((case, since)) => {
                let left = limit.saturating_sub(since.elapsed());
                if left.is_zero() {
                    let case = case.clone();
                    watched.case = None;
                    bark(&case);
                    continue;
                }
                left
            }
        };
        watched = shared.1.wait_timeout(watched, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn watchdog(limit_ms: u64) -> (Watchdog, mpsc::Receiver<String>) {
        let (tell, told) = mpsc::channel();
        let dog = Watchdog::with(Duration::from_millis(limit_ms), move |case| drop(tell.send(case.to_string())));
        (dog, told)
    }

    #[test]
    fn a_case_that_does_not_end_is_named_and_one_that_does_is_not() {
        // Long enough that no pause of this thread makes the quick one slow.
        let (dog, told) = watchdog(400);
        dog.begin("quick");
        dog.end();
        dog.begin("slow");
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), "slow");
        dog.begin("slow again");
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), "slow again");
        drop(dog);
        // Its thread has ended, and the sender with it.
        assert!(told.recv_timeout(Duration::from_secs(10)).is_err());
    }

    #[test]
    fn a_note_is_told_once_and_only_to_its_own_run() {
        let folder = tempfile::tempdir().unwrap();
        let stuck = Stuck { run: "one".into(), case: "gpt/x".into(), limit_s: 2.0 };
        assert_eq!(take(folder.path(), "one"), None);
        files::write_json(&note(folder.path()), &stuck).unwrap();
        assert_eq!(take(folder.path(), "one"), Some(stuck.clone()));
        assert_eq!(take(folder.path(), "one"), None);
        files::write_json(&note(folder.path()), &stuck).unwrap();
        assert_eq!(take(folder.path(), "two"), None);
    }
}
