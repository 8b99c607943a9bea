//! The one thread that serves, whoever connects: at most [`MOST_CONNECTIONS`] at a time, [`MOST_NEW`] new ones in
//! [`WINDOW`], each for [`LONGEST`] and [`http::MOST_BYTES`]. It reads and writes without waiting and sleeps in `poll`, so
//! one that is slow, silent or floods costs the others nothing, and the run a bounded share of a core that it does not
//! measure on.

use super::http::{self, Parsed, Request, Response};
use crate::machine::threads;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Connections held at a time; where one more comes, the oldest is closed.
const MOST_CONNECTIONS: usize = 16;
/// New connections in a [`WINDOW`]; more wait in the system's queue, which is bounded too.
const MOST_NEW: usize = 16;
const WINDOW: Duration = Duration::from_millis(100);
/// From its first byte to its last a connection has this long.
const LONGEST: Duration = Duration::from_secs(5);
/// Pieces that a request may come in: one that sends byte by byte wakes this thread no more often.
const MOST_READS: usize = 64;
/// Bytes that are thrown away behind a request, so that its sender reads the answer before the connection ends.
const MOST_DISCARDED: usize = 256 << 10;

/// A serving thread, which ends when this is dropped.
pub struct Server {
    /// Closing it wakes the thread.
    wake: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on a thread of its own, off the calling thread's core.
    pub fn start(listener: TcpListener, answer: impl Fn(&Request) -> Response + Send + 'static) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        let (wake, woken) = UnixStream::pair()?;
        let cores = threads::other_cores();
        let body = move || {
            // Where it cannot be moved or made to yield it shares a core, as any program on this machine may.
            let _ = threads::pin_current_thread(&cores);
            let _ = threads::set_current_nice(19);
            Service { listener, woken, answer, connections: Vec::new(), window: Instant::now(), new: 0 }.run();
        };
        let thread = thread::Builder::new().name("metrics".into()).spawn(body)?;
        Ok(Server { wake: Some(wake), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.wake.take();
        // It never waits for a client, so it ends at once.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Service<A> {
    listener: TcpListener,
    woken: UnixStream,
    answer: A,
    /// Oldest first.
    connections: Vec<Connection>,
    /// When the present window began, and how many connections came in it.
    window: Instant,
    new: usize,
}

/// What `poll` said.
struct Ready {
    stop: bool,
    listener: bool,
    connections: Vec<bool>,
}

impl<A: Fn(&Request) -> Response> Service<A> {
    fn run(mut self) {
        while let Ok(ready) = self.wait() {
            if ready.stop {
                break;
            }
            let now = Instant::now();
            let mut ready_ones = ready.connections.into_iter();
            let answer = &self.answer;
            self.connections.retain_mut(|connection| {
                let ready = ready_ones.next().unwrap_or(false);
                now < connection.ends && (!ready || connection.step(answer))
            });
            if ready.listener {
                self.accept(now);
            }
        }
    }

    /// Sleeps until something can be done.
    fn wait(&self) -> io::Result<Ready> {
        let now = Instant::now();
        let window_ends = self.window + WINDOW;
        let accepts = self.new < MOST_NEW || now >= window_ends;
        let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN)];
        fds.extend(self.connections.iter().map(|connection| PollFd::new(&connection.stream, connection.waits_for())));
        if accepts {
            fds.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        let next_end = self.connections.iter().map(|connection| connection.ends).min();
        let until = next_end.into_iter().chain((!accepts).then_some(window_ends)).min();
        // Rounded up: a deadline that has not quite come is not waited for again and again.
        let rest = until.map(|until| until.saturating_duration_since(now) + Duration::from_millis(1));
        let rest = rest.and_then(|rest| Timespec::try_from(rest).ok());
        match poll(&mut fds, rest.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let count = self.connections.len();
        Ok(Ready {
            stop: is_ready(&fds[0]),
            listener: fds.get(1 + count).is_some_and(is_ready),
            connections: fds[1..1 + count].iter().map(is_ready).collect(),
        })
    }

    /// Takes who waits, as many as the window allows.
    fn accept(&mut self, now: Instant) {
        if now >= self.window + WINDOW {
            (self.window, self.new) = (now, 0);
        }
        while self.new < MOST_NEW {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    self.new += 1;
                    if self.connections.len() == MOST_CONNECTIONS {
                        self.connections.remove(0);
                    }
                    if stream.set_nonblocking(true).is_ok() {
                        self.connections.push(Connection::new(stream, now));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // It is gone already, or this process has no descriptor left: not asked again before the next window.
                Err(_) => self.new = MOST_NEW,
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    ends: Instant,
    reads: usize,
    phase: Phase,
}

enum Phase {
    Asking(Vec<u8>),
    Answering {
        bytes: Vec<u8>,
        sent: usize,
    },
    /// The answer is out; what still comes in is thrown away, because closing before would take the answer back.
    Leaving {
        discarded: usize,
    },
}

impl Connection {
    fn new(stream: TcpStream, now: Instant) -> Connection {
        Connection { stream, ends: now + LONGEST, reads: 0, phase: Phase::Asking(Vec::new()) }
    }

    fn waits_for(&self) -> PollFlags {
        match self.phase {
            Phase::Answering { .. } => PollFlags::OUT,
            Phase::Asking(_) | Phase::Leaving { .. } => PollFlags::IN,
        }
    }

    /// Does what can be done without waiting; false: the connection is over.
    fn step(&mut self, answer: &impl Fn(&Request) -> Response) -> bool {
        loop {
            let done = match &mut self.phase {
                Phase::Asking(_) => self.read(answer),
                Phase::Answering { bytes, sent } => match self.stream.write(&bytes[*sent..]) {
                    Ok(count) => {
                        *sent += count;
                        if *sent == bytes.len() {
                            let _ = self.stream.shutdown(Shutdown::Write);
                            self.phase = Phase::Leaving { discarded: 0 };
                        }
                        Ok(count > 0)
                    }
                    Err(error) => Err(error),
                },
                Phase::Leaving { discarded } => {
                    let mut bin = [0; 16 << 10];
                    self.stream.read(&mut bin).map(|count| {
                        *discarded += count;
                        count > 0 && *discarded < MOST_DISCARDED
                    })
                }
            };
            match done {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    fn read(&mut self, answer: &impl Fn(&Request) -> Response) -> io::Result<bool> {
        let Phase::Asking(asked) = &mut self.phase else { return Ok(true) };
        let mut piece = [0; 2 << 10];
        let room = piece.len().min(http::MOST_BYTES - asked.len());
        let count = self.stream.read(&mut piece[..room])?;
        self.reads += 1;
        if count == 0 || self.reads > MOST_READS {
            return Ok(false);
        }
        asked.extend_from_slice(&piece[..count]);
        let bytes = match http::parse(asked) {
            Parsed::Partial => return Ok(true),
            Parsed::Whole(request) => answer(&request).bytes(request.head),
            Parsed::Refused(response) => response.bytes(false),
        };
        self.phase = Phase::Answering { bytes, sent: 0 };
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn server() -> (Server, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |request: &Request| Response::new(200, "text/plain", request.path.repeat(100_000));
        (Server::start(listener, answer).unwrap(), address)
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn ask(address: SocketAddr) -> String {
        let mut stream = connect(address);
        stream.write_all(b"GET /abc HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_long_answer_comes_whole_and_the_connection_ends() {
        let (_server, address) = server();
        let text = ask(address);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("/abc"), "{} bytes", text.len());
        assert_eq!(text.split("\r\n\r\n").nth(1).map(str::len), Some(400_000));
    }

    /// More silent ones than are held: each is closed, and who asks is answered meanwhile.
    #[test]
    fn silent_connections_stop_nobody() {
        let (_server, address) = server();
        let mut silent: Vec<TcpStream> = (0..3 * MOST_CONNECTIONS).map(|_| connect(address)).collect();
        for stream in &mut silent {
            stream.write_all(b"GET / HT").unwrap();
        }
        assert!(ask(address).ends_with("/abc"));
        for mut stream in silent {
            let mut rest = Vec::new();
            // Closed in order, or reset because it was not read to its end.
            let _ = stream.read_to_end(&mut rest);
            assert!(rest.is_empty());
        }
        assert!(ask(address).ends_with("/abc"));
    }

    #[test]
    fn who_never_reads_the_answer_stops_nobody() {
        let (_server, address) = server();
        let mut deaf = connect(address);
        deaf.write_all(b"GET /a-path-that-is-long-enough-for-the-answer-to-fill-every-buffer HTTP/1.1\r\n\r\n")
            .unwrap();
        assert!(ask(address).ends_with("/abc"));
    }

    #[test]
    fn the_thread_ends_with_the_server_whoever_is_connected() {
        let (server, address) = server();
        let _silent = connect(address);
        drop(server);
        assert!(TcpStream::connect(address).is_err(), "nobody listens");
    }
}
