//! A connection between two ranks that have met: messages out, messages in, and the certainty that the other is still
//! there.
//!
//! Both sides send a beat a few times within the deadline. A connection that closes is noticed at once, one that falls
//! silent (a stopped process, a host without power) after the deadline. Either is reported once.

use super::message::{self, Message};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A write that the other side does not take for this long is given up.
const WRITE_LIMIT: Duration = Duration::from_secs(2);
const STACK_BYTES: usize = 256 << 10;

/// What a link tells its owner.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Message(Message),
    Lost(String),
}

struct Shared {
    socket: TcpStream,
    /// Held while a message is written, so that messages are written one after another.
    writing: Mutex<()>,
    begun: Instant,
    /// When the last message came, in milliseconds since `begun`.
    heard_ms: AtomicU64,
    closed: AtomicBool,
}

pub struct Link(Arc<Shared>);

impl Link {
    /// Starts listening and beating. `report` is called from the link's own threads.
    pub fn start(
        stream: TcpStream,
        deadline: Duration,
        report: impl Fn(Heard) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        let mut reader = stream.try_clone()?;
        let shared = Arc::new(Shared {
            socket: stream,
            writing: Mutex::new(()),
            begun: Instant::now(),
            heard_ms: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let (theirs, tell) = (Arc::clone(&shared), report.clone());
        thread("link", move || theirs.listen(&mut reader, &tell))?;
        let theirs = Arc::clone(&shared);
        thread("beat", move || theirs.beat(deadline, &report))?;
        Ok(Link(shared))
    }

    pub fn send(&self, message: &Message) -> io::Result<()> {
        self.0.send(message)
    }

    /// Time since the other side was last heard.
    pub fn silence(&self) -> Duration {
        self.0.silence()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Time between two beats: short enough that a few late ones do not matter.
pub fn beat_interval(deadline: Duration) -> Duration {
    (deadline / 10).clamp(Duration::from_millis(20), Duration::from_secs(1))
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body).map(drop)
}

impl Shared {
    fn send(&self, message: &Message) -> io::Result<()> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        message::send(&mut &self.socket, message)
    }

    fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(heard)
    }

    /// Closes the connection; true for the first caller.
    fn close(&self) -> bool {
        let first = !self.closed.swap(true, Ordering::AcqRel);
        if first {
            // Frees a thread that is stuck in it. Where the other side has closed it already there is nothing to do.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
        first
    }

    fn listen(&self, reader: &mut TcpStream, report: &impl Fn(Heard)) {
        loop {
            match message::receive::<Message>(reader, message::MOST) {
                Ok(message) => {
                    self.heard_ms.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
                    if message != Message::Beat {
                        report(Heard::Message(message));
                    }
                }
                Err(error) => {
                    if self.close() {
                        report(Heard::Lost(match error.kind() {
                            io::ErrorKind::UnexpectedEof => {
                                "its connection closed, so it has ended or was killed".into()
                            }
                            _ => format!("its connection broke ({error})"),
                        }));
                    }
                    return;
                }
            }
        }
    }

    fn beat(&self, deadline: Duration, report: &impl Fn(Heard)) {
        while !self.closed.load(Ordering::Acquire) {
            // What cannot be sent shows as a closed connection or as silence.
            let _ = self.send(&Message::Beat);
            if self.silence() >= deadline {
                if self.close() {
                    report(Heard::Lost(format!(
                        "no sign of life for {:.0} s: it is stopped, or its host or network is down",
                        self.silence().as_secs_f64()
                    )));
                }
                return;
            }
            std::thread::sleep(beat_interval(deadline));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    fn link(stream: TcpStream, deadline_ms: u64) -> (Link, Receiver<Heard>) {
        let (tell, told) = channel();
        let link = Link::start(stream, Duration::from_millis(deadline_ms), move |heard| drop(tell.send(heard)));
        (link.unwrap(), told)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn messages_arrive_in_order_and_beats_are_not_told() {
        let (a, b) = pair();
        let ((a, _), (_b, heard)) = (link(a, 400), link(b, 400));
        std::thread::sleep(Duration::from_millis(600));
        for number in 0..3 {
            a.send(&Message::End { why: number.to_string() }).unwrap();
        }
        for number in 0..3 {
            let message = Message::End { why: number.to_string() };
            assert_eq!(heard.recv_timeout(LONG).unwrap(), Heard::Message(message));
        }
    }

    #[test]
    fn a_closed_connection_is_reported_once() {
        let (a, b) = pair();
        let (_a, heard) = link(a, 60_000);
        drop(b);
        assert!(
            matches!(heard.recv_timeout(LONG).unwrap(), Heard::Lost(why) if why.contains("closed") || why.contains("broke"))
        );
        assert!(heard.recv_timeout(LONG).is_err(), "both threads are gone, and nothing more was said");
    }

    #[test]
    fn silence_is_reported_after_the_deadline() {
        let (a, _silent) = pair();
        let begun = Instant::now();
        let (_a, heard) = link(a, 300);
        assert!(matches!(heard.recv_timeout(LONG).unwrap(), Heard::Lost(why) if why.contains("no sign of life")));
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }

    #[test]
    fn a_link_that_is_dropped_says_nothing_and_closes() {
        let (a, b) = pair();
        let ((a, heard), (_b, other)) = (link(a, 60_000), link(b, 60_000));
        drop(a);
        assert!(heard.recv_timeout(LONG).is_err());
        assert!(matches!(other.recv_timeout(LONG).unwrap(), Heard::Lost(_)));
    }
}
