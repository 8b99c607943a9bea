//! Collectives and send/recv over message sizes and ranks, isolated and pipelined in one case.

use crate::driver::Driver;
use bubblebench::Result;
use bubblebench::suite::groups::Group;

pub fn bench(driver: &mut Driver) -> Result<()> {
    driver.group(Group::Collectives)
}
