// The environment that shapes the software device (docs/software-device.md), read when the driver is first asked.
#include <cstdlib>
#include <cstring>

#include "driver.h"

namespace softgpu {
namespace {

class Reader {
  public:
    explicit Reader(Settings& settings) : settings_(settings) {}

    uint64_t number(const char* name, uint64_t otherwise) {
        const char* text = getenv(name);
        if (text == nullptr || *text == 0) return otherwise;
        uint64_t value = otherwise;
        if (!parse(text, &value)) wrong(std::string(name) + "=" + text + ": give a number");
        return value;
    }

    static bool parse(const std::string& text, uint64_t* value) {
        char* end = nullptr;
        *value = strtoull(text.c_str(), &end, 10);
        if (end == text.c_str()) return false;
        switch (*end) {  // sizes may be written 512M or 2G
            case 'G':
                *value <<= 30, end++;
                break;
            case 'M':
                *value <<= 20, end++;
                break;
            case 'K':
                *value <<= 10, end++;
                break;
            default:
                break;
        }
        return *end == 0;
    }

    void wrong(const std::string& why) {
        if (settings_.wrong.empty()) settings_.wrong = why;
    }

  private:
    Settings& settings_;
};

std::vector<std::string> split(const std::string& text, char at) {
    std::vector<std::string> parts;
    size_t start = 0;
    while (start <= text.size()) {
        const size_t end = std::min(text.find(at, start), text.size());
        if (end > start) parts.push_back(text.substr(start, end - start));
        start = end + 1;
    }
    return parts;
}

void read_fault(Reader& reader, Faults& faults, const std::string& fault) {
    const std::vector<std::string> parts = split(fault, ':');
    const std::string kind = parts.empty() ? "" : parts[0], value = parts.size() > 1 ? parts[1] : "";
    uint64_t number = 0;
    const bool numeric = Reader::parse(value, &number);
    if (kind == "no-device") {
        faults.no_device = true;
    } else if (kind == "no-image") {
        faults.no_image = true;
    } else if (kind == "oom" && numeric) {
        faults.fail_allocation = number;
    } else if (kind == "oom-above" && numeric) {
        faults.out_of_memory_above = number;
    } else if (kind == "driver-version" && numeric) {
        faults.driver_version = int(number);
    } else if (kind == "launch" && numeric) {
        faults.fail_launch = number;
    } else if (kind == "launch" && !value.empty()) {
        faults.failing_kernels.push_back(value);
    } else if (kind == "hang" && parts.size() == 3 && Reader::parse(parts[2], &number)) {
        faults.slow_kernels[value] = unsigned(number);
    } else {
        reader.wrong("SOFTGPU_FAULT=" + fault +
                     ": choose of no-device, no-image, oom:K, oom-above:BYTES, launch:K, launch:KERNEL, "
                     "hang:KERNEL:MS, driver-version:N");
    }
}

// As the driver reads it: what follows an ordinal that is not there is ignored.
std::vector<int> visible(int count) {
    std::vector<int> devices;
    const char* text = getenv("CUDA_VISIBLE_DEVICES");
    if (text == nullptr) {
        for (int i = 0; i < count; i++) devices.push_back(i);
        return devices;
    }
    for (const std::string& part : split(text, ',')) {
        char* end = nullptr;
        const long device = strtol(part.c_str(), &end, 10);
        if (*end != 0 || device < 0 || device >= count) break;
        devices.push_back(int(device));
    }
    return devices;
}

Settings read() {
    Settings s;
    Reader reader(s);
    s.devices = visible(int(std::min<uint64_t>(reader.number("SOFTGPU_DEVICES", 1), 64)));
    s.arch = int(reader.number("SOFTGPU_ARCH", 90));
    if (s.arch != 80 && s.arch != 86 && s.arch != 90) reader.wrong("SOFTGPU_ARCH: choose 80, 86 or 90");
    s.sms = int(reader.number("SOFTGPU_SMS", 4));
    s.l2_bytes = reader.number("SOFTGPU_L2", s.l2_bytes);
    s.memory_bytes = reader.number("SOFTGPU_MEMORY", s.memory_bytes);
    s.trace = reader.number("SOFTGPU_TRACE", 0) != 0;
    if (const char* order = getenv("SOFTGPU_ORDER"); order != nullptr && *order != 0) {
        s.shuffled = strncmp(order, "shuffled:", 9) == 0 && Reader::parse(order + 9, &s.seed);
        if (!s.shuffled && strcmp(order, "in-turn") != 0)
            reader.wrong("SOFTGPU_ORDER: choose in-turn or shuffled:SEED");
    }
    if (const char* faults = getenv("SOFTGPU_FAULT"); faults != nullptr) {
        for (const std::string& fault : split(faults, ',')) read_fault(reader, s.faults, fault);
    }
    return s;
}

}  // namespace

const Settings& settings() {
    // Never destroyed: streams' threads may still run while the process ends.
    static const Settings* all = new Settings(read());
    return *all;
}

}  // namespace softgpu
