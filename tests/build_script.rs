//! What the build scripts work out for themselves: cargo's target folder, in every way cargo lays one out, and where compiled
//! kernels are kept. Their own files, compiled once more: cargo runs no tests inside a build script.

#[path = "../build/kernels.rs"]
#[allow(dead_code)]
mod kernels;
#[path = "../build/outcome.rs"]
#[allow(dead_code)]
mod outcome;
#[path = "../build/search.rs"]
#[allow(dead_code)]
mod search;
#[path = "../build/target.rs"]
#[allow(dead_code)]
mod target;

use std::fs;
use std::path::{Path, PathBuf};

const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Of a build whose build folder is `folder`, of which cargo names `named` on the loader's path, and nothing else.
fn found(folder: &Path, profile: &str, triple: Option<&str>, named: &[PathBuf]) -> Result<PathBuf, String> {
    configured(folder, profile, triple, named, "")
}

/// The same where `cargo metadata` answers something.
fn configured(
    folder: &Path,
    profile: &str,
    triple: Option<&str>,
    named: &[PathBuf],
    metadata: &str,
) -> Result<PathBuf, String> {
    let script = folder.join(profile).join("build/softgpu-ea009c5b7cbcdefa/build-script-build");
    let below = triple.map_or(folder.to_path_buf(), |triple| folder.join(triple));
    let out = below.join(profile).join("build/softgpu-0c1a055537b9ceb8/out");
    target::find(&out, &script, named, || metadata.to_string())
}

#[test]
fn the_target_folder_is_told_by_where_things_lie_in_it() {
    let folders = ["/repo/target", "/elsewhere/cache", "/a/build/target", "/build", "/repo/target/rust-analyzer"];
    let triples = [format!("/repo/{TRIPLE}"), format!("/repo/target/{TRIPLE}")];
    for folder in folders.into_iter().chain(triples.iter().map(String::as_str)).map(Path::new) {
        for profile in ["debug", "release", "profiling", "build", "deps", TRIPLE] {
            for triple in [None, Some(TRIPLE), Some("aarch64-unknown-linux-gnu"), Some("build")] {
                let loader = [folder.join(profile), folder.join(profile).join("deps"), "/usr/lib".into()];
                for named in [&loader[..], &[]] {
                    assert_eq!(found(folder, profile, triple, named).as_deref(), Ok(folder), "{profile} {triple:?}");
                }
            }
        }
    }
}

#[test]
fn a_tag_is_not_needed_and_not_believed() {
    let above = tempfile::tempdir().unwrap();
    let above = above.path().canonicalize().unwrap();
    fs::write(above.join("CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55").unwrap();
    let folder = above.join("target");
    fs::create_dir_all(folder.join("debug/build/softgpu-0c1a055537b9ceb8/out")).unwrap();
    assert_eq!(found(&folder, "debug", None, &[]), Ok(folder));
}

#[test]
fn the_layout_to_come_is_known() {
    let folder = Path::new("/repo/target");
    for out in ["debug/build/softgpu/b6a9306b3b503398/out", "x86_64-unknown-linux-gnu/debug/build/softgpu/b6a9/out"] {
        let script = folder.join("debug/build/softgpu/dbeb92479d338423/out/build_script_build");
        assert_eq!(target::find(&folder.join(out), &script, &[], String::new).as_deref(), Ok(folder));
    }
}

#[cfg(unix)]
#[test]
fn a_target_folder_behind_a_link_is_one_folder() {
    let here = tempfile::tempdir().unwrap();
    let here = here.path().canonicalize().unwrap();
    let (disk, link) = (here.join("disk"), here.join("target"));
    let [script, out] = ["debug/build/softgpu-ea00/build-script-build", "debug/build/softgpu-0c1a/out"];
    for folder in [script, out] {
        fs::create_dir_all(disk.join(folder)).unwrap();
    }
    std::os::unix::fs::symlink(&disk, &link).unwrap();
    let loader = [link.join("debug")];
    assert_eq!(target::find(&link.join(out), &disk.join(script), &loader, String::new), Ok(disk));
}

#[test]
fn a_build_folder_apart_is_not_taken_for_the_target_folder() {
    let here = tempfile::tempdir().unwrap();
    let here = here.path().canonicalize().unwrap();
    let (target, build) = (here.join("target"), here.join("apart"));
    for profile in ["debug", "release"] {
        let loader = [target.join(profile), build.join(profile).join("deps")];
        let refused = found(&build, profile, None, &loader).unwrap_err();
        assert!(refused.contains(target.to_str().unwrap()) && refused.contains("build.build-dir"), "{refused}");
        fs::create_dir_all(target.join(profile)).unwrap();
        fs::write(target.join(profile).join(".cargo-lock"), "").unwrap();
        for triple in [None, Some(TRIPLE)] {
            assert_eq!(found(&build, profile, triple, &loader).as_ref(), Ok(&target));
        }
    }
}

#[test]
fn where_cargo_only_checks_the_configuration_tells_of_a_build_folder_apart() {
    let [target, build] = ["/repo/target", "/cache/repo"].map(Path::new);
    let loader = [build.join("debug/deps")];
    let metadata = |build: &str| {
        format!(r#"{{"packages":[],"target_directory":"/repo/target","build_directory":"{build}","version":1}}"#)
    };
    let told = |folder: &Path, text: &str| configured(folder, "debug", Some(TRIPLE), &loader, text);
    assert_eq!(told(build, &metadata("/cache/repo")).as_deref(), Ok(target));
    assert_eq!(told(target, &metadata("/repo/target")).as_deref(), Ok(target));
    // Called by a program that another cargo has started.
    let inner = ["/repo/target/debug/deps", "/other/target/debug", "/other/target/debug/deps"].map(PathBuf::from);
    assert_eq!(found(target, "debug", None, &inner).as_deref(), Ok(target));
    // Chosen on the command line, which the answer does not know.
    assert_eq!(told(Path::new("/chosen"), &metadata("/cache/repo")).as_deref(), Ok(Path::new("/chosen")));
    assert_eq!(told(target, r#"{"packages":[],"target_directory":"/repo/target"}"#).as_deref(), Ok(target));
}

#[test]
fn another_layout_is_refused_and_named() {
    let [out, script] = ["/repo/target/debug/build/softgpu-0c1a/out", "/repo/target/debug/build/softgpu-ea00/script"];
    for (out, script) in [
        (out, "/bin/build-script-build"),
        ("/sandbox/out", script),
        (out, "/repo/target/host/debug/build/softgpu-ea00/script"),
        ("/repo/target/release/build/softgpu-0c1a/out", script),
    ] {
        let refused = target::find(Path::new(out), Path::new(script), &[], String::new).unwrap_err();
        let told = [out, script, "cargo's target folder"].iter().all(|part| refused.contains(part));
        assert!(told && !refused.contains('\n'), "cargo would cut it: {refused}");
    }
}

#[test]
fn kernels_are_kept_for_all_profiles_where_the_target_folder_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    for profile in ["debug", "release"] {
        let out = folder.join(profile).join("build/bubblebench-0c1a/out");
        fs::create_dir_all(&out).unwrap();
        let store = kernels::store(found(&folder, profile, None, &[]), &out).unwrap();
        assert_eq!(store, folder.join("kernels"));
        assert!(store.is_dir());
        assert_eq!(kernels::store(Err("told by the test".into()), &out).unwrap(), out.join("kernels"));
    }
}
