//! From values to text: Prometheus' text format 0.0.4, or OpenMetrics 1.0 where that is asked for. Pure.

use super::metrics::{Metric, MetricKind};
use std::fmt::Write;

/// A metric with its present values.
#[derive(Debug, Clone)]
pub struct Family {
    /// Its name, its kind and what it means.
    pub metric: &'static Metric,
    /// Its values; where there are none, nothing of it is written.
    pub samples: Vec<Sample>,
}

/// One value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What stands behind the metric's name: `_sum` and `_count` of a summary.
    pub suffix: &'static str,
    /// The labels in their order.
    pub labels: Vec<(&'static str, String)>,
    /// The value; one that is no number is not written.
    pub value: f64,
}

/// A form that Prometheus reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format 0.0.4, which everything reads.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

const OPEN_METRICS: &str = "application/openmetrics-text";

impl Format {
    /// The form for a request's Accept: OpenMetrics where that is named and not refused.
    pub fn accepted(accept: &str) -> Format {
        let mut kinds = accept.split(',').map(|kind| kind.trim().split(';').map(str::trim));
        let named = kinds.any(|mut kind| {
            let name = kind.next().unwrap_or_default();
            name.eq_ignore_ascii_case(OPEN_METRICS) && !kind.any(refused)
        });
        if named { Format::OpenMetrics } else { Format::Text }
    }

    /// The answer's Content-Type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

fn refused(parameter: &str) -> bool {
    parameter.strip_prefix("q=").and_then(|q| q.parse::<f64>().ok()) == Some(0.0)
}

/// Writes the families in the form.
pub fn write(families: &[Family], format: Format) -> String {
    let mut text = String::with_capacity(16 << 10);
    for family in families {
        let finite = || family.samples.iter().filter(|sample| sample.value.is_finite());
        if finite().next().is_none() {
            continue;
        }
        describe(&mut text, family.metric, format);
        for sample in finite() {
            line(&mut text, family.metric.name, sample);
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

/// OpenMetrics names a family without the ending of its kind, and knows infos.
fn describe(text: &mut String, metric: &Metric, format: Format) {
    let Metric { name, kind, help, .. } = metric;
    let (name, kind) = match (format, kind) {
        (Format::Text, MetricKind::Info) => (*name, "gauge"),
        (Format::OpenMetrics, MetricKind::Counter) => (name.strip_suffix("_total").unwrap_or(name), kind.name()),
        (Format::OpenMetrics, MetricKind::Info) => (name.strip_suffix("_info").unwrap_or(name), kind.name()),
        _ => (*name, kind.name()),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", help.replace('\\', "\\\\"));
}

fn line(text: &mut String, name: &str, sample: &Sample) {
    text.push_str(name);
    text.push_str(sample.suffix);
    for (index, (label, value)) in sample.labels.iter().enumerate() {
        let _ = write!(text, "{}{label}=\"", if index == 0 { '{' } else { ',' });
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    let close = if sample.labels.is_empty() { "" } else { "}" };
    let _ = writeln!(text, "{close} {}", sample.value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::metrics;

    fn sample(labels: &[(&'static str, &str)], value: f64) -> Sample {
        Sample { suffix: "", labels: labels.iter().map(|(name, value)| (*name, value.to_string())).collect(), value }
    }

    fn families() -> Vec<Family> {
        vec![
            Family {
                metric: &metrics::RUN,
                samples: vec![sample(&[("device", "a\"b\\c\nd"), ("preset", "quick")], 1.0)],
            },
            Family { metric: &metrics::GATE_OPENINGS, samples: vec![sample(&[], 1e15)] },
            Family { metric: &metrics::TIME_LEFT, samples: vec![sample(&[], f64::NAN)] },
            Family { metric: &metrics::VISIT, samples: vec![] },
        ]
    }

    #[test]
    fn the_text_format_escapes_labels_and_leaves_out_what_is_not_known() {
        let text = write(&families(), Format::Text);
        assert_eq!(
            text,
            format!(
                "# HELP bubblebench_run_info {}\n# TYPE bubblebench_run_info gauge\n\
                bubblebench_run_info{{device=\"a\\\"b\\\\c\\nd\",preset=\"quick\"}} 1\n\
                # HELP bubblebench_gate_openings_total {}\n# TYPE bubblebench_gate_openings_total counter\n\
                bubblebench_gate_openings_total 1000000000000000\n",
                metrics::RUN.help,
                metrics::GATE_OPENINGS.help
            )
        );
    }

    #[test]
    fn open_metrics_names_families_and_ends() {
        let text = write(&families(), Format::OpenMetrics);
        assert!(text.contains("# TYPE bubblebench_run info\n") && text.contains("\nbubblebench_run_info{"), "{text}");
        assert!(text.contains("# TYPE bubblebench_gate_openings counter\n") && text.ends_with("\n# EOF\n"), "{text}");
    }

    #[test]
    fn the_form_is_the_one_that_is_asked_for() {
        let newest = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(newest), Format::OpenMetrics);
        for accept in ["", "*/*", "text/plain", "text/html,application/xml;q=0.9", "application/openmetrics-text;q=0"] {
            assert_eq!(Format::accepted(accept), Format::Text, "{accept}");
        }
    }
}
