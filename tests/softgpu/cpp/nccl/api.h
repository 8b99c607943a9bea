// What the two files of exported functions share.
#pragma once
#include <memory>

#define API extern "C" __attribute__((visibility("default"))) int

namespace softnccl {

struct Comm;

// Between ncclGroupStart and its end, on this thread.
bool in_group();

void remember(const std::shared_ptr<Comm>& comm);
std::shared_ptr<Comm> forget(const void* handle);

}  // namespace softnccl
