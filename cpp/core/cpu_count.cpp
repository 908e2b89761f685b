// Environment, affinity mask and cgroup files, in the order that cpu_count.hpp promises.
#include "core/cpu_count.hpp"

#include <charconv>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string_view>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace dropwise {
namespace {

// The whole number >= 1 that `text` starts with; 0 if there is none, or if anything follows but
// blanks or, with `list`, further items of a list.
int leading_count(std::string_view text, bool list) {
    const auto begin = text.find_first_not_of(" \t");
    if (begin == text.npos) return 0;
    int n = 0;
    const char* const end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + begin, end, n);
    const auto rest = std::string_view(parsed.ptr, static_cast<std::size_t>(end - parsed.ptr));
    const auto next = rest.find_first_not_of(" \t");
    const bool ends = next == rest.npos || (list && rest[next] == ',');
    return parsed.ec == std::errc() && n >= 1 && ends ? n : 0;
}

int affinity_cpus() {
#if defined(__linux__)
    // The kernel refuses a set smaller than its own: double until it fits.
    for (int capacity = 1024; capacity <= 1 << 20; capacity *= 2) {
        cpu_set_t* const set = CPU_ALLOC(capacity);
        if (set == nullptr) break;
        const std::size_t bytes = CPU_ALLOC_SIZE(capacity);
        const int n = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (n > 0) return n;
    }
#endif
    const unsigned n = std::thread::hardware_concurrency();
    return n == 0 ? 1 : static_cast<int>(n);
}

// Both numbers, or quota = 0 for "max", -1 (v1's "max") and files that are not there.
double quota_of(const std::string& directory, bool v2) {
    double quota = 0, period = 0;
    if (v2) {
        std::ifstream(directory + "/cpu.max") >> quota >> period;  // "max 100000" fails at "max"
    } else {
        std::ifstream(directory + "/cpu.cfs_quota_us") >> quota;
        std::ifstream(directory + "/cpu.cfs_period_us") >> period;
    }
    return quota > 0 && period > 0 ? quota / period : 0;
}

}  // namespace

int cgroup_cpus(const std::string& root) {
    double least = 0;
    std::ifstream groups(root + "/proc/self/cgroup");  // lines "id:controller,controller:/path"
    for (std::string line; std::getline(groups, line);) {
        const auto first = line.find(':'), second = line.find(':', first + 1);
        if (first == line.npos || second == line.npos) continue;
        const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
        const bool v2 = controllers == ",,";
        if (!v2 && controllers.find(",cpu,") == std::string::npos) continue;
        const std::string mount = root + "/sys/fs/cgroup" + (v2 ? "" : "/cpu");
        // A quota holds for everything below it, so every ancestor is asked.  In a container the
        // path may be the host's, of which only the top of the mount is visible.
        for (std::string path = line.substr(second + 1);;) {
            const double cpus = quota_of(mount + path, v2);
            if (cpus > 0 && (least == 0 || cpus < least)) least = cpus;
            const auto slash = path.rfind('/');
            if (path.empty() || slash == path.npos) break;
            path.resize(slash);
        }
    }
    return static_cast<int>(std::ceil(std::fmin(least, INT_MAX)));
}

CpuCount usable_cpus() {
    const int affinity = affinity_cpus();
#if defined(__linux__)
    const int quota = cgroup_cpus("");
    if (quota > 0 && quota < affinity) return {quota, "cgroup cpu quota"};
#endif
    return {affinity, "CPUs this process may use"};
}

CpuCount default_num_threads() {
    if (const char* own = std::getenv("DROPWISE_NUM_THREADS"); own != nullptr && *own != '\0') {
        const int n = leading_count(own, false);
        if (n == 0)
            throw std::invalid_argument(
                "DROPWISE_NUM_THREADS must be a whole number from 1, got '" + std::string(own) +
                "'");
        return {n, "DROPWISE_NUM_THREADS"};
    }
    // A value that is no number is ignored, as OpenMP does.
    if (const char* openmp = std::getenv("OMP_NUM_THREADS"); openmp != nullptr)
        if (const int n = leading_count(openmp, true); n > 0) return {n, "OMP_NUM_THREADS"};
    return usable_cpus();
}

}  // namespace dropwise
