//! The same things under two names: nccl-tests' programs and types, and ours.

/// Program (without `_perf`), our operation, our pattern. The last three are ours alone: nccl-tests has one program for
/// send/recv, in which each rank sends to the next while it receives from the one before.
pub const OPERATIONS: [(&str, &str, Option<&str>); 14] = [
    ("all_reduce", "all_reduce", None),
    ("all_gather", "all_gather", None),
    ("reduce_scatter", "reduce_scatter", None),
    ("alltoall", "all_to_all", None),
    ("alltoallv", "all_to_all_v", None),
    ("broadcast", "broadcast", None),
    ("reduce", "reduce", None),
    ("gather", "gather", None),
    ("scatter", "scatter", None),
    ("hypercube", "hypercube", None),
    ("sendrecv", "send_recv", Some("ring")),
    ("send_recv_ping_pong", "send_recv", Some("ping_pong")),
    ("send_recv_one_way", "send_recv", Some("one_way")),
    ("send_recv_both_ways", "send_recv", Some("both_ways")),
];

/// nccl-tests' names of the types, ours, and an element's bytes. The first of two with one meaning is printed today.
pub const TYPES: [(&str, &str, u64); 14] = [
    ("float", "f32", 4),
    ("half", "f16", 2),
    ("bfloat16", "bf16", 2),
    ("double", "f64", 8),
    ("int8", "i8", 1),
    ("char", "i8", 1),
    ("uint8", "u8", 1),
    ("int32", "i32", 4),
    ("int", "i32", 4),
    ("uint32", "u32", 4),
    ("int64", "i64", 8),
    ("uint64", "u64", 8),
    ("f8e4m3", "f8e4m3", 1),
    ("f8e5m2", "f8e5m2", 1),
];
