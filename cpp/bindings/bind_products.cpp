#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "bindings/bind.hpp"
#include "ops/products/chain.hpp"
#include "ops/products/choice.hpp"

namespace dropwise {
namespace {

// The checks here only keep a wrong call from touching memory that is not its own; friendly
// messages are functional's business.
void require(bool ok, const char* message) {
    if (!ok) throw py::value_error(message);
}

std::ptrdiff_t elements(py::ssize_t stride, std::size_t itemsize) {
    const auto size = static_cast<py::ssize_t>(itemsize);
    require(stride % size == 0, "strides must be whole elements");
    return stride / size;
}

template <class T>
Matrix<T> matrix(const py::array& x) {
    require(x.ndim() == 2, "an operand is not 2-dimensional");
    return {static_cast<T*>(const_cast<void*>(x.data())), static_cast<std::size_t>(x.shape(0)),
            static_cast<std::size_t>(x.shape(1)), elements(x.strides(0), sizeof(T)),
            elements(x.strides(1), sizeof(T))};
}

template <class T>
const T* bias_data(const std::optional<py::array>& bias, std::size_t n) {
    if (!bias) return nullptr;
    require(bias->ndim() == 1 && static_cast<std::size_t>(bias->shape(0)) == n &&
                (n < 2 || bias->strides(0) == sizeof(T)),
            "bias must be contiguous, one element per column of out");
    return static_cast<const T*>(bias->data());
}

ops::Skip parse_skip(const char* skip, const std::string& way, bool kept) {
    ops::Skip parsed{false, false};
    for (; *skip != '\0'; ++skip) {
        require(*skip == 'a' || *skip == 'b', "skip must be '', 'a', 'b' or 'ab'");
        (*skip == 'a' ? parsed.a : parsed.b) = true;
    }
    if (way == "dense")
        parsed.way = ops::Way::kDense;
    else if (way == "a" && parsed.a)
        parsed.way = ops::Way::kSkipA;
    else if (way == "b" && parsed.b)
        parsed.way = ops::Way::kSkipB;
    else if (way == "kept" && kept)
        parsed.way = ops::Way::kKeep;
    else
        require(way.empty(), "way must be '', 'dense', 'kept' if there are bits, or part of skip");
    return parsed;
}

// Calls body with a value of the arrays' common dtype.
template <class Body>
void with_dtype(const py::array& a, const py::array& b, const py::array& out,
                const std::optional<py::array>& bias, Body&& body) {
    const int type = out.dtype().num();
    require(a.dtype().num() == type && b.dtype().num() == type &&
                (!bias || bias->dtype().num() == type),
            "operands and out must have one dtype");
    require(out.writeable(), "out must be writeable");
    if (type == py::dtype::num_of<float>())
        body(float{});
    else if (type == py::dtype::num_of<double>())
        body(double{});
    else
        throw py::type_error("products take float32 and float64");
}

template <class T>
struct Operands {
    Matrix<const T> a, b;
    Matrix<T> out;

    Operands(const py::array& pa, const py::array& pb, const py::array& pout)
        : a(matrix<const T>(pa)), b(matrix<const T>(pb)), out(matrix<T>(pout)) {
        require(a.cols == b.rows && out.rows == a.rows && out.cols == b.cols,
                "shapes of a, b and out do not fit");
    }
};

// Letting go of the GIL takes longer than a product as small as this.
template <class T>
bool is_tiny(const ops::Product<T>& x) {
    return x.out.rows * x.out.cols * (x.a.cols + 1) < 4096;
}

// Packed bits over the C order of out.
const std::uint8_t* checked_bits(const py::array& bits, const py::array& out) {
    require((out.flags() & py::array::c_style) != 0, "out must be C-contiguous");
    require(bits.itemsize() == 1 && bits.ndim() == 1 && bits.size() * 8 >= out.size() &&
                (bits.size() < 2 || bits.strides(0) == 1),
            "bits must be contiguous bytes, one bit per element of out");
    return static_cast<const std::uint8_t*>(bits.data());
}

std::uint8_t* writable_bits(py::array bits, const py::array& out) {
    checked_bits(bits, out);
    return static_cast<std::uint8_t*>(bits.mutable_data());
}

// A product as Python describes it (python/dropwise/_backends/protocol.py).
struct Described {
    py::array a, b, out;
    std::optional<py::array> bias;
    bool relu;
    std::string skip;
    std::optional<py::array> nonzero, bits;
    double scale;
    bool over_rows, temporary;
    std::string way;

