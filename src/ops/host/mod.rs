//! The vocabulary on this machine's CPU: f32 on all the cores it is given.
