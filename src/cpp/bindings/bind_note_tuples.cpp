#include <memory>

#include "base/checked.h"
#include "bindings/models.h"
#include "generate/note_tuples.h"

namespace py = pybind11;
using namespace musicgen;
using namespace musicgen::generate;

namespace {

int size_of(const py::dict& config, const char* name) {
  const auto n = py::cast<std::int64_t>(config[name]);
  if (n < 1 || n > (1 << 16))
    throw std::invalid_argument(std::string(name) + ": expected 1 to 65536, got " + std::to_string(n));
  return static_cast<int>(n);
}

py::tuple run(const TupleModel& model, const py::array& noise, const py::array& state) {
  const TupleSpec& spec = model.spec();
  const py::ssize_t n = noise.ndim() == 2 ? noise.shape(0) : 0;
  const auto heard = array_of<float>(noise, "noise", {n, spec.noise});
  const py::ssize_t size = py::ssize_t{2} * spec.num_layers * spec.hidden_size + spec.outputs;
  const auto before = array_of<float>(state, "state", {size});
  py::array_t<float> after(size), out({n, static_cast<py::ssize_t>(spec.outputs)});
  std::copy(before.data(), before.data() + size, after.mutable_data());
  const float* from = heard.data();
  float *to = out.mutable_data(), *kept = after.mutable_data();
  const Isa isa = isa_in_use();
  without_lock([&] { tuples_run(model, from, to_size(n), kept, to, isa, poll_signals); });
  return py::make_tuple(out, after);
}

}  // namespace

void register_note_tuples(py::module_& m) {
  py::class_<TupleModel>(m, "TupleModel")
      .def(py::init([](const py::dict& config, const py::dict& tensors, const std::string& precision) {
             const Precision p = precision_of(precision);
             const TupleSpec spec = {size_of(config, "noise"), size_of(config, "hidden_size"),
                                     size_of(config, "num_layers"), size_of(config, "outputs")};
             return std::make_unique<TupleModel>(spec, tensors_of(tensors), p);
           }),
           py::arg("config"), py::arg("tensors"), py::arg("precision"))
      .def_property_readonly("packed_bytes", &TupleModel::packed_bytes)
      .def_property_readonly("macs_per_step", &TupleModel::macs_per_step)
      .def("run", &run, py::arg("noise"), py::arg("state"));
}
