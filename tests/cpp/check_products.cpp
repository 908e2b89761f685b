// Products against plain loops, on every set of the machine: for sets that cannot be loaded into
// Python here (tests/emulated.py), and for other compilers and systems (.ci/cross).
//
// Operands are small integers, so that every order of summation gives the same bits.  Prints what
// is wrong and returns 1 at the first difference.
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "core/dispatch.hpp"
#include "core/threads.hpp"
#include "ops/products/product.hpp"

namespace {

using namespace dropwise;

std::mt19937 generator(1);

std::size_t below(std::size_t n) {
    return generator() % n;
}

// An m x n matrix with rows or columns contiguous, or neither, inside guards.
template <class T>
class Operand {
  public:
    Operand(std::size_t m, std::size_t n, int layout) : memory_(2 * (m + 2) * (n + 2), T{99}) {
        const auto rows = static_cast<std::ptrdiff_t>(n + 1);
        const auto cols = static_cast<std::ptrdiff_t>(m + 1);
        T* const first = memory_.data() + n + 2;
        if (layout == 0) view_ = {first, m, n, rows, 1};
        if (layout == 1) view_ = {first, m, n, 1, cols};
        if (layout == 2) view_ = {first, m, n, 2 * rows, 2};
        if (layout == 3 && m != 0)
            view_ = {first + static_cast<std::ptrdiff_t>(m - 1) * rows, m, n, -rows, 1};
        if (layout == 3 && m == 0) view_ = {first, m, n, rows, 1};
    }
    void fill(double density) {
        for (std::size_t i = 0; i < view_.rows; ++i)
            for (std::size_t j = 0; j < view_.cols; ++j)
                *view_.at(i, j) =
                    static_cast<double>(below(1000)) < 1000 * density
                        ? static_cast<T>(static_cast<int>(1 + below(8)) * (below(2) ? 1 : -1))
                        : T{0};
    }
    const Matrix<T>& view() const { return view_; }
    Matrix<const T> read() const {
        return {view_.data, view_.rows, view_.cols, view_.row_stride, view_.col_stride};
    }
    // True if nothing but the matrix was written; makes it all 99.
    bool guards_intact() {
        for (std::size_t i = 0; i < view_.rows; ++i)
            for (std::size_t j = 0; j < view_.cols; ++j) *view_.at(i, j) = 99;
        for (const T value : memory_)
            if (value != 99) return false;
        return true;
    }

  private:
    std::vector<T> memory_;
    Matrix<T> view_;
};

template <class T>
bool check(std::size_t m, std::size_t k, std::size_t n) {
    const double densities[] = {0.02, 0.4, 1.0};
    const int layout_a = static_cast<int>(below(4)), layout_b = static_cast<int>(below(4));
    const bool kept = below(2) != 0, relu = below(2) != 0, with_bias = below(2) != 0;
    const ops::Skip skip{below(2) != 0, below(2) != 0};
    const int layout_out = kept ? 0 : static_cast<int>(below(4));
    Operand<T> a(m, k, layout_a), b(k, n, layout_b);
    a.fill(densities[below(3)]);
    b.fill(densities[below(3)]);
    Operand<T> bias(1, n, 0);
    bias.fill(1);
    std::vector<std::uint8_t> bits(m * n / 8 + 1);
    const std::size_t ones = below(3);
    for (std::uint8_t& byte : bits)
        byte = static_cast<std::uint8_t>(ones == 2 ? 255 : generator() & (ones ? 255 : 17));
    set_num_threads(static_cast<int>(1 + below(3)));

    Operand<T> out(m, n, layout_out);
    const T* const bias_data = with_bias ? bias.view().data : nullptr;
    std::vector<T> contiguous(m * n);
    const Matrix<T> packed{contiguous.data(), m, n, static_cast<std::ptrdiff_t>(n), 1};
    const Matrix<T>& to = kept ? packed : out.view();
    ops::multiply<T>({a.read(), b.read(), to, bias_data, relu, kept ? bits.data() : nullptr,
                      kept ? T{2} : T{1}, skip});

    for (std::size_t i = 0; i < m; ++i)
        for (std::size_t j = 0; j < n; ++j) {
            T sum = with_bias ? bias_data[j] : T{0};
            for (std::size_t p = 0; p < k; ++p) sum += *a.view().at(i, p) * *b.view().at(p, j);
            if (relu && sum < 0) sum = 0;
            const std::size_t e = i * n + j;
            if (kept) sum = bits[e >> 3] >> (e & 7) & 1 ? 2 * sum : T{0};
            if (*to.at(i, j) != sum) {
                std::printf(
                    "%zux%zux%zu, %zu bytes, layouts %d %d %d, kept %d: (%zu, %zu) is %g, not %g\n",
                    m, k, n, sizeof(T), layout_a, layout_b, layout_out, kept, i, j,
                    static_cast<double>(*to.at(i, j)), static_cast<double>(sum));
                return false;
            }
        }
    if (!out.guards_intact()) std::printf("%zux%zux%zu wrote past its output\n", m, k, n);
    return out.guards_intact();
}

bool check_active_set() {
    const std::size_t edges[] = {0,  1,  2,  3,  4,  5,  7,  8,  12, 13, 14, 15, 16,
                                 17, 23, 24, 25, 31, 33, 48, 49, 63, 64, 65, 97, 130};
    constexpr std::size_t n_edges = sizeof edges / sizeof edges[0];
    for (int i = 0; i < 1500; ++i) {
        const std::size_t m = edges[below(n_edges)], k = edges[below(n_edges)],
                          n = edges[below(n_edges)];
        if (!check<float>(m, k, n) || !check<double>(m, k, n)) return false;
    }
    for (int i = 0; i < 8; ++i)
        if (!check<float>(260, 300, 30) || !check<double>(260, 300, 30)) return false;
    return check<float>(1100, 70, 40) && check<float>(40, 300, 600);
}

}  // namespace

// With an argument: only the names of the sets.
int main(int argc, char**) {
    for (const std::string& isa : available_isas()) {
        set_isa(isa);
        std::printf("%s\n", kernels().name);
        if (argc == 1 && !check_active_set()) return 1;
    }
    return 0;
}
