// A convolution and its two gradients by oneDNN, called from compiled JAX programs.
//
// oneDNN's own threads are left out: a call splits its batch into one part per thread of XLA's
// pool, and each part runs a primitive made for a single thread. So XLA's choice of cores holds, no
// thread is ever created here, and a part always sees the same work: results are deterministic.

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
#include "xla/ffi/api/ffi.h"

// Of the OpenMP runtime that oneDNN is linked with.
extern "C" void omp_set_num_threads(int);
extern "C" int omp_get_max_threads();

namespace {

namespace ffi = xla::ffi;
using dnnl::memory;
using Tag = memory::format_tag;

enum : int64_t { kOutput = 0, kInput = 1, kKernel = 2 };

// All that a plan depends on, in one comparable value. The Python side fills the same fields.
struct Problem {
  int64_t result, batch, height, width, channels, kernel_height, kernel_width;
  int64_t out_height, out_width, out_channels, stride_height, stride_width;
  int64_t top, bottom, left, right;

  size_t SrcSize() const { return height * width * channels; }  // of one image
  size_t DstSize() const { return out_height * out_width * out_channels; }
  size_t KernelSize() const { return kernel_height * kernel_width * channels * out_channels; }

  bool operator<(const Problem& other) const {
    return std::memcmp(this, &other, sizeof(Problem)) < 0;
  }
};
static_assert(sizeof(Problem) == 16 * sizeof(int64_t));

// oneDNN asks OpenMP for the number of threads, per calling thread: one, while this lives.
class SingleThread {
 public:
  SingleThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SingleThread() { omp_set_num_threads(before_); }