    template <class T>
    ops::Product<T> checked() const {
        const Operands<T> x(a, b, out);
        const bool steps = bias || relu || bits || nonzero;
        require(!over_rows || !(steps || temporary), "a sum over rows has no other steps");
        require(!temporary || (out.flags() & py::array::c_style) != 0,
                "what is temporary must be C-contiguous");
        return {x.a,
                x.b,
                x.out,
                bias_data<T>(bias, x.out.cols),
                relu,
                bits ? checked_bits(*bits, out) : nullptr,
                static_cast<T>(scale),
                parse_skip(skip.c_str(), way, bits.has_value()),
                nonzero ? writable_bits(*nonzero, out) : nullptr,
                over_rows,
                temporary};
    }
};

void multiply(const Described& product) {
    with_dtype(product.a, product.b, product.out, product.bias, [&](auto zero) {
        using T = decltype(zero);
        const ops::Product<T> p = product.checked<T>();
        std::optional<GilRelease> release;
        if (!is_tiny(p)) release.emplace();
        ops::multiply(p);
    });
}

void matmul(const py::array& a, const py::array& b, const py::array& out,
            const std::optional<py::array>& bias, bool relu, const char* skip,
            const std::optional<py::array>& nonzero, const std::string& way) {
    multiply({a, b, out, bias, relu, skip, nonzero, std::nullopt, 1.0, false, false, way});
}

void matmul_kept(const py::array& a, const py::array& b, const py::array& bits,
                 const py::array& out, const std::optional<py::array>& bias, bool relu,
                 double scale, const char* skip, const std::optional<py::array>& nonzero,
                 const std::string& way) {
    multiply({a, b, out, bias, relu, skip, nonzero, bits, scale, false, false, way});
}

void matmul_chain(const std::vector<py::object>& products) {
    std::vector<Described> all;
    for (const py::object& product : products) {
        const py::tuple p(product);
        require(p.size() == 11, "a product has eleven parts");
        all.push_back({p[0].cast<py::array>(), p[1].cast<py::array>(), p[2].cast<py::array>(),
                       p[3].cast<std::optional<py::array>>(), p[4].cast<bool>(),
                       p[5].cast<std::string>(), p[6].cast<std::optional<py::array>>(),
                       p[7].cast<std::optional<py::array>>(), p[8].cast<double>(),
                       p[9].cast<bool>(), p[10].cast<bool>(), ""});
    }
    if (all.empty()) return;
    const py::array& first = all[0].out;
    with_dtype(first, first, first, std::nullopt, [&](auto zero) {
        using T = decltype(zero);
        std::vector<ops::Product<T>> parsed;
        for (const Described& p : all)
            with_dtype(p.a, p.b, p.out, p.bias, [&](auto same) {
                if constexpr (std::is_same_v<decltype(same), T>)
                    parsed.push_back(p.checked<T>());
                else
                    require(false, "products that go together must have one dtype");
            });
        const GilRelease release;
        ops::multiply_chain(parsed);
    });
}

std::vector<double> product_terms(const py::array& a, const py::array& b, const py::array& out,
                                  const std::string& way, bool kept, double density) {
    const ops::Way parsed = parse_skip("ab", way, true).way;
    std::vector<double> terms;
    with_dtype(a, b, out, std::nullopt, [&](auto zero) {
        using T = decltype(zero);
        const Operands<T> x(a, b, out);
        terms = ops::product_terms<T>(x.a, x.b, parsed, kept, density);
    });
    return terms;
}

}  // namespace

void bind_products(py::module_& m) {
    m.def("matmul", &matmul, py::arg("a"), py::arg("b"), py::arg("out"),
          py::arg("bias") = py::none(), py::arg("relu") = false, py::arg("skip") = "",
          py::arg("nonzero") = py::none(), py::arg("way") = "");
    m.def("matmul_kept", &matmul_kept, py::arg("a"), py::arg("b"), py::arg("bits"), py::arg("out"),
          py::arg("bias") = py::none(), py::arg("relu") = false, py::arg("scale") = 1.0,
          py::arg("skip") = "", py::arg("nonzero") = py::none(), py::arg("way") = "");
    m.def("matmul_chain", &matmul_chain, py::arg("products"));
    m.def("product_terms", &product_terms, py::arg("a"), py::arg("b"), py::arg("out"),
          py::arg("way"), py::arg("kept") = false, py::arg("density") = 1.0);
}

}  // namespace dropwise
