//! Bad files: a sentence that names the file and says what to do.

use crate::planted::plant;
use crate::recording::{ALL_REDUCE, Recording};
use crate::{options, read};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The sentence for a file of this content.
fn answer(folder: &Path, name: &str, content: &[u8]) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    refused(&path)
}

fn refused(path: &PathBuf) -> String {
    let sentence = read(&[path], &options()).unwrap_err().to_string();
    assert!(sentence.contains(&path.display().to_string()), "{sentence}");
    assert!(!sentence.contains('\n') && sentence.contains("; ") && sentence.len() < 500, "{sentence}");
    sentence
}

#[track_caller]
fn says(sentence: &str, what: &str) {
    assert!(sentence.contains(what), "`{sentence}` does not say `{what}`");
}

#[test]
fn files_that_are_no_profiles() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    says(&answer(f, "empty.json", b""), "is empty");
    says(&answer(f, "spaces.json", b"  \n "), "neither");
    says(&answer(f, "random.sqlite", &[7; 4096]), "neither an nsys .sqlite export nor");
    says(&answer(f, "text.json", b"not json"), "neither");
    says(&answer(f, "report.nsys-rep", b"\x01\x02\x03"), "nsys export --type sqlite");
    says(&answer(f, "short.sqlite", b"SQLite format 3\0garbage"), "SQLite");
    says(&answer(f, "other.json", br#"{"a": [1, 2, {"b": null}]}"#), "no GPU kernels");
    says(&answer(f, "number.json", b"[1]"), "an event is no object");
    says(&refused(&f.join("nowhere.sqlite")), "cannot read");
    says(&refused(&f.to_path_buf()), "cannot read");
    let other = rusqlite::Connection::open(f.join("other.sqlite")).unwrap();
    other.execute_batch("CREATE TABLE a (b)").unwrap();
    says(&refused(&f.join("other.sqlite")), "no nsys export");
}

#[test]
fn profiles_without_what_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (run, _) = plant(2, 2);
    let without = |name: &str, sql: &'static str| refused(&run.nsys_with(f, name, |db| db.execute_batch(sql).unwrap()));
    says(&without("a.sqlite", "DROP TABLE CUPTI_ACTIVITY_KIND_KERNEL"), "no GPU kernels");
    says(&without("b.sqlite", "DELETE FROM CUPTI_ACTIVITY_KIND_KERNEL"), "no GPU kernels");
    says(&without("c.sqlite", "DROP TABLE StringIds"), "without names");
    says(&without("d.sqlite", "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN end"), "no column end");
    let view = "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL RENAME TO k;
        CREATE VIEW CUPTI_ACTIVITY_KIND_KERNEL AS SELECT * FROM k";
    says(&without("e.sqlite", view), "no GPU kernels");
    says(&answer(f, "nogpu.json", br#"{"traceEvents": []}"#), "no GPU kernels");
    let mut only = Recording::default();
    only.kernel(10, 20, 7, ALL_REDUCE);
    says(&refused(&only.nsys(f, "only.sqlite")), "no compute kernel");
    says(&refused(&only.kineto(f, "only.json")), "no compute kernel");
    let mut outside = Recording::default();
    outside.kernel(1_000, 2_000, 7, "gemm");
    outside.range(5_000, 6_000, "iteration 0");
    says(&refused(&outside.nsys(f, "outside.sqlite")), "no compute kernel within an iteration");
}

#[test]
fn clocks_that_go_backwards() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (run, _) = plant(3, 2);
    let change = |name: &str, sql: &'static str| refused(&run.nsys_with(f, name, |db| db.execute_batch(sql).unwrap()));
    let end = "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET end = start - 1 WHERE rowid = 5";
    says(&change("a.sqlite", end), "row 5 of CUPTI_ACTIVITY_KIND_KERNEL ends before it starts");
    let start = "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = -7 WHERE rowid = 5";
    says(&change("b.sqlite", start), "before the start of the session");
    let text = "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET start = 'soon' WHERE rowid = 5";
    says(&change("c.sqlite", text), "no whole number");
    let event = |ts: &str, dur: &str| {
        format!(r#"{{"traceEvents":[{{"ph":"X","cat":"kernel","name":"k","pid":0,"tid":7,"ts":{ts},"dur":{dur}}}]}}"#)
    };
    says(&answer(f, "a.json", event("5", "-1").as_bytes()), "`k` at byte 16 has a negative duration");
    says(&answer(f, "b.json", event("-5", "1").as_bytes()), "before time zero");
    says(&answer(f, "c.json", event("9e17", "9e17").as_bytes()), "beyond the end of time");
    says(&answer(f, "d.json", event("1.2.3", "1").as_bytes()), "a time is no number");
}

#[test]
fn files_that_are_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let (run, _) = plant(4, 2);
    let json = run.json();
    says(&answer(f, "a.json", &json.as_bytes()[..json.len() / 2]), "is cut off after");
    says(&answer(f, "b.json", &json.as_bytes()[..json.len() - 3]), "is cut off after");
    let gz = fs::read(run.kineto(f, "c.json.gz")).unwrap();
    says(&answer(f, "c.json.gz", &gz[..gz.len() / 2]), "cut off within its gzip data");
    let mut broken = gz.clone();
    let middle = gz.len() / 2;
    broken[middle..middle + 64].fill(0xff);
    says(&answer(f, "d.json.gz", &broken), "d.json.gz");
    let sqlite = fs::read(run.nsys(f, "right.sqlite")).unwrap();
    says(&answer(f, "e.sqlite", &sqlite[..sqlite.len() / 2]), "cannot be read as an nsys export");
    says(&answer(f, "f.json", format!("{json}{json}").as_bytes()), "something follows the end");
}

/// An annotation that cuts nothing may say what it likes of its times.
#[test]
fn times_of_ranges_matter_only_where_they_cut() {
    let folder = tempfile::tempdir().unwrap();
    let with = |name: &str| {
        let annotation = format!(r#"{{"ph":"X","cat":"user_annotation","name":"{name}","pid":0,"ts":1,"dur":-1}}"#);
        let kernel = r#"{"ph":"X","cat":"kernel","name":"k","pid":0,"tid":7,"ts":5,"dur":2.5}"#;
        format!("[{annotation},{kernel}]")
    };
    let path = folder.path().join("a.json");
    fs::write(&path, with("load weights")).unwrap();
    assert_eq!(read(&[&path], &options()).unwrap().record.devices[0].compute_ns, 2500);
    says(&answer(folder.path(), "b.json", with("iteration 1").as_bytes()), "has a negative duration");
}

/// Chrome allows a bare list, and that it is not closed.
#[test]
fn a_bare_list_needs_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let event = r#"{"ph":"X","cat":"kernel","name":"k","pid":0,"tid":7,"ts":5,"dur":2.5}"#;
    for text in [format!("[{event}]"), format!("[{event}"), format!("[\n{event},\n"), format!(" [ {event} ] ")] {
        let path = folder.path().join("a.json");
        fs::write(&path, &text).unwrap();
        assert_eq!(read(&[&path], &options()).unwrap().record.devices[0].compute_ns, 2500, "{text}");
    }
    says(&answer(folder.path(), "b.json", format!("[{event} {event}]").as_bytes()), "a comma");
    says(&answer(folder.path(), "c.json", format!("[{event}] 5").as_bytes()), "something follows");
}

/// Strings without end, in the fields that are read and in those that are not.
#[test]
fn endless_strings_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let f = folder.path();
    let write = |name: &str, before: &str, after: &str| {
        let path = f.join(name);
        let mut file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
        file.write_all(before.as_bytes()).unwrap();
        let block = [b'x'; 1 << 20];
        (0..50).for_each(|_| file.write_all(&block).unwrap());
        file.write_all(after.as_bytes()).unwrap();
        file.into_inner().unwrap();
        path
    };
    let name = write("a.json", r#"{"traceEvents":[{"ph":"X","cat":"kernel","name":""#, r#"","ts":1,"dur":1}]}"#);
    says(&refused(&name), "a name of over");
    let key = write("b.json", r#"{"traceEvents":[{"ph":"X","cat":"kernel","name":"k","ts":1,"dur":1,""#, r#"":1}]}"#);
    assert_eq!(read(&[&key], &options()).unwrap().record.devices[0].compute_ns, 1000);
    let other =
        write("c.json", r#"{"x":""#, r#"","traceEvents":[{"ph":"X","cat":"kernel","name":"k","ts":1,"dur":1}]}"#);
    assert_eq!(read(&[&other], &options()).unwrap().record.devices[0].compute_ns, 1000);
    says(&refused(&write("d.json", r#"{"traceEvents":[{"ts":1"#, "")), "a comma");
    let deep = format!("{{\"a\":{}", "[".repeat(1 << 20));
    says(&answer(f, "e.json", deep.as_bytes()), "lists within lists");
    let (run, _) = plant(4, 2);
    let long = "UPDATE StringIds SET value = printf('%.*c', 40000000, 'x') WHERE value = 'gelu'";
    let file = run.nsys_with(f, "f.sqlite", |db| db.execute_batch(long).unwrap());
    says(&refused(&file), "a text of over");
}
