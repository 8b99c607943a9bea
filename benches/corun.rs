//! The layer beside each small model and beside single-resource pressure, by sharing mode; alone and together interleaved.

use crate::driver::Driver;
use bubblebench::Result;
use bubblebench::suite::groups::Group;

pub fn bench(driver: &mut Driver) -> Result<()> {
    driver.group(Group::Corun)
}
