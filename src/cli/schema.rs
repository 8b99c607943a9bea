//! `bubblebench schema KIND`: the JSON Schema of a file, derived from the struct that reads and writes it.

use super::known::known;
use super::predict::question::{self, Question};
use crate::compare;
use crate::compare::record::ComparisonRecord;
use crate::corun::gate::{self, GateRecord};
use crate::cost::predict::{self, Answer};
use crate::fill::{self, record::PlanRecord};
use crate::machine::doctor::{self, Doctor};
use crate::pipeline::record::TimelineRecord;
use crate::pipeline::sweep::{self, SweepRecord};
use crate::records::{BubblesRecord, CostModel, MachineRecord, Measurement, files};
use crate::records::{bubbles, cost_model, machine, measurement};
use crate::{Error, Result, nearest, pipeline};
use schemars::{Schema, schema_for};

/// What `bubblebench schema` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: bubblebench schema cost_model > cost_model.schema.json")]
pub struct SchemaArgs {
    /// The kind of file
    #[arg(value_parser = known(KINDS.iter().map(|(kind, ..)| *kind)))]
    kind: String,
}

/// A kind of file, the name and version that it says it is, and how its schema is made.
type KindOfFile = (&'static str, &'static str, fn() -> Schema);

/// Every kind of file this version writes.
const KINDS: &[KindOfFile] = &[
    ("measurement", measurement::SCHEMA, || schema_for!(Measurement)),
    ("machine", machine::SCHEMA, || schema_for!(MachineRecord)),
    ("cost_model", cost_model::SCHEMA, || schema_for!(CostModel)),
    ("doctor", doctor::SCHEMA, || schema_for!(Doctor)),
    ("prediction", predict::SCHEMA, || schema_for!(Answer)),
    ("question", question::SCHEMA, || schema_for!(Question)),
    ("plan", fill::record::SCHEMA, || schema_for!(PlanRecord)),
    ("timeline", pipeline::record::SCHEMA, || schema_for!(TimelineRecord)),
    ("sweep", sweep::SCHEMA, || schema_for!(SweepRecord)),
    ("bubbles", bubbles::SCHEMA, || schema_for!(BubblesRecord)),
    ("gate", gate::status::SCHEMA, || schema_for!(GateRecord)),
    ("comparison", compare::record::SCHEMA, || schema_for!(ComparisonRecord)),
];

/// Prints the schema of a kind of file.
pub fn run(args: &SchemaArgs) -> Result<()> {
    let Some((_, name, derive)) = KINDS.iter().find(|(kind, ..)| *kind == args.kind) else {
        let names: Vec<&str> = KINDS.iter().map(|(kind, ..)| *kind).collect();
        return Err(Error::input(format!("`{}` is not a kind of file", args.kind), nearest::cure(&args.kind, names)));
    };
    let mut described = derive();
    described.insert("title".into(), (*name).into());
    // The version is part of the format, so the schema pins it.
    if let Some(field) = described.get_mut("properties").and_then(|p| p.get_mut("schema")) {
        *field = serde_json::json!({ "const": name });
    }
    super::print(&format!("{}\n", files::to_json(&described)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::schema;

    /// What a file says it is and what is read are one; what the schema pins is the former.
    #[test]
    fn every_kind_is_written_as_it_is_read() {
        for (kind, name, _) in KINDS {
            assert_eq!(*name, schema::name(kind));
        }
    }
}
