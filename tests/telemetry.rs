//! NVML and DCGM through the software libraries of tests/softgpu: what the program reads, and what it makes of sensors
//! that lie still, swing, refuse, hang or are not there. Linux only, as the libraries are. No test asserts a timing.
#![cfg(target_os = "linux")]

use bubblebench::machine::dcgm::{Dcgm, Engine};
use bubblebench::machine::nvml::{GpuState, Nvml};
use bubblebench::machine::telemetry::{GpuSensors, Sampler, Sensors};
use bubblebench::records::telemetry::Telemetry;
use softgpu::nvml as software;
use std::ffi::{CString, c_char};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(30);

fn uuid(device: u8) -> String {
    format!("GPU-b0b1b2b3-b4b5-b6b7-b8b9-babbbcbdbe{device:02x}")
}

/// A copy of the library has a state of its own: tests run beside each other.
fn nvml_of(library: &Path, devices: &str, fault: &str) -> Result<&'static Nvml, String> {
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("libnvidia-ml.so.1");
    std::fs::copy(library, &copy).unwrap();
    let [devices, fault] = [devices, fault].map(|text| CString::new(text).unwrap());
    // SAFETY: the software library exports it with this type and copies both strings.
    unsafe {
        let library = libloading::Library::new(&copy).unwrap();
        let set: libloading::Symbol<unsafe extern "C" fn(*const c_char, *const c_char)> =
            library.get(b"softgpu_nvml_set\0").unwrap();
        set(devices.as_ptr(), fault.as_ptr());
        std::mem::forget(library);
    }
    Nvml::open(&copy)
}

fn nvml(devices: &str, fault: &str) -> &'static Nvml {
    nvml_of(&software::library(), devices, fault).unwrap()
}

fn state(fault: &str) -> GpuState {
    nvml("1", fault).examine(&[Some(uuid(0))]).gpus.remove(0).unwrap()
}

