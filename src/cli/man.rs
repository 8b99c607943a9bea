//! `bubblebench man`: the manual pages, of the program and of each of its commands.

use crate::records::files;
use crate::units::counted;
use crate::{Error, Result, nearest};
use clap::Command;
use std::path::{Path, PathBuf};

/// What `bubblebench man` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  bubblebench man | man -l -\n  bubblebench man predict layer | man -l -\n  \
    bubblebench man --all /usr/local/share/man/man1")]
pub struct ManArgs {
    /// The command whose page it is, such as `plan` or `predict layer` [default: the program's own page]
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write every page into this folder: bubblebench.1, bubblebench-plan.1, bubblebench-predict-layer.1, and so on
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    all: Option<PathBuf>,
}

/// Prints one page, or writes all of them.
pub fn run(args: &ManArgs, program: Command) -> Result<()> {
    let mut program = without_help(program);
    // Gives the commands below their full names.
    program.build();
    match &args.all {
        None => super::print(&page(find(&program, &args.command)?)?),
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(|source| Error::io("create", folder, source))?;
            let written = write(&program, folder)?;
            super::print(&format!("Written to {}: {}.\n", folder.display(), counted(written, "page")))
        }
    }
}

/// `help` is a command of clap's at every level, and no page.
fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

fn find<'a>(program: &'a Command, path: &[String]) -> Result<&'a Command> {
    let mut command = program;
    for name in path {
        command = command.find_subcommand(name).ok_or_else(|| {
            let what = format!("{} has no command `{name}`", command.get_bin_name().unwrap_or("bubblebench"));
            let names: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            let cure = if names.is_empty() { "leave the name out".into() } else { nearest::cure(name, names) };
            Error::input(what, cure)
        })?;
    }
    Ok(command)
}

fn page(command: &Command) -> Result<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .source(concat!("bubblebench ", env!("CARGO_PKG_VERSION")))
        .render(&mut text)
        .map_err(|source| Error::io("write", "the manual page", source))?;
    // What stands behind the options in `--help`.
    Ok(String::from_utf8_lossy(&text).replace("\n.SH EXTRA\n", "\n.SH EXAMPLES AND NOTES\n"))
}

/// Writes the pages of a command and of those below it, and says how many they are.
fn write(command: &Command, folder: &Path) -> Result<usize> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    files::write_atomic(&folder.join(format!("{name}.1")), page(command)?.as_bytes())?;
    command.get_subcommands().try_fold(1, |written, below| Ok(written + write(below, folder)?))
}
