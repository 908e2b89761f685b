#include "core/memory.hpp"

#include <cstdint>
#include <mutex>
#include <new>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/mman.h>
#define DROPWISE_HAS_MMAP 1
#endif

// With AddressSanitizer, memory that is kept may not be touched.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define DROPWISE_FORBID(memory, bytes) ASAN_POISON_MEMORY_REGION(memory, bytes)
#define DROPWISE_ALLOW(memory, bytes) ASAN_UNPOISON_MEMORY_REGION(memory, bytes)
#else
#define DROPWISE_FORBID(memory, bytes) static_cast<void>(0)
#define DROPWISE_ALLOW(memory, bytes) static_cast<void>(0)
#endif

namespace dropwise {
namespace {

constexpr std::size_t kAlign = 64;

// Sizes from a power of two on grow by quarters of it.
constexpr std::size_t kClassesPerDoubling = 4;
constexpr std::size_t kClasses = kClassesPerDoubling * 64;
constexpr std::size_t kLargest = std::size_t{1} << 62;

struct SizeClass {
    std::size_t index, bytes;

    // The smallest class of at least that many bytes, which are kLargest at most.
    static SizeClass of(std::size_t bytes) {
        if (bytes < kAlign) bytes = kAlign;
        std::size_t log = 0;
        while (2 * kClassesPerDoubling << log < bytes) ++log;
        const std::size_t quarter = std::size_t{1} << log;
        const std::size_t quarters = (bytes + quarter - 1) / quarter;
        return {kClassesPerDoubling * log + quarters % kClassesPerDoubling, quarters * quarter};
    }
};

// Stands before the memory that is handed out.
struct alignas(kAlign) Block {
    SizeClass size_class;
    // Of a block that is kept: the next newer and older ones of its class, and of all.
    Block *newer_alike, *older_alike, *newer, *older;

    void* memory() { return this + 1; }
    static Block* of(void* memory) { return static_cast<Block*>(memory) - 1; }
};

#if defined(DROPWISE_HAS_MMAP)

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kWorthHugePages = 2 * kHugePage;

// Whole pages of whatever size.
std::size_t mapped_bytes(std::size_t bytes) {
    constexpr std::size_t kLargestPage = 65536;
    return (bytes + kLargestPage - 1) / kLargestPage * kLargestPage;
}

void return_to_system(Block* block) {
    DROPWISE_ALLOW(block->memory(), block->size_class.bytes);
    ::munmap(block, mapped_bytes(sizeof(Block) + block->size_class.bytes));
}

// Memory from mmap, since what malloc gets back may stay with the process.  Null if there is none.
void* from_system(std::size_t bytes) {
    const bool huge = bytes >= kWorthHugePages;
    const std::size_t used = mapped_bytes(bytes);
    // With room to begin at a huge page; what is too much is returned at once.
    const std::size_t size = used + (huge ? kHugePage : 0);
    void* const got =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED) return nullptr;
    if (!huge) return got;
    auto* const start = static_cast<char*>(got);
    const std::size_t past = reinterpret_cast<std::uintptr_t>(start) % kHugePage;
    const std::size_t before = past == 0 ? 0 : kHugePage - past;
    if (before != 0) ::munmap(start, before);
    if (before + used < size) ::munmap(start + before + used, size - before - used);
#if defined(MADV_HUGEPAGE)
    ::madvise(start + before, used, MADV_HUGEPAGE);  // without, the pages are small: no error
#endif
    return start + before;
}

#else

void return_to_system(Block* block) {
    ::operator delete(block, std::align_val_t{kAlign});
}
void* from_system(std::size_t bytes) {
    return ::operator new(bytes, std::align_val_t{kAlign}, std::nothrow);
}

#endif

// Blocks that are kept.  Not thread-safe.
class Shelf {
  public:
    Block* newest_of(SizeClass size_class) const { return newest_alike_[size_class.index]; }
    Block* oldest() const { return oldest_; }
    std::size_t bytes() const { return bytes_; }
    std::size_t blocks() const { return blocks_; }

