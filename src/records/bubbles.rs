//! `bubblebench.bubbles/1`: where the devices of a real run computed nothing, and why.
//!
//! [`crate::trace`] makes it from profiles, `bubbles --json` prints it, `plan --bubbles FILE` reads it.

use super::files;
use crate::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// Value of `schema` in every file of this kind: name and version of the format.
pub const SCHEMA: &str = "bubblebench.bubbles/1";

/// Where the devices of a profiled training run computed nothing, and why: what `bubblebench bubbles --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BubblesRecord {
    /// Always `bubblebench.bubbles/1`: name and version of this format.
    pub schema: String,
    /// Paths of the profiles the record was made from, in the order given or by their ranks, separated by ", ".
    pub source: String,
    /// The devices in the order of ranks: of one profile in the order of its device numbers, of several in the order of
    /// the files.
    pub devices: Vec<DeviceBubbles>,
}

/// The bubbles of one device of the profiled run, with totals over its iterations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceBubbles {
    /// The device's number in the profile; with several profiles the devices are numbered consecutively over all of
    /// them.
    pub device: u64,
    /// Number of training iterations that the totals and the list of bubbles cover.
    pub iterations: u64,
    /// Length of all covered iterations together, in nanoseconds.
    pub window_ns: u64,
    /// Time within the window in which at least one compute kernel ran, in nanoseconds.
    pub compute_ns: u64,
    /// Time within the window in which a communication kernel ran, beside compute or not, in nanoseconds.
    pub communication_ns: u64,
    /// Time without any compute kernel, `window_ns` − `compute_ns`: bubbles of every length, in nanoseconds.
    pub absent_ns: u64,
    /// Share of the window in which nothing was computed: `absent_ns` / `window_ns`, from 0 to 1.
    pub bubble_ratio: f64,
    /// The bubbles of at least the smallest length asked for (`--min-gap`), in order of time.
    pub bubbles: Vec<MeasuredBubble>,
}

/// One maximal interval of an iteration in which no compute kernel runs on the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeasuredBubble {
    /// The iteration of the profile that the bubble lies in, counted from 0.
    pub iteration: u64,
    /// When the last compute kernel before the bubble ended (or the iteration began), in nanoseconds on the profile's
    /// own clock; several profiles share the earliest one's.
    pub start_ns: u64,
    /// When the next compute kernel started, or the iteration ended: nanoseconds on the same clock as `start_ns`.
    pub end_ns: u64,
    /// Why nothing was computed in the bubble.
    pub class: BubbleClass,
    /// Name of the compute kernel that ended last before the bubble; null at the start of an iteration.
    pub previous_kernel: Option<KernelName>,
    /// Name of the compute kernel that ended the bubble; null at the end of an iteration.
    pub next_kernel: Option<KernelName>,
}

impl MeasuredBubble {
    /// Length of the bubble in nanoseconds: `end_ns` − `start_ns`.
    pub const fn length_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

/// Why nothing was computed in a bubble: the first class that holds, in this order. A bubble that none explains is a
/// `dependency` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BubbleClass {
    /// A send/recv kernel ran within the bubble: the device waited for a peer. Also where the next kernel had been
    /// launched in time and no communication ran: it waited for a copy or an event.
    Dependency,
    /// Another collective ran within the bubble: exposed communication.
    Communication,
    /// The next kernel was launched only after the bubble had begun: the host was late.
    Launch,
    /// The bubble reaches to the end of the iteration.
    Tail,
}

impl BubbleClass {
    /// Every class, in the order in which reports list them.
    pub const ALL: [BubbleClass; 4] =
        [BubbleClass::Dependency, BubbleClass::Communication, BubbleClass::Launch, BubbleClass::Tail];

    /// The class as the JSON record spells it: `dependency`, `communication`, `launch` or `tail`.
    pub const fn name(self) -> &'static str {
        match self {
            BubbleClass::Dependency => "dependency",
            BubbleClass::Communication => "communication",
            BubbleClass::Launch => "launch",
            BubbleClass::Tail => "tail",
        }
    }

    /// Whether side work may go into a bubble of this class: where a collective runs it would be in the way, and where the
    /// host was late there would be no bubble if it were not.
    pub const fn is_fillable(self) -> bool {
        matches!(self, BubbleClass::Dependency | BubbleClass::Tail)
    }
}

/// A kernel's name. A profile has few names and may have millions of bubbles: those of one profile share the text, and
/// hold one word each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KernelName(Arc<Box<str>>);

impl KernelName {
    /// The kernel's name as the profiler recorded it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for KernelName {
    fn from(name: &str) -> Self {
        KernelName(Arc::new(name.into()))
    }
}

