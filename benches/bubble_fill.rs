//! The gate's latencies, and one pipeline stage replayed with its real waits, filled and empty.

use crate::driver::Driver;
use bubblebench::Result;
use bubblebench::suite::groups::Group;

pub fn bench(driver: &mut Driver) -> Result<()> {
    driver.group(Group::Fill)
}
