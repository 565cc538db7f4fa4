// The event-driven path of _engine.py as one loop of C++, on the same arrays.
//
// A step is some 60 neurons' arithmetic: less than XLA takes to start the kernels for it. Order and
// formulas are those of network.step.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

// Rows of `parameters`, one value a neuron.
enum { kLeak, kRest, kExcitatoryReversal, kInhibitoryReversal, kExcitatoryLeft, kInhibitoryLeft,
       kThresholdRate, kThreshold, kReset, kJump, kRefractory };
// Entries of `constants`.
enum { kFade, kPreRate, kPotentiation, kDepression, kMaximum, kDecayRate, kPartner, kInhibition,
       kContinuous };
// Rows of `cells`, as in LIFState, and the postsynaptic trace.
enum { kPotential, kExcitatory, kInhibitory, kAdaptive, kWait, kPost };
// Entries of `control` and `time`.
enum { kCount, kBegin, kEnd };
enum { kNow, kPending, kLastSpike };

template <typename T>
struct Network {
  int64_t n, inputs, length;  // excitatory neurons, inputs, slots of arrivals
  const int32_t *steps, *who, *control;
  const T *parameters, *threshold, *at_input, *at_output, *constants;
  const int32_t *partner_delay, *inhibition_delay;
  T *cells, *rows, *arrivals;
  int32_t *last_input, *counts, *time;

  T* cell(int row) { return cells + row * 2 * n; }
  const T* parameter(int row) { return parameters + row * 2 * n; }
  const T* limit() { return constants[kContinuous] != 0 ? cell(kAdaptive) : threshold; }
  T* slot(int32_t step) {
    int64_t place = step % length;
    return arrivals + (place < 0 ? place + length : place) * 2 * n;
  }

  // One step of all neurons; what arrived in the step before is delivered first.
  bool Integrate(int32_t& now) {
    T* __restrict v = cell(kPotential);
    T* __restrict ge = cell(kExcitatory);
    T* __restrict gi = cell(kInhibitory);
    T* __restrict adaptive = cell(kAdaptive);
    T* __restrict wait = cell(kWait);
    T* __restrict post = cell(kPost);
    if (now - time[kLastSpike] < length) {
      const T* __restrict arriving = slot(now);
      for (int64_t j = 0; j < n; ++j) gi[j] += arriving[j];
      for (int64_t j = n; j < 2 * n; ++j) ge[j] += arriving[j];
    }
    const T* __restrict leak = parameter(kLeak);
    const T* __restrict rest = parameter(kRest);
    const T* __restrict up = parameter(kExcitatoryReversal);
    const T* __restrict down = parameter(kInhibitoryReversal);
    const T* __restrict ge_left = parameter(kExcitatoryLeft);
    const T* __restrict gi_left = parameter(kInhibitoryLeft);
    const T* __restrict rate = parameter(kThresholdRate);
    const T* __restrict base = parameter(kThreshold);
    const T fade = constants[kFade];
    for (int64_t j = 0; j < 2 * n; ++j) {
      T pull = rest[j] - v[j];
      pull += ge[j] * (up[j] - v[j]);
      pull += gi[j] * (down[j] - v[j]);
      v[j] += leak[j] * pull;
      ge[j] *= ge_left[j];
      gi[j] *= gi_left[j];
      adaptive[j] += rate[j] * (base[j] - adaptive[j]);
      wait[j] = wait[j] > 1 ? wait[j] - 1 : 0;
      post[j] *= fade;
    }
    ++now;
    const T* over = limit();
    int any = 0;
    for (int64_t j = 0; j < 2 * n; ++j) any |= (v[j] > over[j]) & (wait[j] <= 0);
    return any != 0;
  }

  T Clip(T weight) const {
    const T most = constants[kMaximum];
    return weight < 0 ? 0 : (weight > most ? most : weight);
  }

  void InputSpike(int32_t who, int32_t now) {
    const T silent = static_cast<T>(now - last_input[who]);
    if (silent == 0) return;  // a second point of the same step is the same spike
    T* __restrict row = rows + who * (n + 1);
    T* __restrict ge = cell(kExcitatory);
    const T* __restrict post = cell(kPost);
    const T lost = silent * constants[kDecayRate];
    const T left = lost == 0 ? T(1) : std::exp(-lost * lost);
    for (int64_t j = 0; j < n; ++j) {
      const T weight = row[j] * left;
      ge[j] += weight;
      row[j] = Clip(weight + at_input[j] * post[j]);
    }
    row[n] = row[n] * std::exp(silent * constants[kPreRate]) + constants[kPotentiation];
    last_input[who] = now;
  }

  void OutputSpikes(int32_t now) {
    const T *v = cell(kPotential), *over = limit();
    T* wait = cell(kWait);
    const int32_t still = time[kLastSpike] + length - 1 - now;
    for (int64_t ahead = 0; ahead < length; ++ahead)
      if (ahead > still) std::memset(slot(now + ahead), 0, 2 * n * sizeof(T));
    time[kLastSpike] = now;
    for (int64_t j = 0; j < 2 * n; ++j) {
      if (!(v[j] > over[j] && wait[j] <= 0)) continue;
      ++counts[j];
      if (j < n) {
        for (int64_t i = 0; i < inputs; ++i) {
          T* row = rows + i * (n + 1);
          const T pre = row[n] * std::exp(static_cast<T>(now - last_input[i]) * constants[kPreRate]);
          row[j] = Clip(row[j] + at_output[j] * pre);
        }
        cell(kPost)[j] += constants[kDepression];
        slot(now + partner_delay[j])[n + j] += constants[kPartner];
      } else {
        const int32_t* delay = inhibition_delay + (j - n) * n;
        for (int64_t to = 0; to < n; ++to)
          if (to != j - n) slot(now + delay[to])[to] += constants[kInhibition];
      }
    }
    // Resets come last: thresholds that adapt are still those of this step above.
    for (int64_t j = 0; j < 2 * n; ++j) {
      if (!(v[j] > over[j] && wait[j] <= 0)) continue;
      wait[j] = parameter(kRefractory)[j];
      cell(kPotential)[j] = parameter(kReset)[j];
      cell(kAdaptive)[j] += parameter(kJump)[j];
    }
  }

