// Products: records of python/dropwise/_backends/protocol.py, read by the names of their fields.
//
// The Python side has validated; what is checked here only keeps a wrong call from touching memory
// that is not its own.
#include <pybind11/typing.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "bindings/bind.hpp"
#include "ops/products/chain.hpp"
#include "ops/products/choice.hpp"
#include "ops/products/product.hpp"
#include "ops/products/row_blocks.hpp"

namespace dropwise {
namespace {

// An interned name: looking it up compares pointers.
struct FieldName {
    py::str text;
    explicit FieldName(const char* name)
        : text(py::reinterpret_steal<py::str>(PyUnicode_InternFromString(name))) {}
    py::object of(py::handle record) const {
        PyObject* const value = PyObject_GetAttr(record.ptr(), text.ptr());
        if (value == nullptr) throw py::error_already_set();
        return py::reinterpret_steal<py::object>(value);
    }
};

struct FieldNames {
    FieldName a{"a"}, b{"b"}, out{"out"}, bias{"bias"}, relu{"relu"}, skip{"skip"},
        nonzero{"nonzero"}, bits{"bits"}, scale{"scale"}, over_rows{"over_rows"},
        temporary{"temporary"}, strategy{"strategy"};
};
const FieldNames* names = nullptr;  // made when the module is, and never destroyed

py::array as_array(py::object field, const FieldName& name) {
    if (!py::isinstance<py::array>(field))
        throw py::type_error(name.text.cast<std::string>() + " must be an array");
    return py::reinterpret_steal<py::array>(field.release());
}

py::array array_of(py::handle record, const FieldName& name) {
    return as_array(name.of(record), name);
}

std::optional<py::array> optional_array(py::handle record, const FieldName& name) {
    py::object field = name.of(record);
    if (field.is_none()) return std::nullopt;
    return as_array(std::move(field), name);
}

// The characters of a str, which live as long as it does.  (A cast to std::string_view would look
// after their life, which takes longer than the rest of a field.)
std::string_view text_of(const py::object& field) {
    Py_ssize_t size = 0;
    const char* const text = PyUnicode_AsUTF8AndSize(field.ptr(), &size);
    if (text == nullptr) throw py::error_already_set();
    return {text, static_cast<std::size_t>(size)};
}

ops::Skip parse_skip(const py::object& field) {
    ops::Skip parsed{false, false};
    for (const char operand : text_of(field)) {
        require(operand == 'a' || operand == 'b', "skip must be '', 'a', 'b' or 'ab'");
        (operand == 'a' ? parsed.a : parsed.b) = true;
    }
    return parsed;
}

constexpr const char* kStrategyNames[] = {"", "dense", "skip_a", "skip_b", "kept"};

ops::Strategy parse_strategy(const py::object& field) {
    const std::string_view name = text_of(field);
    int strategy = 0;
    for (const char* const known : kStrategyNames) {
        if (name == known) return static_cast<ops::Strategy>(strategy);
        ++strategy;
    }
    throw py::value_error("strategy must be '', 'dense', 'skip_a', 'skip_b' or 'kept', got '" +
                          std::string(name) + "'");
}

std::ptrdiff_t elements(py::ssize_t stride, std::size_t itemsize) {
    const auto size = static_cast<py::ssize_t>(itemsize);
    require(stride % size == 0, "strides must be whole elements");
    return stride / size;
}

template <class T>
Matrix<T> matrix(const py::array& x) {
    require(x.ndim() == 2, "a, b and out must be 2-dimensional");
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

// The fields of one record.
struct Record {
    py::array a, b, out;
    std::optional<py::array> bias;
    bool relu;
    ops::Skip skip;
    std::optional<py::array> nonzero, bits;
    double scale;
    bool over_rows, temporary;
    ops::Strategy strategy;

    explicit Record(py::handle record)
        : a(array_of(record, names->a)),
          b(array_of(record, names->b)),
          out(array_of(record, names->out)),
          bias(optional_array(record, names->bias)),
          relu(names->relu.of(record).cast<bool>()),
          skip(parse_skip(names->skip.of(record))),
          nonzero(optional_array(record, names->nonzero)),
          bits(optional_array(record, names->bits)),
          scale(names->scale.of(record).cast<double>()),
          over_rows(names->over_rows.of(record).cast<bool>()),
          temporary(names->temporary.of(record).cast<bool>()),
          strategy(parse_strategy(names->strategy.of(record))) {
        const int type = dtype();
        require(a.dtype().num() == type && b.dtype().num() == type &&
                    (!bias || bias->dtype().num() == type),
                "operands and out must have one dtype");
        require(out.writeable(), "out must be writeable");
        using ops::Strategy;
        require((strategy != Strategy::kSkipA || skip.a) &&
                    (strategy != Strategy::kSkipB || skip.b) &&
                    (strategy != Strategy::kKept || bits),
                "strategy must be one that skip or bits allow");
        const bool steps = bias || relu || bits || nonzero;
        require(!over_rows || !(steps || temporary), "a sum over rows has no other steps");
        require(!temporary || is_c_contiguous(), "a temporary out must be C-contiguous");
    }

    int dtype() const { return out.dtype().num(); }

    // The record in C++ terms; it refers to the arrays.
    template <class T>
    ops::Product<T> product() const {
        ops::Product<T> p{matrix<const T>(a), matrix<const T>(b), matrix<T>(out)};
        require(p.a.cols == p.b.rows && p.out.rows == p.a.rows && p.out.cols == p.b.cols,
                "shapes of a, b and out do not fit");
        p.bias = bias_data<T>(bias, p.out.cols);
        p.relu = relu;
        if (bits) p.bits = checked_bits(*bits);
        p.scale = static_cast<T>(scale);
        p.skip = skip;
        if (nonzero) {
            checked_bits(*nonzero);
            p.nonzero = static_cast<std::uint8_t*>(py::array(*nonzero).mutable_data());
        }
        p.over_rows = over_rows;
        p.temporary = temporary;
        p.strategy = strategy;
        return p;
    }

  private:
    bool is_c_contiguous() const { return (out.flags() & py::array::c_style) != 0; }

    // A packed mask over the C order of out.
    const std::uint8_t* checked_bits(const py::array& mask) const {
        require(is_c_contiguous(), "out must be C-contiguous");
        require(mask.itemsize() == 1 && mask.ndim() == 1 && mask.size() * 8 >= out.size() &&
                    (mask.size() < 2 || mask.strides(0) == 1),
                "bits must be contiguous bytes, one bit per element of out");
        return static_cast<const std::uint8_t*>(mask.data());
    }
};

// Calls body with a value of the dtype of NumPy's number `dtype`.
template <class Body>
void with_dtype(int dtype, Body&& body) {
    if (dtype == py::dtype::num_of<float>())
        body(float{});
    else if (dtype == py::dtype::num_of<double>())
        body(double{});
    else
        throw py::type_error("products take float32 and float64");
}

// Releasing the GIL takes longer than a product as small as this.
template <class T>
bool is_tiny(const ops::Product<T>& x) {
    return x.out.rows * x.out.cols * (x.a.cols + 1) < 4096;
}

void multiply_one(const Record& record) {
    with_dtype(record.dtype(), [&](auto zero) {
        const auto product = record.product<decltype(zero)>();
        std::optional<GilRelease> release;
        if (!is_tiny(product)) release.emplace();
        ops::multiply(product);
    });
}

template <class T>
using Chain = std::vector<ops::Product<T>>;

template <class T>
Chain<T> chain_of(const std::vector<Record>& records, std::size_t block_rows) {
    Chain<T> chain;
    chain.reserve(records.size());
    for (const Record& record : records) {
        require(record.dtype() == records[0].dtype(), "products of one call must have one dtype");
        chain.push_back(record.product<T>());
    }
    require(block_rows % 8 == 0, "block_rows must be a multiple of 8");
    for (const auto& product : chain)
        require(block_rows == 0 || ops::rows_of(product) == ops::rows_of(chain[0]),
                "products in blocks must share their rows");
    return chain;
}

template <class T>
void compute(const Chain<T>& chain, std::size_t block_rows) {
    const GilRelease release;
    if (block_rows == 0)
        ops::multiply_chain(chain);
    else
        ops::multiply_by_blocks(chain, block_rows);
}

// Takes a sequence as a plain object: a cast to std::vector would copy it, and the stubs have no
// name for the items of a py::sequence.
void multiply(const py::object& sequence, std::size_t block_rows) {
    if (!py::isinstance<py::sequence>(sequence))
        throw py::type_error("products must be a sequence");
    const auto products = py::reinterpret_borrow<py::sequence>(sequence);
    const std::size_t n = products.size();
    if (n == 0) return;
    if (n == 1 && block_rows == 0) return multiply_one(Record(py::object(products[0])));
    std::vector<Record> records;
    records.reserve(n);
    for (const py::handle product : products) records.emplace_back(product);
    with_dtype(records[0].dtype(), [&](auto zero) {
        compute(chain_of<decltype(zero)>(records, block_rows), block_rows);
    });
}

// Products that are read once and computed many times, each time with other values of some fields.
class PreparedProducts {
  public:
    // `varying` has pairs of the index of a product and the name of its field.
    PreparedProducts(const py::object& products, const py::object& varying, std::size_t block_rows)
        : block_rows_(block_rows) {
        for (const py::handle product : py::iter(products)) records_.emplace_back(product);
        require(!records_.empty(), "there must be products");
        with_dtype(records_[0].dtype(),
                   [&](auto zero) { chain_ = chain_of<decltype(zero)>(records_, block_rows_); });
        for (const py::handle field : py::iter(varying)) add_varying(field);
    }

    void multiply(const py::typing::Tuple<py::object, py::ellipsis>& values) const {
        require(values.size() == varying_.size(), "there must be a value for each varying field");
        for (const Record& record : records_)
            require(record.out.writeable(), "out must be writeable");
        std::visit(
            [&](auto chain) {  // a copy: what is given is held no longer than the call
                for (std::size_t i = 0; i < varying_.size(); ++i)
                    set(chain[varying_[i].product], varying_[i].field,
                        PyTuple_GET_ITEM(values.ptr(), static_cast<py::ssize_t>(i)));
                compute(chain, block_rows_);
            },
            chain_);
    }

  private:
    enum class Field { a, b, out, scale };
    struct Varying {
        std::size_t product;
        Field field;
    };

    void add_varying(py::handle pair) {
        const auto [product, name] = pair.cast<std::pair<std::size_t, std::string>>();
        require(product < records_.size(), "varying must name products that there are");
        Record& record = records_[product];
        Field field = Field::scale;
        if (name == "a") {
            field = Field::a;
            record.a = py::array();
        } else if (name == "b") {
            field = Field::b;
            record.b = py::array();
        } else if (name == "out") {
            field = Field::out;
            record.out = py::array();
        } else {
            require(name == "scale", "a varying field must be a, b, out or scale");
        }
        varying_.push_back({product, field});
    }

    // Strides of out do not change, since its bits depend on them.
    template <class T>
    static void set(ops::Product<T>& product, Field field, py::handle value) {
        if (field == Field::scale) {
            product.scale = static_cast<T>(value.cast<double>());
            return;
        }
        require(py::isinstance<py::array>(value), "a, b and out must be arrays");
        const auto array = py::reinterpret_borrow<py::array>(value);
        require(array.dtype().num() == py::dtype::num_of<T>(),
                "operands and out must have one dtype");
        const auto is_as = [](const auto& x, const auto& before) {
            return x.rows == before.rows && x.cols == before.cols;
        };
        bool fits = false;
        if (field == Field::out) {
            const Matrix<T> out = matrix<T>(array);
            fits = array.writeable() && is_as(out, product.out) &&
                   out.row_stride == product.out.row_stride &&
                   out.col_stride == product.out.col_stride;
            product.out = out;
        } else {
            Matrix<const T>& operand = field == Field::a ? product.a : product.b;
            const auto given = matrix<const T>(array);
            fits = is_as(given, operand);
            operand = given;
        }
        require(fits, "arrays must have the shapes of those before, and out their strides");
    }

    std::vector<Record> records_;  // they hold the arrays that do not vary
    std::variant<Chain<float>, Chain<double>> chain_;
    std::vector<Varying> varying_;
    std::size_t block_rows_;
};

const char* strategy_of(const py::object& product) {
    const Record record(product);
    ops::Strategy strategy{};
    with_dtype(record.dtype(), [&](auto zero) {
        strategy = ops::choose(record.product<decltype(zero)>()).strategy;
    });
    return kStrategyNames[static_cast<int>(strategy)];
}

py::typing::Dict<py::str, py::float_> product_terms(const py::object& product, double density) {
    const Record record(product);
    require(record.strategy != ops::Strategy::kChosen, "strategy must be given");
    py::typing::Dict<py::str, py::float_> terms;
    with_dtype(record.dtype(), [&](auto zero) {
        for (const auto& [name, count] :
             ops::product_terms(record.product<decltype(zero)>(), density))
            terms[name] = count;
    });
    return terms;
}

}  // namespace

void bind_products(py::module_& m) {
    names = new FieldNames;
    m.def("multiply", &multiply, py::arg("products"), py::arg("block_rows") = 0);
    py::class_<PreparedProducts>(m, "PreparedProducts")
        .def(py::init<const py::object&, const py::object&, std::size_t>(), py::arg("products"),
             py::arg("varying"), py::arg("block_rows") = 0)
        .def("__call__", &PreparedProducts::multiply, py::arg("values"));
    m.def("strategy_of", &strategy_of, py::arg("product"));
    m.def("product_terms", &product_terms, py::arg("product"), py::arg("density"));
}

}  // namespace dropwise
