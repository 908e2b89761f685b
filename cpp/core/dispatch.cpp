// The list of built sets comes from isa_list.hpp, which CMake generates.
#include "core/dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "core/cpu_features.hpp"
#include "isa_list.hpp"

#define DROPWISE_DECLARE(isa) extern "C" const dropwise::KernelTable* dropwise_kernels_##isa();
DROPWISE_ISA_LIST(DROPWISE_DECLARE)
#undef DROPWISE_DECLARE

namespace dropwise {
namespace {

struct IsaEntry {
    const char* name;
    const KernelTable* (*table)();
};

#define DROPWISE_ENTRY(isa) IsaEntry{#isa, &dropwise_kernels_##isa},
constexpr IsaEntry kIsas[] = {DROPWISE_ISA_LIST(DROPWISE_ENTRY)};
#undef DROPWISE_ENTRY

std::atomic<const KernelTable*> active{nullptr};

const KernelTable* find_isa(const std::string& wanted) {
    std::string names;
    for (const IsaEntry& isa : kIsas) {
        if (!cpu_supports(isa.name)) continue;
        if (wanted.empty() || wanted == isa.name) return isa.table();
        names += names.empty() ? isa.name : std::string(", ") + isa.name;
    }
    throw std::invalid_argument("instruction set '" + wanted +
                                "' is not available; available: " + names);
}

}  // namespace

const KernelTable& kernels() {
    const KernelTable* table = active.load(std::memory_order_acquire);
    if (table == nullptr) {
        const char* forced = std::getenv("DROPWISE_ISA");
        table = find_isa(forced == nullptr ? "" : forced);
        active.store(table, std::memory_order_release);
    }
    return *table;
}

void set_isa(const std::string& name) {
    active.store(find_isa(name), std::memory_order_release);
}

std::vector<std::string> built_isas() {
    std::vector<std::string> names;
    for (const IsaEntry& isa : kIsas) names.emplace_back(isa.name);
    return names;
}

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const IsaEntry& isa : kIsas)
        if (cpu_supports(isa.name)) names.emplace_back(isa.name);
    return names;
}

}  // namespace dropwise
