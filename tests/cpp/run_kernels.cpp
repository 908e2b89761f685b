// The operations of cpp/ops on arrays that come through standard input, for instruction sets that
// cannot be loaded into Python here: NEON under an emulator, the plain path of the portable set.
//
// A request is a line, OPERATION ELEMENT N RATE SCALE KEY STREAM OFFSET THREADS, with the 64 bits
// of RATE and SCALE as whole numbers, which every C library reads alike; then N elements of x (none
// for "mask") and, for "apply", the mask; the answer is the output array (none for "mask" and
// "nonzero") and, except for "apply", the mask.  tests/emulated.py is the other end.
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "core/threads.hpp"
#include "ops/elementwise.hpp"
#include "ops/mask.hpp"

#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#endif

namespace {

using namespace dropwise;

struct Request {
    char operation[16];
    int element;
    std::size_t n;
    double rate, scale;
    std::uint64_t key, stream, offset;
    int threads;

    bool is(const char* name) const { return std::strcmp(operation, name) == 0; }
};

bool read_line(Request& r) {
    char line[256];
    std::uint64_t n, rate, scale;
    if (std::fgets(line, sizeof line, stdin) == nullptr ||
        std::sscanf(line,
                    "%15s %d %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
                    " %d",
                    r.operation, &r.element, &n, &rate, &scale, &r.key, &r.stream, &r.offset,
                    &r.threads) != 9)
        return false;
    r.n = static_cast<std::size_t>(n);
    std::memcpy(&r.rate, &rate, sizeof rate);
    std::memcpy(&r.scale, &scale, sizeof scale);
    return true;
}

// An array at some alignment, with guards around it.
class Guarded {
  public:
    Guarded(std::size_t size, std::size_t shift)
        : size_(size), begin_(kGuard + shift), memory_(begin_ + size + kGuard, kFill) {}

    char* data() { return memory_.data() + begin_; }
    bool read() { return std::fread(data(), 1, size_, stdin) == size_; }
    bool write() { return std::fwrite(data(), 1, size_, stdout) == size_; }
    bool intact() const {
        for (std::size_t i = 0; i < memory_.size(); ++i)
            if ((i < begin_ || i >= begin_ + size_) && memory_[i] != kFill) return false;
        return true;
    }

  private:
    static constexpr std::size_t kGuard = 128;
    static constexpr char kFill = 0x55;
    std::size_t size_, begin_;
    std::vector<char> memory_;
};

bool answer(const Request& r) {
    const auto element = static_cast<Element>(r.element);
    const MaskSpec spec = make_mask_spec(r.rate, r.key, r.stream);
    const std::size_t size = kElementSize[r.element], n = r.is("mask") ? 0 : r.n;
    Guarded x(n * size, r.n % 7 * size), out(n * size, r.n % 5 * size), mask((r.n + 7) / 8, 0);
    auto* const bits = reinterpret_cast<std::uint8_t*>(mask.data());
    if (!x.read() || (r.is("apply") && !mask.read())) return false;
    set_num_threads(r.threads);
    const Elements elements{element, x.data(), out.data(), n};

    if (r.is("mask"))
        mask_bits(spec, r.offset, r.n, bits);
    else if (r.is("forward"))
        dropout_forward(elements, bits, spec, r.offset, r.scale);
    else if (r.is("apply"))
        apply_bits(elements, bits, r.scale);
    else if (r.is("relu"))
        relu(elements, bits);
    else if (r.is("nonzero"))
        nonzero_bits(element, x.data(), n, bits);
    else
        return false;

    return x.intact() && out.intact() && mask.intact() && (r.is("nonzero") || out.write()) &&
           (r.is("apply") || mask.write()) && std::fflush(stdout) == 0;
}

}  // namespace

int main() {
#if defined(_WIN32)
    // Line ends are bytes like others.
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
#endif
    Request request;
    while (read_line(request))
        if (!answer(request)) return 1;
    return 0;
}