impl Serialize for KernelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KernelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| KernelName(Arc::new(name.into())))
    }
}

impl JsonSchema for KernelName {
    fn schema_name() -> Cow<'static, str> {
        "KernelName".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

impl BubblesRecord {
    /// Reads a file that `bubbles --json` printed. It is an error where the file cannot be read, is of another schema,
    /// or holds what no run can have, such as bubbles that overlap or totals that do not add up.
    pub fn read(path: &Path) -> Result<Self> {
        let record: BubblesRecord = files::read_json(path, "bubbles")?;
        record.check().map_err(|what| {
            Error::input(
                format!("{}: {what}", path.display()),
                "make the file again with `bubblebench bubbles PROFILE --json`",
            )
        })?;
        Ok(record)
    }

    /// Writes the record as indented JSON; a reader sees the old file or the whole new one. Fails only where the file
    /// system does.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_json(path, self)
    }

    fn check(&self) -> Result<(), String> {
        if self.devices.is_empty() {
            return Err("it holds no device".into());
        }
        self.devices.iter().try_for_each(|d| d.check().map_err(|what| format!("device {}: {what}", d.device)))
    }
}

/// Longer than any run that is profiled, and short enough for the bubbles of thousands of devices to be added up.
const LONGEST_NS: u64 = 1 << 53;
/// Behind it there is room for the longest run.
const LATEST_NS: u64 = 1 << 62;

impl DeviceBubbles {
    fn check(&self) -> Result<(), String> {
        if self.iterations == 0 || self.window_ns == 0 {
            return Err("it covers no iteration".into());
        }
        if self.window_ns > LONGEST_NS {
            return Err("its iterations last longer than three months".into());
        }
        if self.compute_ns.checked_add(self.absent_ns) != Some(self.window_ns) {
            return Err("compute_ns + absent_ns is not window_ns".into());
        }
        let mut listed = 0u64;
        for (index, b) in self.bubbles.iter().enumerate() {
            if b.end_ns <= b.start_ns {
                return Err(format!("bubble {index} ends at {} and starts at {}", b.end_ns, b.start_ns));
            }
            if b.end_ns > LATEST_NS {
                return Err(format!("bubble {index} ends at {}, in the year 2116 or later", b.end_ns));
            }
            if index > 0 && b.start_ns < self.bubbles[index - 1].end_ns {
                return Err(format!("bubble {index} starts before the one before it ends"));
            }
            listed = listed.saturating_add(b.length_ns());
        }
        if listed > self.absent_ns {
            return Err("its bubbles are longer than absent_ns".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> BubblesRecord {
        let bubble = MeasuredBubble {
            iteration: 0,
            start_ns: 1_760_000_000_000_000_001,
            end_ns: 1_760_000_000_000_000_031,
            class: BubbleClass::Tail,
            previous_kernel: Some("gemm".into()),
            next_kernel: None,
        };
        BubblesRecord {
            schema: SCHEMA.into(),
            source: "a.sqlite".into(),
            devices: vec![DeviceBubbles {
                device: 0,
                iterations: 1,
                window_ns: 100,
                compute_ns: 60,
                communication_ns: 5,
                absent_ns: 40,
                bubble_ratio: 0.4,
                bubbles: vec![bubble],
            }],
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.json");
        record().write(&path).unwrap();
        assert_eq!(BubblesRecord::read(&path).unwrap(), record());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"class\": \"tail\"") && text.contains("\"next_kernel\": null"), "{text}");
    }

    #[test]
    fn what_no_run_can_have_is_refused_with_its_device() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.json");
        let refused = |change: fn(&mut BubblesRecord), why: &str| {
            let mut wrong = record();
            change(&mut wrong);
            wrong.write(&path).unwrap();
            let error = BubblesRecord::read(&path).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("b.json"), "{error}");
        };
        refused(|r| r.devices.clear(), "no device");
        refused(|r| r.devices[0].iterations = 0, "no iteration");
        refused(|r| r.devices[0].compute_ns = 61, "device 0: compute_ns + absent_ns");
        refused(|r| r.devices[0].bubbles[0].end_ns = 3, "bubble 0 ends at 3");
        refused(|r| r.devices[0].bubbles = vec![r.devices[0].bubbles[0].clone(); 2], "bubble 1 starts before");
        refused(|r| r.devices[0].bubbles[0].end_ns += 11, "longer than absent_ns");
        refused(|r| r.devices[0].bubbles[0].end_ns = 1 << 63, "in the year 2116");
        refused(
            |r| (r.devices[0].window_ns, r.devices[0].compute_ns) = (1 << 62, (1 << 62) - 40),
            "longer than three months",
        );
    }
}
