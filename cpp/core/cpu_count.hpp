// How many threads this process should use when nobody says.
#pragma once

#include <string>

namespace dropwise {

struct CpuCount {
    int n;
    const char* source;  // where n came from, for show_config()
};

// CPUs this process may keep busy: its affinity mask, or the cgroup quota if that is less.
CpuCount usable_cpus();

// DROPWISE_NUM_THREADS, else the first number of OMP_NUM_THREADS, else usable_cpus().
// Throws std::invalid_argument if DROPWISE_NUM_THREADS is not a whole number from 1.
CpuCount default_num_threads();

// The cgroup (v1 or v2) cpu quota in whole CPUs, rounded up; 0 if there is none.  `root` stands
// before /proc and /sys, so that tests can bring their own.
int cgroup_cpus(const std::string& root);

}  // namespace dropwise