    void add(Block* block) {
        Block*& newest_alike = newest_alike_[block->size_class.index];
        block->newer = block->newer_alike = nullptr;
        block->older = newest_;
        block->older_alike = newest_alike;
        (newest_ == nullptr ? oldest_ : newest_->newer) = block;
        if (newest_alike != nullptr) newest_alike->newer_alike = block;
        newest_ = newest_alike = block;
        bytes_ += block->size_class.bytes;
        ++blocks_;
    }
    void remove(Block* block) {
        (block->newer == nullptr ? newest_ : block->newer->older) = block->older;
        (block->older == nullptr ? oldest_ : block->older->newer) = block->newer;
        (block->newer_alike == nullptr ? newest_alike_[block->size_class.index]
                                       : block->newer_alike->older_alike) = block->older_alike;
        if (block->older_alike != nullptr) block->older_alike->newer_alike = block->newer_alike;
        bytes_ -= block->size_class.bytes;
        --blocks_;
    }

  private:
    Block* newest_alike_[kClasses] = {};
    Block *newest_ = nullptr, *oldest_ = nullptr;
    std::size_t bytes_ = 0, blocks_ = 0;
};

struct Store {
    std::mutex mutex;
    Shelf shelf;
    std::size_t limit = std::size_t{256} << 20;
};

// A union, so that nothing destroys the store at exit: arrays may outlive everything.
union StoreHolder {
    StoreHolder() : store() {
#if defined(DROPWISE_HAS_MMAP)
        pthread_atfork(nullptr, nullptr, [] {
            // The lock and the lists are as some thread left them.  The child forgets what is kept:
            // its pages are the parent's until either writes to them.
            const std::size_t limit = holder.store.limit;
            new (&holder.store) Store;
            holder.store.limit = limit;
        });
#endif
    }
    ~StoreHolder() {}
    Store store;

    static StoreHolder holder;
};
StoreHolder StoreHolder::holder;

Store& store() {
    return StoreHolder::holder.store;
}

// Returns the oldest blocks to the system until no more than `bytes` are kept.
void shrink_to(std::size_t bytes) noexcept {
    for (;;) {
        Block* block;
        {
            const std::lock_guard lock(store().mutex);
            if (store().shelf.bytes() <= bytes) return;
            block = store().shelf.oldest();
            store().shelf.remove(block);
        }
        return_to_system(block);
    }
}

}  // namespace

void* take_block(std::size_t bytes) {
    if (bytes > kLargest) throw std::bad_alloc();
    const SizeClass size_class = SizeClass::of(bytes);
    {
        const std::lock_guard lock(store().mutex);
        Block* const block = store().shelf.newest_of(size_class);
        if (block != nullptr) {
            store().shelf.remove(block);
            DROPWISE_ALLOW(block->memory(), size_class.bytes);
            return block->memory();
        }
    }
    void* const memory = from_system(sizeof(Block) + size_class.bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return (new (memory) Block{size_class, nullptr, nullptr, nullptr, nullptr})->memory();
}

void give_block(void* memory) noexcept {
    Block* const block = Block::of(memory);
    std::size_t limit;
    bool keep;
    {
        const std::lock_guard lock(store().mutex);
        limit = store().limit;
        keep = block->size_class.bytes <= limit;
        if (keep) {
            DROPWISE_FORBID(memory, block->size_class.bytes);
            store().shelf.add(block);
            if (store().shelf.bytes() <= limit) return;
        }
    }
    // A block that is kept is another thread's from here on, or the system's again.
    if (keep)
        shrink_to(limit);
    else
        return_to_system(block);
}

KeptMemory kept_memory() noexcept {
    const std::lock_guard lock(store().mutex);
    return {store().limit, store().shelf.bytes(), store().shelf.blocks()};
}

void set_memory_limit(std::size_t bytes) noexcept {
    {
        const std::lock_guard lock(store().mutex);
        store().limit = bytes;
    }
    shrink_to(bytes);
}

void clear_kept_memory() noexcept {
    shrink_to(0);
}

}  // namespace dropwise