fn sampler(fault: &'static str, readings: u64) -> (Sampler, Telemetry) {
    let open = move || Some(Box::new(GpuSensors::open(nvml("1", fault), &uuid(0))?) as Box<dyn Sensors>);
    let sampler = Sampler::with(open).unwrap();
    let limit = Instant::now() + LONG;
    loop {
        let told = sampler.window(0, sampler.now_ns());
        match told {
            Some(told) if told.readings >= readings => return (sampler, told),
            _ => assert!(Instant::now() < limit, "the sampler reads"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_healthy_gpu_tells_everything() {
    let state = state("");
    assert_eq!(
        (state.sm_clock_mhz, state.sm_clock_max_mhz, state.sm_clock_application_mhz),
        (Some(1980), Some(1980), Some(1830))
    );
    assert_eq!((state.memory_clock_mhz, state.memory_clock_max_mhz), (Some(3201), Some(3201)));
    assert_eq!((state.power_w, state.power_limit_w, state.temperature_c), (Some(300.0), Some(700.0), Some(61)));
    assert_eq!((state.ecc, state.mig, state.persistence), (Some(true), Some(false), Some(true)));
    assert_eq!((state.ecc_corrected, state.ecc_uncorrected), (Some(0), Some(0)));
    assert_eq!(state.compute_mode.as_deref(), Some("default"));
    assert_eq!(state.clock_event_reasons, Some(vec![]));
    assert_eq!((state.nvlinks, state.gpm), (Some(0), true));
    assert_eq!(state.other_processes, Some(vec![]), "this process is none");
    assert_eq!(nvml("1", "").driver_version().as_deref(), Some("580.00.00"));
}

#[test]
fn what_a_board_refuses_is_null_and_no_error() {
    let state = state("not-supported");
    assert_eq!(state, GpuState::default());
}

#[test]
fn devices_are_found_by_uuid_whatever_their_order() {
    let nvml = nvml("3", "");
    assert_eq!(nvml.count(), Some(3));
    let asked = [Some(uuid(2)), None, Some(uuid(0)), Some("GPU-nonsense".into())];
    let examined = nvml.examine(&asked);
    let known: Vec<bool> = examined.gpus.iter().map(Option::is_some).collect();
    assert_eq!(known, [true, false, true, false]);
    assert_eq!(examined.links.len(), 6);
    assert_eq!(examined.links[0].to_string(), "", "nobody knows the way to a GPU that is not there");
    assert_eq!(examined.links[1].to_string(), "NVLink x18 through a switch, PCIe NODE");
}

#[test]
fn links_are_counted_between_two_and_through_switches_between_eight() {
    let all = |count: u8| (0..count).map(|d| Some(uuid(d))).collect::<Vec<_>>();
    let two = nvml("2", "").examine(&all(2));
    assert_eq!(two.links[0].to_string(), "NVLink x4, PCIe PIX");
    assert_eq!(two.gpus[0].as_ref().unwrap().nvlinks, Some(4));
    let eight = nvml("8", "").examine(&all(8));
    let lines: Vec<String> = eight.links.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 28);
    assert_eq!(lines[0], "NVLink x18 through a switch, PCIe PIX");
    assert_eq!(lines[6], "NVLink x18 through a switch, PCIe SYS");
}

#[test]
fn an_old_driver_lacks_functions_and_nothing_else() {
    let old = nvml_of(&software::old_library(), "2", "other-process,throttle").unwrap();
    let state = old.examine(&[Some(uuid(0)), Some(uuid(1))]).gpus.remove(0).unwrap();
    assert_eq!((state.mig, state.gpm), (None, false));
    assert_eq!(state.clock_event_reasons.unwrap(), ["sw-power-cap", "hw-thermal-slowdown"], "under its old name");
    let others: Vec<u32> = state.other_processes.unwrap().iter().map(|process| process.pid).collect();
    assert_eq!(others, [1], "through the first version of the list");
    let mut sensors = GpuSensors::open(old, &uuid(0)).unwrap();
    let reading = sensors.read(true);
    assert_eq!((reading.energy_mj, reading.activity), (None, None));
    assert_eq!(reading.power_w, Some(300.0));
}

#[test]
fn a_library_that_does_not_start_says_why() {
    let reason = nvml_of(&software::library(), "1", "init").err().unwrap();
    assert!(reason.contains("the kernel module is not loaded"), "{reason}");
}

#[test]
fn readings_become_a_summary() {
    let (sampler, told) = sampler("", 8);
    assert_eq!((told.sm_clock_median_mhz, told.sm_clock_min_mhz), (Some(1980.0), Some(1980.0)));
    assert_eq!((told.temperature_max_c, told.memory_clock_median_mhz), (Some(61.0), Some(3201.0)));
    // The counter is read a moment before its time, and the thread may lose its core in between.
    assert!((100.0..1000.0).contains(&told.power_mean_w.unwrap()), "{told:?}");
    assert_eq!(told.power_max_w, Some(300.0));
    assert_eq!((told.clock_event_reasons, told.other_process_ids), (Some(vec![]), Some(vec![])));
    assert_eq!(told.activity_source.as_deref(), Some("gpm"));
    let activity =
        [told.sm_active_percent, told.sm_occupancy_percent, told.tensor_active_percent, told.dram_active_percent];
    assert_eq!(activity, [Some(97.5), Some(42.0), Some(61.25), Some(38.5)]);
    let from = sampler.now_ns();
    assert!(sampler.since(from).unwrap().readings >= 1, "a short case has one too");
}

#[test]
fn throttling_and_strangers_are_told_by_name() {
    let (_sampler, told) = sampler("throttle,other-process,ecc", 7);
    assert_eq!(told.clock_event_reasons.unwrap(), ["sw-power-cap", "hw-thermal-slowdown"]);
    assert_eq!(told.sm_clock_max_mhz, Some(1200.0));
    assert_eq!(told.other_process_ids, Some(vec![1]));
    assert!(told.ecc_corrected.unwrap() >= 1, "two thorough looks at the least");
    assert_eq!(told.ecc_uncorrected, Some(0));
}

#[test]
fn clocks_that_swing_show_in_their_range() {
    let (_sampler, told) = sampler("swing", 4);
    assert_eq!((told.sm_clock_min_mhz, told.sm_clock_max_mhz), (Some(1200.0), Some(1980.0)));
}

#[test]
fn in_a_container_this_process_is_not_its_own_stranger() {
    let nvml = nvml("1", "hidden-self");
    // The software library lists this process from the start, as the real one does once there is a context: so the
    // sensors take it for a stranger only if it was there before them, which the list below says.
    let listed = nvml.device(&uuid(0)).unwrap().processes().unwrap();
    assert_eq!(bubblebench::machine::nvml::others(&listed, &[]), []);
    assert_eq!(bubblebench::machine::nvml::others(&listed, &[4_000_000]).len(), 1);
}

#[test]
fn activity_that_is_refused_costs_activity_only() {
    for fault in ["no-gpm", "gpm-denied"] {
        assert!(!state(fault).gpm);
        let (_sampler, told) = sampler(fault, 2);
        assert_eq!((told.sm_active_percent, told.activity_source), (None, None));
        assert_eq!(told.sm_clock_median_mhz, Some(1980.0));
    }
}

#[test]
fn a_gpu_that_falls_off_the_bus_or_hangs_ends_no_run() {
    let (_lost, told) = sampler("lost", 8);
    assert_eq!((told.readings >= 8, told.sm_clock_median_mhz), (true, Some(1980.0)));
    let (hung, told) = sampler("hang", 5);
    assert_eq!(told.sm_clock_median_mhz, Some(1980.0));
    let from = hung.now_ns();
    assert_eq!(hung.since(from).unwrap(), Telemetry { readings: 0, ..empty_window(&told) });
}

/// What a window without a reading still knows: counters that did not move.
fn empty_window(before: &Telemetry) -> Telemetry {
    let still = |count: Option<u64>| count.map(|_| 0);
    Telemetry {
        ecc_corrected: still(before.ecc_corrected),
        ecc_uncorrected: still(before.ecc_uncorrected),
        ..Telemetry::default()
    }
}

fn dcgm(fault: &str, engine: Engine, uuid: &str) -> Option<Dcgm> {
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("libdcgm.so.4");
    std::fs::copy(software::dcgm_library(), &copy).unwrap();
    let fault = CString::new(fault).unwrap();
    // SAFETY: the software library exports it with this type and copies the string.
    unsafe {
        let library = libloading::Library::new(&copy).unwrap();
        library.get::<unsafe extern "C" fn(*const c_char)>(b"softgpu_dcgm_set\0").unwrap()(fault.as_ptr());
        std::mem::forget(library);
    }
    Dcgm::open_at(&copy, engine, uuid)
}

#[test]
fn dcgm_gives_its_fields_of_the_right_gpu() {
    for engine in [Engine::Running, Engine::Embedded] {
        let mut dcgm = dcgm("", engine, &uuid(1)).unwrap();
        let activity = dcgm.activity().unwrap();
        assert_eq!((activity.sm_active, activity.sm_occupancy), (Some(87.5), Some(50.0)));
        assert_eq!((activity.tensor_active, activity.dram_active), (Some(25.0), Some(12.5)));
    }
}

#[test]
fn dcgm_without_engine_or_right_or_gpu_gives_nothing() {
    assert!(dcgm("no-engine", Engine::Running, &uuid(0)).is_none());
    assert_eq!(dcgm("blank", Engine::Running, &uuid(0)).unwrap().activity(), None);
    assert!(dcgm("", Engine::Running, "GPU-nonsense").is_none());
    assert!(Dcgm::open_at(&software::library(), Engine::Running, &uuid(0)).is_none(), "that is not DCGM");
}

/// The program itself, with the software libraries on the loader's path.
#[test]
fn doctor_finds_the_library_and_says_what_is_missing() {
    let doctor = |folder: &Path, fault: &str| {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("bubblebench"));
        command.args(["doctor", "--json"]).env("LD_LIBRARY_PATH", folder).env("SOFTGPU_DEVICES", "4");
        let output = command.env("SOFTGPU_NVML_FAULT", fault).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let missing = |report: &serde_json::Value, what: &str| {
        report["missing"].as_array().unwrap().iter().any(|entry| entry["what"] == what)
    };
    let report = doctor(softgpu::device::libraries(), "");
    let library = report["libraries"].as_array().unwrap().iter().find(|entry| entry["name"] == "nvml").unwrap();
    assert_eq!(library["version"], "580.00.00");
    assert!(!missing(&report, "NVML"));
    let broken = doctor(softgpu::device::libraries(), "init");
    assert!(missing(&broken, "NVML"), "{broken}");
    let bare = doctor(Path::new("/no/such/folder"), "");
    assert!(missing(&bare, "DCGM"), "{bare}");
}

/// A measured case of the software GPU: its line, machine.json, and what went to stderr.
fn measure(fault: &str) -> (serde_json::Value, serde_json::Value, String) {
    let folder = TempDir::new().unwrap();
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("bubblebench"));
    command.args(["measure", "gpt-layer", "--device", "cuda", "--allow-software", "--preset", "quick", "--results"]);
    command.arg(folder.path()).arg("h128-a2-s48-b1-t1-bf16/op/ln1/forward").env("SOFTGPU_NVML_FAULT", fault);
    command.env("LD_LIBRARY_PATH", softgpu::device::libraries()).env("SOFTGPU_DEVICES", "2");
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    let lines = std::fs::read_to_string(folder.path().join("measurements.jsonl")).unwrap();
    let machine = std::fs::read(folder.path().join("machine.json")).unwrap();
    let line = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    (line, serde_json::from_slice(&machine).unwrap(), stderr)
}

fn flags(line: &serde_json::Value) -> Vec<&str> {
    line["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap()).collect()
}

#[test]
fn a_measured_line_carries_its_telemetry() {
    let (line, machine, stderr) = measure("");
    assert!(line["telemetry"]["readings"].as_u64().unwrap() >= 1, "{line}");
    assert_eq!(line["telemetry"]["sm_clock_median_mhz"], 1980.0);
    assert!(line["sm_clock_mhz"].is_number() && line["power_w"].as_f64().unwrap() > 100.0, "{line}");
    assert_eq!(line["telemetry"]["tensor_active_percent"], 61.25);
    assert!(!flags(&line).contains(&"other-processes") && !stderr.contains("also used"), "{stderr}");
    let gpu = &machine["gpus"][0];
    assert_eq!((&gpu["sm_clock_mhz"], &gpu["power_limit_w"], &gpu["ecc"]), (&1980.into(), &700.0.into(), &true.into()));
    assert!(machine["topology"][0].as_str().unwrap().ends_with("NVLink x4, PCIe PIX"), "{machine}");
}

#[test]
fn a_disturbed_line_says_by_what() {
    let (line, _, stderr) = measure("throttle,other-process");
    for flag in ["other-processes", "sw-power-cap", "hw-thermal-slowdown"] {
        assert!(flags(&line).contains(&flag), "{line}");
    }
    assert_eq!(line["telemetry"]["other_process_ids"], serde_json::json!([1]));
    assert!(stderr.contains("cuda:0 is also used by process 1"), "{stderr}");
}

#[test]
fn a_run_goes_on_without_sensors() {
    let (line, machine, _) = measure("init");
    assert!(line["telemetry"].is_null() && line["median_ns"].is_number(), "{line}");
    assert!(machine["gpus"][0]["sm_clock_mhz"].is_null());
    let (line, _, _) = measure("not-supported");
    assert!(line["telemetry"]["sm_clock_median_mhz"].is_null() && line["power_w"].is_null(), "{line}");
    let (line, _, _) = measure("hang");
    assert!(line["median_ns"].is_number(), "{line}");
}