  void Advance() {
    int32_t now = time[kNow], event = 0;
    const int32_t count = control[kCount], begin = control[kBegin], end = control[kEnd];
    bool pending = time[kPending];
    while (event < count && (now < end - 1 || pending || begin + steps[event] < end)) {
      const int32_t due = begin + steps[event];
      const int32_t until = due < end - 1 ? due : end - 1;
      while (!pending && now < until) pending = Integrate(now);
      while (event < count && begin + steps[event] == now) InputSpike(who[event++], now);
      if (pending && event < count) {
        OutputSpikes(now);
        pending = false;
      }
    }
    time[kNow] = now;
    time[kPending] = pending;
  }
};

template <ffi::DataType type>
ffi::Error Call(ffi::Buffer<ffi::S32> steps, ffi::Buffer<ffi::S32> who,
                ffi::Buffer<ffi::S32> control, ffi::Buffer<type> parameters,
                ffi::Buffer<type> threshold, ffi::Buffer<type> at_input,
                ffi::Buffer<type> at_output, ffi::Buffer<type> constants,
                ffi::Buffer<ffi::S32> partner_delay, ffi::Buffer<ffi::S32> inhibition_delay,
                ffi::Buffer<type> cells_in, ffi::Buffer<type> rows_in,
                ffi::Buffer<type> arrivals_in, ffi::Buffer<ffi::S32> last_input_in,
                ffi::Buffer<ffi::S32> counts_in, ffi::Buffer<ffi::S32> time_in,
                ffi::ResultBuffer<type> cells, ffi::ResultBuffer<type> rows,
                ffi::ResultBuffer<type> arrivals, ffi::ResultBuffer<ffi::S32> last_input,
                ffi::ResultBuffer<ffi::S32> counts, ffi::ResultBuffer<ffi::S32> time) {
  using T = ffi::NativeType<type>;
  const auto n = partner_delay.element_count(), inputs = last_input_in.element_count();
  const auto known = steps.element_count();
  if (control.element_count() != 3 || time_in.element_count() != 3 || n == 0 ||
      parameters.element_count() != (kRefractory + 1) * 2 * n || threshold.element_count() != 2 * n ||
      at_input.element_count() != n || at_output.element_count() != n ||
      constants.element_count() != kContinuous + 1 || inhibition_delay.element_count() != n * n ||
      cells_in.element_count() != (kPost + 1) * 2 * n || counts_in.element_count() != 2 * n ||
      rows_in.element_count() != inputs * (n + 1) || arrivals_in.element_count() == 0 ||
      arrivals_in.element_count() != arrivals_in.dimensions()[0] * 2 * n ||
      who.element_count() != known)
    return ffi::Error::InvalidArgument("the state is of another network");
  const int32_t count = control.typed_data()[kCount];
  if (count < 0 || static_cast<decltype(known)>(count) > known)
    return ffi::Error::InvalidArgument("there are fewer input spikes than their count says");
  for (int32_t event = 0; event < count; ++event) {
    const int32_t input = who.typed_data()[event];
    if (input < 0 || static_cast<decltype(inputs)>(input) >= inputs)
      return ffi::Error::InvalidArgument("a spike is of an input that is not there");
    if (event > 0 && steps.typed_data()[event] < steps.typed_data()[event - 1])
      return ffi::Error::InvalidArgument("input spikes are not in the order of their steps");
  }
  // The results are the state's own memory where XLA could arrange it.
  auto carry = [](const auto& from, auto& to) {
    if (to->untyped_data() != from.untyped_data())
      std::memcpy(to->untyped_data(), from.untyped_data(), from.size_bytes());
  };
  carry(cells_in, cells);
  carry(rows_in, rows);
  carry(arrivals_in, arrivals);
  carry(last_input_in, last_input);
  carry(counts_in, counts);
  carry(time_in, time);
  Network<T> network{
      static_cast<int64_t>(n), static_cast<int64_t>(inputs),
      arrivals_in.dimensions()[0],
      steps.typed_data(), who.typed_data(), control.typed_data(),
      parameters.typed_data(), threshold.typed_data(), at_input.typed_data(),
      at_output.typed_data(), constants.typed_data(),
      partner_delay.typed_data(), inhibition_delay.typed_data(),
      cells->typed_data(), rows->typed_data(), arrivals->typed_data(),
      last_input->typed_data(), counts->typed_data(), time->typed_data()};
  network.Advance();
  return ffi::Error::Success();
}

template <ffi::DataType type>
auto Binding() {
  using I = ffi::Buffer<ffi::S32>;
  using F = ffi::Buffer<type>;
  return ffi::Ffi::Bind()
      .Arg<I>().Arg<I>().Arg<I>().template Arg<F>().template Arg<F>().template Arg<F>()
      .template Arg<F>().template Arg<F>().template Arg<I>().template Arg<I>()
      .template Arg<F>().template Arg<F>().template Arg<F>().template Arg<I>()
      .template Arg<I>().template Arg<I>()
      .template Ret<F>().template Ret<F>().template Ret<F>().template Ret<I>()
      .template Ret<I>().template Ret<I>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(synscale_spiking_f32, Call<ffi::F32>, Binding<ffi::F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(synscale_spiking_f64, Call<ffi::F64>, Binding<ffi::F64>());
