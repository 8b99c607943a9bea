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

pub const SCHEMA: &str = "bubblebench.bubbles/1";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BubblesRecord {
    pub schema: String,
    /// The profiles, in the order of the devices, separated by ", ".
    pub source: String,
    /// In the order of ranks: of one file in the order of its device numbers, of several in the order of the files.
    pub devices: Vec<DeviceBubbles>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceBubbles {
    /// The device's number in the profile; with several profiles the devices are numbered through.
    pub device: u64,
    /// Iterations that the totals and the list cover.
    pub iterations: u64,
    /// Their length, together.
    pub window_ns: u64,
    /// Time within the window in which a compute kernel ran.
    pub compute_ns: u64,
    /// Time within the window in which a communication kernel ran, beside compute or not.
    pub communication_ns: u64,
    /// `window_ns` − `compute_ns`: bubbles of every length.
    pub absent_ns: u64,
    /// `absent_ns` / `window_ns`.
    pub bubble_ratio: f64,
    /// Those of at least the smallest length asked for, in order of time.
    pub bubbles: Vec<MeasuredBubble>,
}

/// One maximal interval of an iteration in which no compute kernel runs on the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeasuredBubble {
    pub iteration: u64,
    /// On the profile's own clock; several profiles share the earliest one's.
    pub start_ns: u64,
    pub end_ns: u64,
    pub class: BubbleClass,
    /// The compute kernel that ended last before it; none at the start of an iteration.
    pub previous_kernel: Option<KernelName>,
    /// The compute kernel that ended it; none at the end of an iteration.
    pub next_kernel: Option<KernelName>,
}

impl MeasuredBubble {
    pub const fn length_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

/// Why nothing was computed. The first that holds, in this order, but for `Dependency` by a stream's own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BubbleClass {
    /// A send/recv kernel lies inside: the device waited for a peer. Also where the next kernel had been launched in
    /// time and no communication ran: it waited for a copy or an event.
    Dependency,
    /// Another collective lies inside: exposed communication.
    Communication,
    /// The next kernel was launched only after the gap began.
    Launch,
    /// The end of the iteration.
    Tail,
}

impl BubbleClass {
    pub const ALL: [BubbleClass; 4] =
        [BubbleClass::Dependency, BubbleClass::Communication, BubbleClass::Launch, BubbleClass::Tail];

    pub const fn name(self) -> &'static str {
        match self {
            BubbleClass::Dependency => "dependency",
            BubbleClass::Communication => "communication",
            BubbleClass::Launch => "launch",
            BubbleClass::Tail => "tail",
        }
    }
}

/// A kernel's name. A profile has few names and many bubbles, so that those of one profile share the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KernelName(pub Arc<str>);

impl KernelName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for KernelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KernelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| KernelName(name.into()))
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
    /// Reads what `bubbles --json` printed, and refuses what no run can have.
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

impl DeviceBubbles {
    fn check(&self) -> Result<(), String> {
        if self.iterations == 0 || self.window_ns == 0 {
            return Err("it covers no iteration".into());
        }
        if self.compute_ns.checked_add(self.absent_ns) != Some(self.window_ns) {
            return Err("compute_ns + absent_ns is not window_ns".into());
        }
        let mut listed = 0u64;
        for (index, b) in self.bubbles.iter().enumerate() {
            if b.end_ns <= b.start_ns {
                return Err(format!("bubble {index} ends at {} and starts at {}", b.end_ns, b.start_ns));
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
            previous_kernel: Some(KernelName("gemm".into())),
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
    }
}
