//! `measure --metrics`: a real run is scraped while it lasts, by clients that mean well and by others. No test asserts a
//! timing.
#![cfg(target_os = "linux")]

#[path = "metrics/page.rs"]
mod page;

use bubblebench::monitor::metrics::{self, MetricKind};
use bubblebench::records::store::Journal;
use page::{Page, parse};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

fn program(folder: &Path, filter: &str, address: &str) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("bubblebench"));
    command.env_clear().env("LC_ALL", "C.UTF-8").current_dir(folder);
    command.args(["measure", "all", filter, "--device", "host", "--preset", "quick", "--results", "out"]);
    command.args(["--metrics", address]);
    command
}

/// A run that is being measured; it ends with this.
struct Run {
    child: Child,
    stderr: BufReader<ChildStderr>,
    note: String,
    address: SocketAddr,
    folder: TempDir,
}

impl Run {
    fn start(filter: &str, address: &str) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program(folder.path(), filter, address);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut note = String::new();
        stderr.read_line(&mut note).unwrap();
        let url = note.split("http://").nth(1).unwrap_or_else(|| panic!("no address in {note:?}"));
        let address: SocketAddr = url.split("/metrics").next().unwrap().parse().unwrap();
        Run { child, stderr, note, address: ([127, 0, 0, 1], address.port()).into(), folder }
    }

    /// An answer as it came; `None` where the run is over. Before it is measured, who connects waits.
    fn send(&self, request: &[u8]) -> Option<String> {
        let mut stream = connect(self.address)?;
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok().filter(|_| !answer.is_empty())?;
        Some(String::from_utf8(answer).unwrap())
    }

    fn scrape(&self) -> Option<Page> {
        let answer = self.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        Some(parse(body))
    }

    fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn finish(mut self) -> TempDir {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}{rest}", self.note);
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    Some(stream)
}

#[test]
fn a_run_is_served_while_it_lasts() {
    let mut run = Run::start("/send_recv/", "127.0.0.1:0");
    assert!(
        run.note.starts_with("note: metrics at http://127.0.0.1:") && !run.note.contains("everybody"),
        "{}",
        run.note
    );
    let mut pages: Vec<Page> = Vec::new();
    while !run.is_over() {
        pages.extend(run.scrape());
        std::thread::sleep(Duration::from_millis(20));
    }
    let folder = run.finish();
    assert!(pages.len() > 3, "{} pages", pages.len());
    let journal = Journal::read(&folder.path().join("out")).unwrap();
    let ids: Vec<&str> = journal.measurements.iter().map(|line| line.id.as_str()).collect();
    for page in &pages {
        sane(page, &ids);
    }
    for pair in pages.windows(2) {
        only_grows(&pair[0], &pair[1]);
    }
    let (first, last) = (&pages[0], &pages[pages.len() - 1]);
    assert!(last.value("bubblebench_case_visits_total") > first.value("bubblebench_case_visits_total"));
    assert_eq!(last.value("bubblebench_visit"), last.value("bubblebench_visits_planned"));
}

fn sane(page: &Page, ids: &[&str]) {
    let total = |name: &str| page.all(name).map(|(_, value)| value).sum::<f64>();
    let planned = page.value("bubblebench_cases_planned");
    assert_eq!(planned, ids.len() as f64);
    assert!(total("bubblebench_cases") <= planned);
    assert!(page.value("bubblebench_case_visits_total") <= page.value("bubblebench_case_visits_planned"));
    assert!(page.value("bubblebench_visit") >= 1.0);
    assert!(page.value("bubblebench_visit") <= page.value("bubblebench_visits_planned"));
    for (name, labels, value) in page.samples() {
        let metric = metrics::ALL.iter().find(|metric| metric.name == page.family(name)).unwrap();
        assert_eq!(labels.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>(), metric.labels, "{name}");
        assert!(value >= 0.0, "{name} {value}");
        assert!(metric.kind != MetricKind::Info || value == 1.0, "{name} {value}");
    }
    let (labels, _) = page.all("bubblebench_run_info").next().unwrap();
    assert!(labels.contains(&("preset".into(), "quick".into())) && labels.contains(&("device".into(), "host".into())));
    for (labels, _) in page.all("bubblebench_current_case_info") {
        assert!(ids.contains(&labels[0].1.as_str()), "{labels:?}");
    }
    let closings = page.value("bubblebench_gate_closings_total");
    assert!(page.value("bubblebench_gate_openings_total") + 1.0 >= closings);
}

