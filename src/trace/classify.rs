//! Compute or communication: a kernel told by its name.
//!
//! NCCL has changed its names three times; libraries with kernels of their own (NVSHMEM, DeepEP, symmetric memory,
//! custom all-reduces of inference servers) are known by the operation in the name. Everything else computes.

use super::span::Activity;

/// Parts of names, lower case without underscores, of kernels that communicate.
const COLLECTIVE: &[&str] = &[
    "nccl",
    "rccl",
    "msccl",
    "nvshmem",
    "userbuffers",
    "deepep",
    "allreduce",
    "allgather",
    "reducescatter",
    "alltoall",
    "crossdevicereduce",
];

/// What a kernel of this name does: it computes, sends or receives, or is part of another collective.
///
/// Compilers name generated kernels after the operations they fuse, a copy out of an all-gather's buffer among them:
/// those compute, whatever their names hold.
pub fn kernel(name: &str) -> Activity {
    if name.starts_with("triton_") {
        return Activity::Compute;
    }
    let plain = plain(name);
    if !COLLECTIVE.iter().any(|part| plain.contains(part)) {
        return if plain.contains("sendrecv") { Activity::SendRecv } else { Activity::Compute };
    }
    let peer = plain.contains("sendrecv") || plain.contains("ncclsend") || plain.contains("ncclrecv");
    if peer || plain.contains("devkernelsend") || plain.contains("devkernelrecv") {
        Activity::SendRecv
    } else {
        Activity::Collective
    }
}

/// Whether a kernel's name says which collective it is.
fn names_operation(name: &str) -> bool {
    let plain = plain(name);
    ["allreduce", "allgather", "reducescatter", "broadcast", "alltoall"].iter().any(|part| plain.contains(part))
}

/// What a kernel of this name is, with what PyTorch writes beside it (`Collective name`), which tells a send or receive
/// where the kernel's name does not.
pub fn with_collective(name: &str, collective: Option<&str>) -> Activity {
    match (kernel(name), collective) {
        (Activity::Collective, Some(c))
            if ["send", "recv", "batch_isend_irecv", "coalesced"].contains(&c) && !names_operation(name) =>
        {
            Activity::SendRecv
        }
        (by_name, _) => by_name,
    }
}

/// Whether a kernel of this name is a step of an optimizer, which ends an iteration.
pub fn is_optimizer(name: &str) -> bool {
    let start: String = name.chars().take(512).map(|c| c.to_ascii_lowercase()).collect();
    // PyTorch's elementwise kernels are named after closures, which are no LAMB.
    let plain = start.replace("lambda", "");
    ["adam", "multi_tensor_apply", "multitensorapply", "fusedsgd", "sgd_", "lamb", "adagrad", "optimizer"]
        .iter()
        .any(|part| plain.contains(part))
}

/// A name as the parts of names are written above.
fn plain(name: &str) -> String {
    head(name).chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

/// How C++ writes a namespace without a name; its bracket opens no list of arguments.
const ANONYMOUS: &str = "(anonymous namespace)";

/// The name itself, without the types of its arguments, in which any word may stand.
fn head(name: &str) -> &str {
    let mut from = 0;
    while let Some(at) = name[from..].find('(').map(|at| from + at) {
        if name[at..].starts_with(ANONYMOUS) {
            from = at + ANONYMOUS.len();
        } else {
            return if at == 0 { name } else { &name[..at] };
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nccl_of_every_age_is_told_apart() {
        for name in [
            "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)",
            "ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclWorkElem)",
            "ncclSendRecvKernel_copy_i8(ncclColl)",
        ] {
            assert_eq!(kernel(name), Activity::SendRecv, "{name}");
        }
        for name in [
            "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
            "ncclKernel_AllGather_RING_LL_Sum_int8_t(ncclWorkElem)",
            "ncclAllReduceRingLLKernel_sum_f32(ncclColl)",
            "ncclSymkDevKernel_ReduceScatter_LL(ncclSymkDevWorkArgs)",
            "void vllm::cross_device_reduce_2stage<__nv_bfloat16, 8>(vllm::RankData*)",
            "void one_shot_all_reduce_kernel<float, 8>(float**)",
            "void deep_ep::internode::dispatch<true>(int4*)",
            "void (anonymous namespace)::one_shot_all_reduce_kernel<float>(float**)",
        ] {
            assert_eq!(kernel(name), Activity::Collective, "{name}");
        }
    }

    #[test]
    fn everything_else_computes() {
        for name in [
            "ampere_bf16_s16816gemm_bf16_128x128_ldg8_f2f_stages_32x5_tn",
            "void flash_fwd_kernel<Flash_fwd_kernel_traits<128>>(Flash_fwd_params)",
            "void at::native::reduce_kernel<512, 1>(at::native::ReduceOp<float>)",
            "triton_poi_fused_all_gather_into_tensor_out_copy_3",
            "void copy_of(ncclComm*)",
            "(anonymous namespace)::copy_of(ncclComm*)",
            "",
        ] {
            assert_eq!(kernel(name), Activity::Compute, "{name}");
        }
    }

    #[test]
    fn pytorch_says_what_a_generic_kernel_does() {
        let generic = "ncclDevKernel_Generic(ncclDevKernelArgsStorage<4096ul>)";
        assert_eq!(with_collective(generic, Some("send")), Activity::SendRecv);
        assert_eq!(with_collective(generic, Some("allreduce")), Activity::Collective);
        assert_eq!(with_collective("gemm", Some("send")), Activity::Compute);
        let coalesced = Some("coalesced");
        assert_eq!(with_collective(generic, coalesced), Activity::SendRecv);
        let gather = "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)";
        assert_eq!(with_collective(gather, coalesced), Activity::Collective);
    }

    #[test]
    fn optimizers_are_known() {
        assert!(is_optimizer(
            "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor>()"
        ));
        assert!(is_optimizer("AdamFunctor") && !is_optimizer("sm90_xmma_gemm_bf16"));
        assert!(is_optimizer("void lamb_stage_1<float>(float*)"));
        let elementwise = "void at::native::vectorized_elementwise_kernel<4, at::native::gelu(at::TensorIterator&)\
            ::{lambda()#2}::operator()() const::{lambda(float)#1}>(int, float*)";
        assert!(!is_optimizer(elementwise));
    }
}
