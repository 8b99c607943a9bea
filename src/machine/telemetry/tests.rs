//! The sampler on scripted sensors: no GPU, no library.

use super::*;
use std::sync::mpsc;

/// Counts its readings in the SM clock.
struct Counting(u64);

impl Sensors for Counting {
    fn read(&mut self, thorough: bool) -> SensorReading {
        self.0 += 1;
        SensorReading {
            sm_clock_mhz: Some(self.0),
            memory_clock_mhz: thorough.then_some(1),
            ..SensorReading::default()
        }
    }
}

/// Answers once and then never again, until the test is over.
struct Hanging(u64, mpsc::Receiver<()>);

impl Sensors for Hanging {
    fn read(&mut self, _thorough: bool) -> SensorReading {
        self.0 += 1;
        if self.0 > 1 {
            let _ = self.1.recv();
        }
        SensorReading { sm_clock_mhz: Some(1980), ..SensorReading::default() }
    }
}

const LONG: Duration = Duration::from_secs(20);

fn wait_for_readings(sampler: &Sampler, count: u64) {
    let limit = Instant::now() + LONG;
    while sampler.window(0, u64::MAX).is_none_or(|told| told.readings < count) {
        assert!(Instant::now() < limit, "the thread reads");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_window_holds_the_readings_of_its_time() {
    let sampler = Sampler::with(|| Some(Box::new(Counting(0)))).unwrap();
    assert_eq!(sampler.first(LONG).unwrap().sm_clock_mhz, Some(1));
    wait_for_readings(&sampler, 3);
    let middle = sampler.now_ns();
    let told = sampler.window(0, middle).unwrap();
    assert_eq!(told.sm_clock_min_mhz, Some(1.0));
    let later = sampler.since(middle).unwrap();
    assert!(later.readings >= 1, "one was taken for it");
    assert!(later.sm_clock_min_mhz > told.sm_clock_max_mhz, "{later:?} {told:?}");
    assert_eq!(sampler.window(u64::MAX - 1, u64::MAX).unwrap().readings, 0);
}

#[test]
fn a_sensor_that_hangs_costs_telemetry_and_nothing_else() {
    let (release, released) = mpsc::channel();
    let sampler = Sampler::with(move || Some(Box::new(Hanging(0, released)))).unwrap();
    assert!(sampler.first(LONG).is_some());
    let from = sampler.now_ns();
    let told = sampler.since(from).unwrap();
    assert_eq!((told.readings, told.sm_clock_median_mhz), (0, None));
    // The end of the run does not wait for the thread, which is still inside its query.
    drop(sampler);
    drop(release);
}

#[test]
fn the_newest_reading_is_seen_while_it_is_new_and_the_sampler_lives() {
    let sampler = Sampler::with(|| Some(Box::new(Counting(0)))).unwrap();
    let newest = sampler.newest();
    wait_for_readings(&sampler, 2);
    assert!(newest.get(LONG).unwrap().sm_clock_mhz >= Some(2));
    assert_eq!(newest.get(Duration::ZERO), None, "it is older than that");
    drop(sampler);
    assert_eq!(newest.get(LONG), None);
}

#[test]
fn without_sensors_there_is_no_telemetry() {
    let sampler = Sampler::with(|| None).unwrap();
    assert_eq!(sampler.first(LONG), None);
    assert_eq!(sampler.since(0), None);
    assert!(Sampler::start(Device::Host).is_none());
}

#[test]
fn the_thread_ends_with_the_sampler() {
    struct Ends(mpsc::Sender<()>);
    impl Sensors for Ends {
        fn read(&mut self, _thorough: bool) -> SensorReading {
            SensorReading::default()
        }
    }
    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (sender, ended) = mpsc::channel();
    let sampler = Sampler::with(move || Some(Box::new(Ends(sender)))).unwrap();
    assert!(sampler.first(LONG).is_some());
    drop(sampler);
    ended.recv_timeout(LONG).unwrap();
}
