//! bindgen: the NCCL header becomes bindings whose functions are looked up in the library when the program runs, so that
//! one binary runs with any NCCL, or none.
//!
//! bindgen panics where libclang is missing or unfit, and no library can undo that. So this build script calls itself
//! with a request in its environment: the child loads libclang and generates; whatever ends it is a reason to skip.

use crate::outcome::Skip;
use crate::search::Search;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

const REQUEST: &str = "BUBBLEBENCH_BINDGEN_REQUEST";

/// What the child is to do, in arguments clang takes.
pub struct Request {
    header: PathBuf,
    bindings: PathBuf,
    includes: Vec<String>,
}

/// Set in the child only.
pub fn child_request() -> Option<Request> {
    let text = env::var(REQUEST).ok()?;
    let mut lines = text.lines();
    let (header, bindings) = (lines.next()?.into(), lines.next()?.into());
    Some(Request { header, bindings, includes: lines.map(String::from).collect() })
}

/// Without a header there are no bindings, and `doctor` says so. A header that cannot be read is said at once.
pub fn build(search: &Search, out: &Path) -> Result<(), Skip> {
    let toolkit = search.nvcc().and_then(|nvcc| Some(nvcc.parent()?.parent()?.to_path_buf()));
    let nccl = search.include("nccl.h", "NCCL_HOME", toolkit.as_deref(), "nccl");
    let nccl = nccl.ok_or_else(|| {
        Skip::new("no nccl.h in NCCL_HOME, the toolkit, the active Python's packages or /usr/include")
    })?;
    let cuda = search.include("cuda_runtime.h", "CUDA_HOME", toolkit.as_deref(), "cu13");
    let cuda = cuda.ok_or_else(|| {
        warned(Skip::with("nccl.h needs cuda_runtime.h, which is not there", crate::outcome::TOOLKIT_INSTALL))
    })?;
    let mut request = vec![nccl.join("nccl.h").display().to_string(), out.join("nccl.rs").display().to_string()];
    request.extend([&nccl, &cuda].map(|folder| format!("-I{}", folder.display())));
    request.extend(compiler_headers().map(|folder| format!("-I{folder}")));
    run_child(&request.join("\n"), search.libclang()).map_err(warned)
}

fn warned(skip: Skip) -> Skip {
    println!("cargo:warning=no NCCL bindings: {}", skip.reason());
    skip
}

/// libclang from PyPI comes without the compiler's own headers (stddef.h): the system compiler's serve.
fn compiler_headers() -> Option<String> {
    let compiler = cc::Build::new().try_get_compiler().ok()?;
    let output = Command::new(compiler.path()).arg("-print-file-name=include").output().ok()?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_string();
    Path::new(&folder).is_absolute().then_some(folder)
}

fn run_child(request: &str, libclang: Option<PathBuf>) -> Result<(), Skip> {
    let failed = |why: String| Skip::new(format!("bindgen cannot read nccl.h: {why}"));
    let program = env::current_exe().map_err(|e| failed(e.to_string()))?;
    let mut child = Command::new(program);
    child.env(REQUEST, request);
    if let Some(folder) = libclang {
        child.env("LIBCLANG_PATH", folder);
    }
    let output = child.output().map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("libclang") {
        return Err(Skip::with(
            "libclang is missing, which bindgen reads nccl.h with",
            crate::outcome::LIBCLANG_INSTALL,
        ));
    }
    let line = text.lines().find(|l| l.contains("error")).or(text.lines().next()).unwrap_or("no message");
    Err(failed(line.trim().to_string()))
}

/// In the child.
pub fn generate(request: &Request) -> io::Result<()> {
    bindgen::Builder::default()
        .header(request.header.display().to_string())
        .clang_args(&request.includes)
        .allowlist_function("p?nccl.*")
        .blocklist_function("pnccl.*")
        .allowlist_type("nccl.*")
        .allowlist_var("NCCL_.*")
        .dynamic_library_name("Library")
        // A function the loaded library lacks is an error of the call that needs it, not of loading.
        .dynamic_link_require_all(false)
        .default_enum_style(bindgen::EnumVariation::NewType { is_bitfield: false, is_global: false })
        .layout_tests(false)
        .generate_comments(false)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .wrap_unsafe_ops(true)
        .generate()
        .map_err(|e| io::Error::other(format!("error: {e}")))?
        .write_to_file(&request.bindings)
}