 private:
  int before_;
};

dnnl::engine& Engine() {
  static auto* engine = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *engine;
}

// Memory that a thread keeps between its calls, aligned for vector loads.
float* Scratch(int slot, size_t bytes) {
  struct Buffer {
    std::unique_ptr<char[]> data;
    size_t size = 0;
  };
  thread_local std::array<Buffer, 2> buffers;
  Buffer& buffer = buffers[slot];
  if (buffer.size < bytes) {
    buffer.data.reset(new char[bytes + 64]);
    buffer.size = bytes;
  }
  auto address = reinterpret_cast<uintptr_t>(buffer.data.get());
  return reinterpret_cast<float*>((address + 63) / 64 * 64);
}

// A primitive for one problem, with the layouts it wants.
struct Plan {
  dnnl::primitive convolution;
  memory::desc src, weights, dst, scratchpad, hwio;
  dnnl::primitive reorder;  // hwio to weights, or back where the kernel is the result
  std::string implementation;
};

bool IsReference(const std::string& implementation) {
  return implementation.rfind("ref", 0) == 0 || implementation.rfind("simple", 0) == 0;
}

template <typename Descriptor>
void Fill(Plan& plan, const Descriptor& descriptor) {
  plan.convolution = dnnl::primitive(descriptor);
  plan.scratchpad = descriptor.scratchpad_desc();
  plan.implementation = descriptor.impl_info_str();
}

Plan MakePlan(const Problem& p, Tag images) {
  const auto f32 = memory::data_type::f32;
  Plan plan;
  const memory::dims kernel = {p.out_channels, p.channels, p.kernel_height, p.kernel_width};
  plan.src = {{p.batch, p.channels, p.height, p.width}, f32, images};
  plan.dst = {{p.batch, p.out_channels, p.out_height, p.out_width}, f32, images};
  plan.hwio = {kernel, f32, Tag::hwio};
  const memory::desc any(kernel, f32, Tag::any);
  const memory::dims strides = {p.stride_height, p.stride_width};
  const memory::dims low = {p.top, p.left}, high = {p.bottom, p.right};
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // plans are shared by threads

  const auto algorithm = dnnl::algorithm::convolution_direct;
  dnnl::convolution_forward::primitive_desc forward(
      Engine(), dnnl::prop_kind::forward_training, algorithm, plan.src, any, plan.dst, strides, low,
      high, attributes);
  if (p.result == kOutput) {
    Fill(plan, forward);
    plan.weights = forward.weights_desc();
  } else if (p.result == kInput) {
    dnnl::convolution_backward_data::primitive_desc backward(
        Engine(), algorithm, plan.src, any, plan.dst, strides, low, high, forward, attributes);
    Fill(plan, backward);
    plan.weights = backward.weights_desc();
  } else {
    dnnl::convolution_backward_weights::primitive_desc backward(
        Engine(), algorithm, plan.src, any, plan.dst, strides, low, high, forward, attributes);
    Fill(plan, backward);
    plan.weights = backward.diff_weights_desc();
  }
  if (plan.weights != plan.hwio) {
    const bool back = p.result == kKernel;
    plan.reorder = dnnl::reorder(dnnl::reorder::primitive_desc(
        Engine(), back ? plan.weights : plan.hwio, Engine(), back ? plan.hwio : plan.weights));
  }
  return plan;
}

// With 16 channels the blocked layout nChw16c and NHWC are the same memory, and oneDNN's input
// gradient is faster in the former, where the processor has it. (The other two results are not.)
Plan MakeBestPlan(const Problem& p) {
  if (p.result == kInput && p.channels == 16 && p.out_channels == 16) {
    try {
      Plan plan = MakePlan(p, Tag::nChw16c);
      if (!IsReference(plan.implementation)) return plan;
    } catch (const dnnl::error&) {
      // Not offered on this processor.
    }
  }
  return MakePlan(p, Tag::nhwc);
}

const Plan& PlanFor(const Problem& problem) {
  static auto* mutex = new std::mutex;
  static auto* plans = new std::map<Problem, Plan>;
  std::lock_guard<std::mutex> lock(*mutex);
  auto found = plans->find(problem);
  if (found == plans->end()) {
    SingleThread single;
    found = plans->emplace(problem, MakeBestPlan(problem)).first;
  }
  return found->second;
}

void RunPart(const Problem& p, float* src, float* kernel, float* dst) {
  const Plan& plan = PlanFor(p);
  if (IsReference(plan.implementation)) {
    throw std::runtime_error("oneDNN has no fast implementation, only " + plan.implementation);
  }
  SingleThread single;
  thread_local dnnl::stream stream(Engine());
  float* weights = plan.reorder ? Scratch(0, plan.weights.get_size()) : kernel;
  const memory hwio(plan.hwio, Engine(), kernel);
  const memory blocked(plan.weights, Engine(), weights);
  const memory images(plan.src, Engine(), src), maps(plan.dst, Engine(), dst);
  const memory scratchpad(plan.scratchpad, Engine(), Scratch(1, plan.scratchpad.get_size()));

  const bool backward = p.result == kKernel;
  if (plan.reorder && !backward) {
    plan.reorder.execute(stream, {{DNNL_ARG_FROM, hwio}, {DNNL_ARG_TO, blocked}});
  }
  plan.convolution.execute(
      stream, {{p.result == kInput ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, images},
               {backward ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, blocked},
               {p.result == kOutput ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, maps},
               {DNNL_ARG_SCRATCHPAD, scratchpad}});
  if (plan.reorder && backward) {
    plan.reorder.execute(stream, {{DNNL_ARG_FROM, blocked}, {DNNL_ARG_TO, hwio}});
  }
  stream.wait();
}

// Runs body(0) ... body(parts - 1) on the pool and on the calling thread. The caller takes whatever
// part nobody has begun, so a pool whose threads are all callers like itself cannot deadlock.
class Parts : public std::enable_shared_from_this<Parts> {
 public:
  Parts(int64_t count, std::function<void(int64_t)> body) : count_(count), body_(std::move(body)) {}

