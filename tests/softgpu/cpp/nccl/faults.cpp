// SOFTGPU_NCCL: what goes wrong on purpose, separated by commas (docs/software-device.md).
#include <cstdio>
#include <cstdlib>

#include "nccl.h"

namespace softnccl {
namespace {

bool number(const std::string& text, uint64_t* value) {
    char* end = nullptr;
    *value = strtoull(text.c_str(), &end, 10);
    return !text.empty() && *end == 0;
}

std::vector<std::string> split(const std::string& text, char at) {
    std::vector<std::string> parts(1);
    for (char c : text) {
        if (c == at)
            parts.emplace_back();
        else
            parts.back() += c;
    }
    return parts;
}

bool read(const std::string& text, Faults& all) {
    const std::vector<std::string> parts = split(text, ':');
    const std::string& what = parts[0];
    uint64_t a = 0, b = 0;
    const bool one = parts.size() == 2 && number(parts[1], &a);
    const bool two = parts.size() == 3 && number(parts[1], &a) && number(parts[2], &b);
    if (what == "silent" || what == "wrong-id") {
        (what == "silent" ? all.silent : all.wrong_id) = true;
        return parts.size() == 1;
    }
    if (what == "absent" && one) return all.absent.push_back(int(a)), true;
    if (what == "version" && one) return all.version = int(a), true;
    static const std::pair<const char*, Fault::What> kinds[] = {{"kill", Fault::kKill},
                                                                {"hang", Fault::kHang},
                                                                {"async", Fault::kAsync},
                                                                {"refuse", Fault::kRefuse},
                                                                {"wrong", Fault::kWrong},
                                                                {"slow", Fault::kSlow}};
    for (auto& [name, kind] : kinds) {
        if (what == name && two) return all.list.push_back({kind, int(a), b}), true;
    }
    return false;
}

}  // namespace

const Faults& faults() {
    static const Faults all = [] {
        Faults read_faults;
        const char* text = getenv("SOFTGPU_NCCL");
        if (text == nullptr || *text == 0) return read_faults;
        for (const std::string& fault : split(text, ',')) {
            if (!read(fault, read_faults)) read_faults.wrong = fault;
        }
        if (!read_faults.wrong.empty())
            fprintf(stderr, "softgpu: SOFTGPU_NCCL=%s: `%s` is no fault of the software NCCL\n", text,
                    read_faults.wrong.c_str());
        return read_faults;
    }();
    return all;
}

}  // namespace softnccl