fn only_grows(before: &Page, after: &Page) {
    for (name, labels, value) in before.samples().filter(|(name, ..)| before.kind(name) == "counter") {
        let later = after.samples().find(|(other, of, _)| *other == name && *of == labels);
        assert!(later.is_some_and(|(_, _, later)| later >= value), "{name} {labels:?} {value} {later:?}");
    }
}

/// Sockets that the run's process has open.
fn sockets(run: &Run) -> usize {
    let folder = fs::read_dir(format!("/proc/{}/fd", run.child.id())).unwrap();
    let links = folder.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn hostile_clients_stop_nothing() {
    // Cases that last longer than all of the clients together.
    let run = Run::start("gpt/", "0");
    assert!(run.scrape().is_some(), "it is served");
    let quiet = sockets(&run);
    // Neither the silent ones nor those that send a byte now and then are waited for.
    let mut slow: Vec<TcpStream> = (0..100).filter_map(|_| connect(run.address)).collect();
    let mut deaf = connect(run.address).unwrap();
    deaf.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    for stream in &mut slow {
        let _ = stream.write_all(b"G");
    }
    assert!(run.scrape().is_some(), "beside the silent ones");
    assert!(sockets(&run) <= quiet + 16, "{} sockets, {quiet} before", sockets(&run));

    let headers = format!("GET /metrics HTTP/1.1\r\n{}", "X-A: b\r\n".repeat(1 << 17));
    if let Some(answer) = run.send(headers.as_bytes()) {
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    for (request, status) in [
        (b"\x16\x03\x01\x02\x00\x01\x00\xfc\x03\x03".as_slice(), "400"),
        (b"\0\xff\0\xff", "400"),
        (b"GET\r\n\r\n", "400"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd", "405"),
        (b"DELETE / HTTP/1.1\r\n\r\n", "405"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", "404"),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", "404"),
    ] {
        let answer = run.send(request).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
    for _ in 0..300 {
        drop(TcpStream::connect(run.address));
    }
    assert!(run.scrape().is_some(), "after all of them");
    assert!(sockets(&run) <= quiet + 16);
    drop(slow);
    run.finish();
}

#[test]
fn the_answer_is_what_is_asked_for() {
    let run = Run::start("fill/gate/open", "localhost:0");
    let open =
        run.send(b"GET /metrics?x=1 HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0\r\n\r\n").unwrap();
    assert!(
        open.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{open}"
    );
    assert!(open.ends_with("\n# EOF\n") && open.contains("# TYPE bubblebench_run info\n"), "{open}");
    let front = run.send(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(front.contains("Content-Type: text/html") && front.contains("<a href=\"/metrics\">"), "{front}");
    let head = run.send(b"HEAD / HTTP/1.1\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn who_else_can_read_it_is_said_and_the_gate_is_counted() {
    let run = Run::start("fill/gate/open", "0.0.0.0:0");
    assert!(run.note.trim_end().ends_with("/metrics; everybody in the network can read them"), "{}", run.note);
    // The gate is at work from the first calibration on.
    loop {
        let page = run.scrape().expect("the run has opened no gate");
        let [openings, operations] =
            ["openings", "side_operations"].map(|what| page.value(&format!("bubblebench_gate_{what}_total")));
        if openings > 0.0 && operations > 0.0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn bad_addresses_end_before_anything_is_measured() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    for (address, said) in [
        ("nowhere", "is no address to listen on; give a port (9464)"),
        ("127.0.0.1", "is no address to listen on"),
        ("70000", "is no address to listen on"),
        (taken.as_str(), "choose another port"),
        ("192.0.2.1:9464", "no interface of this machine has that address"),
    ] {
        let output = program(folder.path(), "fill/gate/open", address).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{address}: {stderr}");
        assert!(
            stderr.lines().count() == 1 && stderr.contains(address) && stderr.contains(said),
            "{address}: {stderr}"
        );
        assert!(output.stdout.is_empty() && !folder.path().join("out").exists(), "{address}");
    }
    // A list serves nothing, so it does not matter who listens there.
    let listed = program(folder.path(), "fill/gate/open", &taken).arg("--list").output().unwrap();
    assert!(listed.status.success() && listed.stderr.is_empty(), "{}", String::from_utf8_lossy(&listed.stderr));
}