  void Run(ffi::ThreadPool& pool) {
    for (int64_t i = 1; i < count_; ++i) {
      pool.Schedule([self = shared_from_this()] { self->Work(); });
    }
    Work();
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [this] { return done_ == count_; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void Work() {
    for (int64_t i; (i = next_++) < count_;) {
      std::exception_ptr error;
      try {
        body_(i);
      } catch (...) {
        error = std::current_exception();
      }
      std::lock_guard<std::mutex> lock(mutex_);
      if (error) error_ = error;
      if (++done_ == count_) all_done_.notify_one();
    }
  }

  const int64_t count_;
  const std::function<void(int64_t)> body_;  // not called once all parts are taken
  std::atomic<int64_t> next_{0};
  std::mutex mutex_;
  std::condition_variable all_done_;
  int64_t done_ = 0;
  std::exception_ptr error_;
};

// A kernel gradient is the sum of the parts' gradients, which may take this much memory together.
constexpr size_t kPartialFloats = size_t{1} << 25;

void Convolve(const Problem& whole, ffi::ThreadPool& pool, float* src, float* kernel, float* dst) {
  const bool sum = whole.result == kKernel;
  const size_t size = whole.KernelSize();
  int64_t parts = std::clamp<int64_t>(pool.num_threads(), 1, whole.batch);
  if (sum) parts = std::min<int64_t>(parts, 1 + kPartialFloats / size);
  std::unique_ptr<float[]> partial(sum ? new float[(parts - 1) * size] : nullptr);

  auto run = [&whole, src, kernel, dst, sum, size, parts, partial = partial.get()](int64_t i) {
    Problem part = whole;
    const int64_t begin = whole.batch * i / parts;
    part.batch = whole.batch * (i + 1) / parts - begin;
    float* weights = sum && i > 0 ? partial + (i - 1) * size : kernel;  // the first in place
    RunPart(part, src + begin * whole.SrcSize(), weights, dst + begin * whole.DstSize());
  };
  std::make_shared<Parts>(parts, run)->Run(pool);
  for (int64_t i = 1; sum && i < parts; ++i) {
    for (size_t j = 0; j < size; ++j) kernel[j] += partial[(i - 1) * size + j];
  }
}

using Array = ffi::Buffer<ffi::F32>;
using Integers = ffi::Span<const int64_t>;

ffi::Error Call(ffi::ThreadPool pool, Array a, Array b, ffi::Result<Array> out, Integers problem) {
  Problem whole;
  if (problem.size() != 16) return ffi::Error::InvalidArgument("expected 16 integers");
  std::memcpy(&whole, problem.begin(), sizeof whole);
  if (whole.result < kOutput || whole.result > kKernel) {
    return ffi::Error::InvalidArgument("no such result: " + std::to_string(whole.result));
  }
  float* operands[] = {a.typed_data(), b.typed_data(), out->typed_data()};
  const size_t sizes[] = {a.element_count(), b.element_count(), out->element_count()};
  // Where src, kernel and dst are among (a, b, out), by result.
  constexpr int kPlaces[3][3] = {{0, 1, 2}, {2, 1, 0}, {0, 2, 1}};
  const int* place = kPlaces[whole.result];
  if (sizes[place[0]] != whole.batch * whole.SrcSize() || sizes[place[1]] != whole.KernelSize() ||
      sizes[place[2]] != whole.batch * whole.DstSize()) {
    return ffi::Error::InvalidArgument("the arrays do not have the sizes of the problem");
  }
  try {
    Convolve(whole, pool, operands[place[0]], operands[place[1]], operands[place[2]]);
  } catch (const dnnl::error& error) {
    return ffi::Error::Internal(std::string("oneDNN: ") + error.message);
  } catch (const std::exception& error) {
    return ffi::Error::Internal(error.what());
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(synscale_convolution, Call,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()
                                  .Arg<Array>()
                                  .Ret<Array>()
                                  .Attr<Integers>("problem"));

// The name of the implementation that oneDNN chooses for 16 integers that make up a Problem.
extern "C" const char* synscale_implementation(const int64_t* fields) {
  thread_local std::string name;
  try {
    Problem problem;
    std::memcpy(&problem, fields, sizeof problem);
    name = PlanFor(problem).implementation;
  } catch (const dnnl::error& error) {
    name = std::string("ref: ") + error.message;
  }
  return name.c_str();
}

extern "C" const char* synscale_onednn_version() {
  static const std::string version = [] {
    const dnnl_version_t* v = dnnl_version();
    return std::to_string(v->major) + "." + std::to_string(v->minor) + "." +
           std::to_string(v->patch);
  }();
  return version.c_str();
}
