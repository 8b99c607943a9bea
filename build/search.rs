//! Where compilers, headers and libclang may be: variables first, then PATH, the usual folder, the active Python's packages,
//! and last what `.ci/cuda-toolchain` installs.

use std::cell::{OnceCell, RefCell};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Remembers what decided the search, so that cargo runs it again when that changes, and only then.
pub struct Search {
    packages: OnceCell<Vec<PathBuf>>,
    variables: RefCell<Vec<&'static str>>,
    files: RefCell<Vec<PathBuf>>,
    said: RefCell<HashSet<PathBuf>>,
}

impl Search {
    pub fn new() -> Self {
        Search {
            packages: OnceCell::new(),
            variables: RefCell::default(),
            files: RefCell::default(),
            said: RefCell::default(),
        }
    }

    pub fn variable(&self, name: &'static str) -> Option<PathBuf> {
        self.variables.borrow_mut().push(name);
        env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The first of the candidates that is a file; cargo watches it from now on.
    pub fn first_file(&self, candidates: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
        let found = candidates.into_iter().find(|path| path.is_file())?;
        self.files.borrow_mut().push(found.clone());
        Some(found)
    }

    /// What a variable names, or what lies at `inside` below it. A variable that is set and names nothing is said: what is
    /// found elsewhere instead is not what was asked for.
    fn named(&self, variable: &'static str, inside: &str) -> Option<PathBuf> {
        let value = self.variable(variable)?;
        let path = if inside.is_empty() { value } else { value.join(inside) };
        // A bare name is one that a shell would look for: `NVCC=nvcc-13`.
        let bare = inside.is_empty() && path.components().count() == 1;
        let on_path = if bare { self.on_path(&path) } else { Vec::new() };
        let found = self.first_file([path.clone()].into_iter().chain(on_path));
        if found.is_none() && self.said.borrow_mut().insert(path.clone()) {
            println!("cargo:warning={variable} is set, and {} is no file: it is sought elsewhere", path.display());
        }
        found
    }

    /// Where a program of this name may lie in PATH's folders.
    fn on_path(&self, exe: &Path) -> Vec<PathBuf> {
        let path = self.variable("PATH").unwrap_or_default();
        env::split_paths(&path).map(|folder| folder.join(exe)).collect()
    }

    /// `nvcc`: NVCC, CUDA_HOME, CUDA_PATH, PATH, /usr/local/cuda, the active Python's nvidia/cu13.
    pub fn nvcc(&self) -> Option<PathBuf> {
        let exe = format!("nvcc{}", env::consts::EXE_SUFFIX);
        let inside = format!("bin/{exe}");
        let named = [("NVCC", ""), ("CUDA_HOME", &inside), ("CUDA_PATH", &inside)];
        if let Some(found) = named.into_iter().find_map(|(variable, inside)| self.named(variable, inside)) {
            return Some(found);
        }
        let on_path = self.on_path(Path::new(&exe));
        let usual = PathBuf::from("/usr/local/cuda/bin").join(&exe);
        self.first_file(on_path.into_iter().chain([usual]))
            .or_else(|| self.first_file(self.packages().iter().map(|site| site.join("nvidia/cu13/bin").join(&exe))))
    }

    /// The folder of a header: under the given homes, then the toolkit, the Python packages, the system.
    pub fn include(&self, header: &str, home: &'static str, toolkit: Option<&Path>, package: &str) -> Option<PathBuf> {
        let toolkit = toolkit.map(|root| root.join("include"));
        let system = ["/usr/local/cuda/include", "/usr/include", "/usr/local/include"].map(PathBuf::from);
        self.named(home, &format!("include/{header}"))
            .or_else(|| self.first_file(toolkit.into_iter().chain(system).map(|folder| folder.join(header))))
            .or_else(|| {
                let inside = self.packages().iter().map(|site| site.join("nvidia").join(package).join("include"));
                self.first_file(inside.map(|folder| folder.join(header)))
            })
            .and_then(|file| file.parent().map(Path::to_path_buf))
    }

    /// libclang from the active Python's packages, for when LIBCLANG_PATH is not set.
    pub fn libclang(&self) -> Option<PathBuf> {
        self.variable("LIBCLANG_PATH").or_else(|| {
            let inside = self.packages().iter().map(|site| site.join("clang/native"));
            inside.into_iter().find(|folder| folder.join(format!("libclang{}", env::consts::DLL_SUFFIX)).is_file())
        })
    }

    /// Site-packages: the active Python's, then the toolchain's; asked once, and only when nothing nearer was found.
    fn packages(&self) -> &[PathBuf] {
        self.packages.get_or_init(|| {
            let python = match self.variable("VIRTUAL_ENV") {
                Some(venv) => venv.join("bin/python3"),
                None => PathBuf::from("python3"),
            };
            let script = "import sys; print('\\n'.join(p for p in sys.path if p.endswith('-packages')))";
            let output = Command::new(&python).args(["-c", script]).output();
            // Without any Python there are no packages. An environment that is active and has none is odd.
            if output.is_err() && python.is_absolute() {
                println!("cargo:warning=VIRTUAL_ENV is set, and {} does not start", python.display());
            }
            let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            text.lines().map(PathBuf::from).chain(self.toolchain()).collect()
        })
    }

    /// The packages of the toolchain that `.ci/cuda-toolchain` installs, in the place where it does. Once it has, the
    /// script touches build.rs: cargo cannot watch what is not there yet.
    fn toolchain(&self) -> Vec<PathBuf> {
        let venv = self.variable("CUDA_VENV").unwrap_or_else(|| PathBuf::from("target/cuda-venv"));
        let folders = fs::read_dir(venv.join("lib")).into_iter().flatten().flatten();
        let sites = folders.map(|folder| folder.path().join("site-packages"));
        // A relative compiler would be sought elsewhere by whoever runs it elsewhere.
        sites.filter(|site| site.is_dir()).filter_map(|site| site.canonicalize().ok()).collect()
    }

    pub fn tell_cargo(&self) {
        for name in self.variables.borrow().iter() {
            println!("cargo:rerun-if-env-changed={name}");
        }
        for file in self.files.borrow().iter() {
            println!("cargo:rerun-if-changed={}", file.display());
        }
    }
}
