//! The GPT layer: forward, backward to inputs, backward to weights, and its operations one by one; the small models' steps.

use crate::driver::Driver;
use bubblebench::Result;
use bubblebench::suite::groups::Group;

pub fn bench(driver: &mut Driver) -> Result<()> {
    driver.group(Group::GptLayer)
}
