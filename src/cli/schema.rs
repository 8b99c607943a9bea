//! `bubblebench schema KIND`: the JSON Schema of a file, derived from the struct that reads and writes it.

use super::known::known;
use crate::cost::predict::Answer;
use crate::fill::record::PlanRecord;
use crate::machine::doctor::Doctor;
use crate::pipeline::record::TimelineRecord;
use crate::pipeline::sweep::SweepRecord;
use crate::records::{BubblesRecord, CostModel, MachineRecord, Measurement, files, schema};
use crate::{Error, Result, nearest};
use schemars::{Schema, schema_for};

/// What `bubblebench schema` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: bubblebench schema cost_model > cost_model.schema.json")]
pub struct SchemaArgs {
    /// The kind of file
    #[arg(value_parser = known(KINDS.iter().map(|(kind, _)| *kind)))]
    kind: String,
}

type Derive = fn() -> Schema;

/// Every kind of file this version writes.
const KINDS: &[(&str, Derive)] = &[
    ("measurement", || schema_for!(Measurement)),
    ("machine", || schema_for!(MachineRecord)),
    ("cost_model", || schema_for!(CostModel)),
    ("doctor", || schema_for!(Doctor)),
    ("prediction", || schema_for!(Answer)),
    ("plan", || schema_for!(PlanRecord)),
    ("timeline", || schema_for!(TimelineRecord)),
    ("sweep", || schema_for!(SweepRecord)),
    ("bubbles", || schema_for!(BubblesRecord)),
];

/// Prints the schema of a kind of file.
pub fn run(args: &SchemaArgs) -> Result<()> {
    let Some((kind, derive)) = KINDS.iter().find(|(kind, _)| *kind == args.kind) else {
        let names: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
        return Err(Error::input(format!("`{}` is not a kind of file", args.kind), nearest::cure(&args.kind, names)));
    };
    let mut described = derive();
    let name = schema::name(kind);
    described.insert("title".into(), name.as_str().into());
    // The version is part of the format, so the schema pins it.
    if let Some(field) = described.get_mut("properties").and_then(|p| p.get_mut("schema")) {
        *field = serde_json::json!({ "const": name });
    }
    super::print(&format!("{}\n", files::to_json(&described)?))
}
