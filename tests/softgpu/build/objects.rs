//! Compiles C++ files: an object is made again only where its source, a header it includes, or the command has changed,
//! because all the kernels together take minutes and a change mostly touches one.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, io, thread};

struct Job {
    source: PathBuf,
    object: PathBuf,
    command: Command,
}

/// The objects of `sources`, in their order; file names must differ.
pub fn compile(build: &cc::Build, out: &Path, sources: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let tool = build.try_get_compiler().map_err(|e| io::Error::other(e.to_string()))?;
    let folder = out.join("objects");
    fs::create_dir_all(&folder)?;
    let mut objects = Vec::new();
    let mut jobs = VecDeque::new();
    for source in sources {
        let name = source.file_name().unwrap_or_default();
        let object = folder.join(name).with_extension("o");
        let mut command = tool.to_command();
        command.args(["-c", "-MMD", "-MF"]).arg(object.with_extension("d")).arg(source).arg("-o").arg(&object);
        if !is_current(&object, &command) {
            jobs.push_back(Job { source: source.clone(), object: object.clone(), command });
        }
        objects.push(object);
    }
    run_all(jobs)?;
    Ok(objects)
}

/// The object was made by this command, and nothing it was made from is newer.
fn is_current(object: &Path, command: &Command) -> bool {
    let made = |path: &Path| fs::metadata(path).and_then(|m| m.modified());
    let Ok(at) = made(object) else { return false };
    let same = fs::read_to_string(object.with_extension("key")).is_ok_and(|key| key == format!("{command:?}"));
    let Ok(rule) = fs::read_to_string(object.with_extension("d")) else { return false };
    // `object: source header header \` over several lines.
    let inputs = rule.split_once(": ").map_or("", |(_, inputs)| inputs);
    let mut inputs = inputs.split_whitespace().filter(|input| *input != "\\");
    same && inputs.all(|input| made(Path::new(input)).is_ok_and(|input| input < at))
}

fn run_all(jobs: VecDeque<Job>) -> io::Result<()> {
    let at_once = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(2).min(jobs.len());
    let queue = Mutex::new(jobs);
    let next = || queue.lock().ok().and_then(|mut jobs| jobs.pop_front());
    let work = || -> io::Result<()> {
        while let Some(job) = next() {
            run(job)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a compiler's thread panicked")))
        })
    })
}

fn run(mut job: Job) -> io::Result<()> {
    let output = job.command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(io::Error::other(format!("{} does not compile:\n{said}", job.source.display())));
    }
    for line in said.lines().filter(|line| line.contains("warning:")) {
        println!("cargo:warning={line}");
    }
    fs::write(job.object.with_extension("key"), format!("{:?}", job.command))
}
