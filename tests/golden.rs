//! Golden files: everything that a person or a script reads, held under `tests/golden`, so that a diff shows what a change
//! to the code does to the output.
//!
//! To take over new output: `INSTA_UPDATE=always cargo test --test golden`, then read `git diff tests/golden`.
//!
//! Nothing here may depend on the machine, the time or the build: commands run with an environment of their own, and what
//! remains is left out where it arises, each time with the reason.

#[path = "golden/bubbles.rs"]
mod bubbles;
#[path = "golden/doctor.rs"]
mod doctor;
#[path = "golden/errors.rs"]
mod errors;
#[path = "golden/help.rs"]
mod help;
#[path = "golden/hold.rs"]
mod hold;
#[path = "golden/job_errors.rs"]
mod job_errors;
#[path = "golden/plans.rs"]
mod plans;
// Holds more than is used here: the tests of profiles need the rest.
#[allow(dead_code)]
#[path = "traces/recording.rs"]
mod recording;
#[path = "golden/results.rs"]
mod results;

use hold::{Golden, hold};
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn help_is_held() {
    hold(help::help());
}

#[test]
fn schemas_are_held() {
    hold(help::schemas());
}

#[test]
fn plans_are_held() {
    hold(plans::plans());
}

#[test]
fn every_schedule_is_held() {
    hold(plans::schedules());
}

#[test]
fn names_of_cases_are_held() {
    hold(results::cases());
}

#[test]
fn tables_and_cost_model_are_held() {
    hold(results::tables());
}

#[test]
fn predictions_are_held() {
    hold(results::predictions());
}

#[test]
fn bubbles_of_real_runs_are_held() {
    hold(bubbles::bubbles());
}

#[test]
fn what_doctor_says_is_held() {
    hold(doctor::doctor());
}

#[test]
fn error_lines_are_held() {
    hold(errors::errors());
}

/// A golden file whose test is gone would be read and trusted, and held by nobody.
#[test]
fn every_golden_file_is_held_by_a_test() {
    let all = [
        help::help(),
        help::schemas(),
        plans::plans(),
        plans::schedules(),
        results::cases(),
        results::tables(),
        results::predictions(),
        bubbles::bubbles(),
        doctor::doctor(),
        errors::errors(),
    ];
    let names: Vec<String> = all.iter().flatten().map(Golden::file).collect();
    let held: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(held.len(), names.len(), "two goldens share a name");
    for entry in std::fs::read_dir(Path::new(hold::FOLDER)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // `.snap.new` is what insta leaves beside a file that differs.
        let other = name.ends_with(".rs") || name.ends_with(".snap.new");
        assert!(other || held.contains(&name), "tests/golden/{name} is held by no test: remove it");
    }
}
