//! nvcc: each `cuda/*.cu` becomes one fat binary for all architectures; what ptxas says of each kernel becomes facts.

use crate::outcome::{Fact, Kernels, Module, Skip};
use crate::search::Search;
use crate::target;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{fs, io};

/// Real architectures; those that the compiler does not know are left out. Newer GPUs compile the PTX when it is loaded.
const ARCHITECTURES: [(&str, &str); 4] =
    [("compute_80", "sm_80"), ("compute_86", "sm_86"), ("compute_90a", "sm_90a"), ("compute_100", "sm_100")];
const PTX: &str = "compute_80";
/// Compilers at once: each takes a core and a gigabyte.
const AT_ONCE: usize = 2;

pub fn build(search: &Search, out: &Path) -> io::Result<Kernels> {
    let Some(nvcc) = search.nvcc() else {
        return Ok(Kernels::skipped(Skip::new(
            "no nvcc in NVCC, CUDA_HOME, PATH, /usr/local/cuda or the active Python's packages",
        )));
    };
    let compiler = match Compiler::ask(&nvcc) {
        Ok(compiler) => compiler,
        Err(reason) => {
            println!("cargo:warning=no CUDA kernels: {reason}");
            return Ok(Kernels::skipped(Skip::new(reason)));
        }
    };
    let sources = sources(Path::new("cuda"))?;
    let store = store(target::folder(out), out)?;
    let outcomes = compile_all(&compiler, &sources, &store);
    let mut kernels = Kernels { toolkit: Some((compiler.version.clone(), nvcc)), ..Kernels::default() };
    for (source, outcome) in sources.iter().zip(outcomes) {
        match outcome {
            Ok((module, facts)) => {
                warn_of_spills(&facts);
                kernels.modules.push(module);
                kernels.facts.extend(facts);
            }
            Err(reason) => {
                let reason = format!("{} does not compile: {reason}", source.display());
                println!("cargo:warning={reason}");
                kernels.skip.get_or_insert(Skip::new(reason));
            }
        }
    }
    Ok(kernels)
}

/// Where compiled kernels are kept for all profiles: they take minutes, and the profile changes nothing in them. Beside the
/// profiles' folders, in the target folder; beside this profile's other files where nobody can tell which that is.
pub fn store(target: Result<PathBuf, String>, out: &Path) -> io::Result<PathBuf> {
    let folder = target.unwrap_or_else(|reason| {
        println!("cargo:warning={reason}; until then every profile compiles the CUDA kernels for itself");
        out.to_path_buf()
    });
    let store = folder.join("kernels");
    fs::create_dir_all(&store)?;
    Ok(store)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "cu"));
    files.sort();
    Ok(files)
}

struct Compiler {
    nvcc: PathBuf,
    version: String,
    flags: Vec<String>,
}

