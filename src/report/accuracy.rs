//! How far the cost model is off on cases it was not fitted on.

use super::Table;
use crate::records::CostModel;

/// Each part of the cost model with its mean and worst error in percent.
pub fn accuracy(model: &CostModel) -> Table {
    let mut table = Table::new(
        "Cost model",
        "Error on held-out cases: the fit saw the others only (docs/cost-model.md).",
        &["part", "held out", "mean error", "worst"],
    );
    for part in &model.accuracy {
        table.row(vec![
            part.what.clone(),
            part.held_out.to_string(),
            format!("{:.1}%", part.mape_percent),
            format!("{:.1}%", part.worst_percent),
        ]);
    }
    table
}
