#include <memory>
#include <utility>

#include "base/checked.h"
#include "bindings/models.h"
#include "generate/feedforward.h"

namespace py = pybind11;
using namespace musicgen;
using namespace musicgen::generate;

namespace {

constexpr std::int64_t kMostSize = std::int64_t{1} << 28;

std::int64_t size_of(const py::handle& value, const char* what, std::int64_t least) {
  const auto n = py::cast<std::int64_t>(value);
  if (n < least || n > kMostSize)
    throw std::invalid_argument(std::string(what) + ": expected " + std::to_string(least) + " to " +
                                std::to_string(kMostSize) + ", got " + std::to_string(n));
  return n;
}

Shape shape_of(const py::handle& value, const char* what) {
  Shape shape;
  for (const auto& n : py::cast<py::list>(value)) shape.push_back(size_of(n, what, 1));
  if (shape.empty() || shape.size() > 3) throw std::invalid_argument(std::string(what) + ": expected 1 to 3 sizes");
  return shape;
}

FeedForwardSpec spec_of(const py::dict& config) {
  FeedForwardSpec spec;
  spec.input = shape_of(config["input"], "input");
  std::size_t rank = spec.input.size();
  for (const auto& entry : py::cast<py::list>(config["layers"])) {
    const auto given = py::cast<py::dict>(entry);
    FeedForwardLayer& layer = spec.layers.emplace_back();
    layer.kind = choice<LayerKind>(given["kind"], "kind",
                                   {{"dense", LayerKind::dense},
                                    {"reshape", LayerKind::reshape},
                                    {"conv2d", LayerKind::conv2d},
                                    {"conv_transpose2d", LayerKind::conv_transpose2d}});
    if (layer.kind == LayerKind::reshape) {
      layer.shape = shape_of(given["shape"], "shape");
      rank = layer.shape.size();
      continue;
    }
    layer.activation = choice<Activation>(given["activation"], "activation",
                                          {{"none", Activation::none},
                                           {"relu", Activation::relu},
                                           {"leaky_relu", Activation::leaky_relu},
                                           {"tanh", Activation::tanh},
                                           {"sigmoid", Activation::sigmoid}});
    const bool dense = layer.kind == LayerKind::dense;
    layer.outputs = size_of(given[dense ? "units" : "channels"], "outputs", 1);
    if (!dense) {
      if (rank != 3) throw std::invalid_argument("layers: expected (channels, height, width) before a convolution");
      for (std::size_t d = 0; d < 2; ++d) {
        layer.kernel[d] = size_of(py::cast<py::list>(given["kernel"])[d], "kernel", 1);
        layer.stride[d] = size_of(py::cast<py::list>(given["stride"])[d], "stride", 1);
        layer.padding[d] = size_of(py::cast<py::list>(given["padding"])[d], "padding", 0);
      }
    }
    rank = dense ? 1 : 3;
  }
  if (spec.layers.empty()) throw std::invalid_argument("layers: expected at least 1, got none");
  return spec;
}

std::vector<py::ssize_t> with_batch(py::ssize_t batch, const Shape& shape) {
  std::vector<py::ssize_t> all = {batch};
  all.insert(all.end(), shape.begin(), shape.end());
  return all;
}

py::array_t<float> run(const FeedForwardModel& model, const py::array& x, float last_scale, int threads) {
  const py::ssize_t batch = x.ndim() > 0 ? x.shape(0) : 0;
  if (batch < 1) throw std::invalid_argument("x: expected a batch of at least 1, got " + std::to_string(batch));
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1, got " + std::to_string(threads));
  const auto in = array_of<float>(x, "x", with_batch(batch, model.input()));
  py::array_t<float> out(with_batch(batch, model.output()));
  const float* from = in.data();
  float* to = out.mutable_data();
  const Isa isa = isa_in_use();
  without_lock([&] { feedforward_run(model, from, to, to_size(batch), last_scale, threads, isa, poll_signals); });
  return out;
}

}  // namespace

void register_feedforward(py::module_& m) {
  py::class_<FeedForwardModel>(m, "FeedForwardModel")
      .def(py::init([](const py::dict& config, const py::dict& tensors, const std::string& precision) {
             const Precision p = precision_of(precision);
             FeedForwardSpec spec = spec_of(config);
             const Tensors views = tensors_of(tensors);
             std::unique_ptr<FeedForwardModel> model;
             without_lock([&] { model = std::make_unique<FeedForwardModel>(std::move(spec), views, p); });
             return model;
           }),
           py::arg("config"), py::arg("tensors"), py::arg("precision"))
      .def_property_readonly("packed_bytes", &FeedForwardModel::packed_bytes)
      .def_property_readonly("macs", &FeedForwardModel::macs)
      .def("run", &run, py::arg("x"), py::arg("last_scale"), py::arg("threads"));
}
