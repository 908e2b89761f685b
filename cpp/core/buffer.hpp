// Scratch memory of the calling thread: aligned, uninitialised, kept from call to call.
//
// Safe with several Python threads, since each has its own, and after fork, since no lock guards
// it.  All memory that ops need beside their operands comes from here, so that a test can let any
// request fail.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

namespace dropwise {

// What the memory is for.  A thread may use buffers of different slots at once, but not two of one
// slot.
enum class Slot {
    kShared,
    kTask,
    kTaskTile,
    kTaskWords,
    kRows,
    kWords,
    kPlaces,
    kResult,
    kOutput,
    kSums,
    kPiece,
    kBlockSums,
    kCount
};

namespace detail {

struct AlignedMemory {
    static constexpr std::align_val_t kAlign{64};

    void* data = nullptr;
    std::size_t size = 0;

    AlignedMemory() = default;
    AlignedMemory(const AlignedMemory&) = delete;
    AlignedMemory& operator=(const AlignedMemory&) = delete;
    ~AlignedMemory() { reset(0); }

    // False, with nothing held, if there is no memory.
    bool reset(std::size_t bytes) noexcept {
        if (data != nullptr) ::operator delete(data, kAlign);
        data = bytes == 0 ? nullptr : ::operator new(bytes, kAlign, std::nothrow);
        size = data == nullptr ? 0 : bytes;
        return size == bytes;
    }
};

inline AlignedMemory& thread_memory(Slot slot) noexcept {
    thread_local AlignedMemory memory[static_cast<std::size_t>(Slot::kCount)];
    return memory[static_cast<std::size_t>(slot)];
}

// How many requests are granted before one fails; negative: none fails.
inline std::atomic<std::int64_t> grants_left{-1};

inline bool fails_on_purpose() noexcept {
    if (grants_left.load(std::memory_order_relaxed) < 0) return false;
    return grants_left.fetch_sub(1, std::memory_order_relaxed) == 0;
}

}  // namespace detail

// For tests: of the requests for scratch memory that follow, of all threads, the n-th fails (the
// next one is n = 0), and no other.  Negative: none fails.  Returns how many requests were still to
// be granted before the one that an earlier call chose; negative if that has failed.
inline std::int64_t fail_allocations(std::int64_t n) noexcept {
    return detail::grants_left.exchange(n, std::memory_order_relaxed);
}

// `count` elements of T, or a null pointer if there is no memory.  Large buffers live only as long
// as the Scratch that asked for them, smaller ones until their thread ends.
template <class T>
class Scratch {
  public:
    Scratch(Slot slot, std::size_t count) noexcept {
        constexpr std::size_t kKeep = std::size_t{32} << 20;
        const std::size_t bytes = count * sizeof(T);
        detail::AlignedMemory& memory = bytes > kKeep ? own_ : detail::thread_memory(slot);
        failed_ = bytes != 0 && detail::fails_on_purpose();
        failed_ = failed_ || (memory.size < bytes && !memory.reset(bytes));
        data_ = failed_ ? nullptr : static_cast<T*>(memory.data);
    }
    T* get() const noexcept { return data_; }
    bool failed() const noexcept { return failed_; }
    // Throws std::bad_alloc if there is no memory.  Not for tasks of parallel_for: they must not
    // throw.
    void require() const {
        if (failed_) throw std::bad_alloc();
    }

  private:
    detail::AlignedMemory own_;
    T* data_ = nullptr;
    bool failed_ = false;
};

}  // namespace dropwise