impl Compiler {
    fn ask(nvcc: &Path) -> Result<Self, String> {
        let run = |argument: &str| -> Result<String, String> {
            let output = Command::new(nvcc).arg(argument).output();
            let output = output.map_err(|e| format!("{} does not start: {e}", nvcc.display()))?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let version = run("--version")?;
        let version = version.split("release ").nth(1).and_then(|rest| rest.split(',').next());
        let version = version.ok_or_else(|| format!("{} does not tell its version", nvcc.display()))?.to_string();
        let known = run("--list-gpu-arch")?;
        let knows = |arch: &str| known.split_whitespace().any(|k| k == arch.trim_end_matches('a'));
        let mut flags: Vec<String> =
            ["-fatbin", "-O3", "-std=c++17", "-lineinfo", "-Xptxas", "-v"].map(String::from).to_vec();
        if version.split('.').next().and_then(|major| major.parse::<u32>().ok()) >= Some(13) {
            flags.push("--compress-mode=size".to_string());
        }
        for (virtual_arch, real) in ARCHITECTURES {
            if knows(virtual_arch) {
                flags.extend(["-gencode".to_string(), format!("arch={virtual_arch},code={real}")]);
            } else {
                println!(
                    "cargo:warning=nvcc {version} knows no {real}: such GPUs compile {PTX}'s kernels when they are loaded"
                );
            }
        }
        flags.extend(["-gencode".to_string(), format!("arch={PTX},code={PTX}")]);
        Ok(Compiler { nvcc: nvcc.to_path_buf(), version, flags })
    }

    /// Compiles unless the same source, headers, compiler and flags gave a file before, in whichever profile.
    fn compile(&self, source: &Path, store: &Path) -> Result<(Module, Vec<Fact>), String> {
        let name = source.file_stem().and_then(|s| s.to_str()).unwrap_or_default().to_string();
        let wanted = self.key(source).map_err(|e| e.to_string())?;
        let stem = store.join(format!("{name}-{:016x}", hash(&wanted)));
        let [image, log, key] = ["fatbin", "log", "key"].map(|extension| stem.with_extension(extension));
        let old = fs::read_to_string(&key).is_ok_and(|key| key == wanted) && image.is_file();
        let text = match fs::read_to_string(&log) {
            Ok(text) if old => text,
            _ => {
                // Beside its place, then renamed: another profile's build may do the same now.
                let part = stem.with_extension(format!("{}.part", std::process::id()));
                let text = self.run(source, &part)?;
                let kept = fs::rename(&part, &image).and_then(|()| fs::write(&log, &text));
                kept.and_then(|()| fs::write(&key, wanted)).map_err(|e| e.to_string())?;
                text
            }
        };
        let file = source.file_name().and_then(|f| f.to_str()).unwrap_or_default().to_string();
        let facts = parse(&text, &file);
        Ok((Module { name, file, image }, facts))
    }

    fn run(&self, source: &Path, image: &Path) -> Result<String, String> {
        let output = Command::new(&self.nvcc).args(&self.flags).arg(source).arg("-o").arg(image).output();
        let output = output.map_err(|e| format!("nvcc does not start: {e}"))?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() {
            return Ok(text);
        }
        let line = text.lines().find(|l| l.contains("error")).or(text.lines().next()).unwrap_or("no message");
        Err(line.trim().to_string())
    }

    fn key(&self, source: &Path) -> io::Result<String> {
        let mut parts = vec![self.version.clone(), self.flags.join(" ")];
        let mut headers = fs::read_dir("cuda")?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<PathBuf>>>()?;
        headers.retain(|path| path.extension().is_some_and(|e| e == "cuh"));
        headers.sort();
        for file in headers.iter().map(PathBuf::as_path).chain([source]) {
            parts.push(fs::read_to_string(file)?);
        }
        Ok(parts.join("\n"))
    }
}

fn compile_all(compiler: &Compiler, sources: &[PathBuf], store: &Path) -> Vec<Result<(Module, Vec<Fact>), String>> {
    let queue = Mutex::new(sources.iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().map(|mut q| q.next());
                    let Ok(Some((index, source))) = next else { return };
                    let outcome = compiler.compile(source, store);
                    if let Ok(mut done) = done.lock() {
                        done.push((index, outcome));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Three lines a kernel and architecture: its name, its spills, its registers and shared memory.
fn parse(text: &str, file: &str) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            let mut quoted = rest.split('\'');
            let (name, arch) = (quoted.next(), quoted.nth(1));
            let text = |part: Option<&str>| part.unwrap_or_default().to_string();
            facts.push(Fact { name: text(name), file: file.to_string(), arch: text(arch), ..Fact::default() });
        } else if let Some(fact) = facts.last_mut() {
            if line.contains("bytes spill stores") {
                // Local memory of other causes (an array indexed at run time) is no better.
                let spilled = before(line, " bytes spill stores") + before(line, " bytes spill loads");
                fact.spill_bytes = spilled.max(before(line, " bytes stack frame"));
            } else if line.contains("Used ") {
                fact.registers = before(line, " registers");
                fact.shared_bytes = before(line, " bytes smem");
            }
        }
    }
    facts
}

/// The number that stands before `what`, 0 where it does not.
fn before(line: &str, what: &str) -> u32 {
    let digits = line.split(what).next().filter(|head| head.len() < line.len()).unwrap_or_default();
    let start = digits.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    digits[start..].parse().unwrap_or(0)
}

fn warn_of_spills(facts: &[Fact]) {
    let spills: Vec<String> = facts
        .iter()
        .filter(|f| f.spill_bytes > 0)
        .map(|f| format!("{} {} {} bytes", f.name, f.arch, f.spill_bytes))
        .collect();
    if !spills.is_empty() {
        println!("cargo:warning=registers spill to local memory: {}", spills.join(", "));
    }
}
