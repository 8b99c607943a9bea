// cuLaunchKernel: what a GPU refuses is refused at once; the rest runs as fibers when the stream comes to it.
//
// How many bytes each argument has comes from the kernel's own C++ signature, as it does from the image on a GPU: a
// `void**` cannot tell, so an argument of the wrong size goes unnoticed here as there (softgpu::launch notices).
#include <time.h>

#include <algorithm>
#include <cstring>

#include "function.h"

namespace softgpu {

std::string describe_address(Address address);

namespace {

std::atomic<uint64_t> launches{0};

// The values of a launch, which the caller may change as soon as the call returns.
class Values {
  public:
    Values(const Kernel& kernel, void** arguments) {
        size_t total = 0;
        for (size_t i = 0; i < kernel.arguments; i++) {
            offsets_.push_back(total);
            total += (kernel.argument_bytes[i] + 15) / 16 * 16;
        }
        bytes_.resize(total / 8 + 1);
        for (size_t i = 0; i < kernel.arguments; i++) memcpy(at(i), arguments[i], kernel.argument_bytes[i]);
    }
    void* at(size_t i) { return reinterpret_cast<char*>(bytes_.data()) + offsets_[i]; }
    // Every word, padding included: whatever looks like an address is one to the checks.
    const std::vector<uint64_t>& words() const { return bytes_; }

  private:
    std::vector<size_t> offsets_;
    std::vector<uint64_t> bytes_;
};

int refused(const Function& f, const Launch& l, int device) {
    const uint64_t threads = uint64_t(l.block[0]) * l.block[1] * l.block[2];
    if (threads == 0 || l.grid[0] == 0 || l.grid[1] == 0 || l.grid[2] == 0) return kInvalidValue;
    for (int i = 0; i < 3; i++) {
        if (l.block[i] > unsigned(device_attribute(2 + i, device))) return kInvalidValue;
        if (l.grid[i] > unsigned(device_attribute(5 + i, device))) return kInvalidValue;
    }
    if (threads > 1024 || l.shared_bytes > f.shared_limit_bytes) return kInvalidValue;
    return threads > f.kernel->max_threads ? kLaunchOutOfResources : kSuccess;
}

void sleep_ms(unsigned ms) {
    const timespec pause{ms / 1000, long(ms % 1000) * 1000000};
    nanosleep(&pause, nullptr);
}

bool fails_on_demand(const std::string& name, uint64_t count) {
    const Faults& faults = settings().faults;
    const auto& names = faults.failing_kernels;
    return count == faults.fail_launch || std::find(names.begin(), names.end(), name) != names.end();
}

void run(Context& context, const Kernel& kernel, Launch launch, const std::shared_ptr<Values>& values) {
    const std::string name = kernel.name;
    const uint64_t count = ++launches;
    const auto slow = settings().faults.slow_kernels.find(name);
    if (slow != settings().faults.slow_kernels.end()) sleep_ms(slow->second);
    if (fails_on_demand(name, count)) return context.fail(kLaunchFailed, "kernel " + name + " fails by SOFTGPU_FAULT");
    for (const uint64_t word : values->words()) {
        const std::string wrong = wrong_argument(word, context.device);
        if (!wrong.empty()) return context.fail(kIllegalAddress, "kernel " + name + " " + wrong);
    }
    std::vector<void*> arguments;
    for (size_t i = 0; i < kernel.arguments; i++) arguments.push_back(values->at(i));
    arguments.push_back(nullptr);
    char message[1024];
    const Outcome outcome = try_launch(kernel, launch, {arguments.data(), nullptr, 0}, message, sizeof message);
    if (outcome.trouble != Trouble::None) {
        const bool address = outcome.trouble == Trouble::Address;
        const int code = address                                 ? kIllegalAddress
                         : outcome.trouble == Trouble::Alignment ? kMisalignedAddress
                                                                 : kLaunchFailed;
        return context.fail(code, address ? message + (": " + describe_address(outcome.address)) : message);
    }
    for (const uint64_t word : values->words()) {
        const std::string broken = word != 0 ? broken_red_zone(word, context.device) : "";
        if (!broken.empty()) return context.fail(kIllegalAddress, "kernel " + name + " " + broken);
    }
}

int launch(Context& context, void* handle, Launch shape, void* stream, void** arguments, void** extra) {
    const std::shared_ptr<Function> function = functions().get(handle);
    if (function == nullptr || function->context != &context) return kInvalidHandle;
    if (extra != nullptr) return kNotSupported;
    const Kernel& kernel = *function->kernel;
    if (arguments == nullptr && kernel.arguments > 0) return kInvalidValue;
    shape.shared_limit_bytes = function->shared_limit_bytes;
    if (const int code = refused(*function, shape, context.device); code != kSuccess) return code;
    static std::atomic<uint64_t> order{0};
    shape.shuffled = settings().shuffled;
    shape.seed = settings().seed + order++;
    if (settings().trace)
        fprintf(stderr, "softgpu: %s <<<(%u,%u,%u), (%u,%u,%u), %u>>>\n", kernel.name, shape.grid[0], shape.grid[1],
                shape.grid[2], shape.block[0], shape.block[1], shape.block[2], shape.shared_bytes);
    auto values = std::make_shared<Values>(kernel, arguments);
    return enqueue(context, stream,
                   {kKernelNode, kernel.name, [&kernel, shape, values](Context& c) { run(c, kernel, shape, values); }});
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

API cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared_bytes, void* stream, void** arguments, void** extra) {
    return in_context(__func__, [&](Context& context) {
        return launch(context, function, {{gx, gy, gz}, {bx, by, bz}, shared_bytes, 0, 0, 0}, stream, arguments, extra);
    });
}
