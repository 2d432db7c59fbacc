// One row's filter parameters, made safe to compute with, and the thresholds that follow from sums over what a filter sees.
#pragma once
#include "core/order.h"
#include "core/philox.h"
#include "ops.h"

namespace warpdraw {

struct Filter {
  bool valid;
  std::int64_t k;                           // 0 is off
  float p, typical_p;                       // 1 is off
  float min_p, top_n_sigma, epsilon, eta;   // 0 is off
  float xtc_threshold;                      // above 1 is off, or the coin says no
  float temperature;                        // of the draw, before dynatemp
  float dynatemp_range, dynatemp_exponent;  // range 0 is off
  float scale;                              // exponent scale of the draw; with dynatemp set once the entropy is known
  Order order;

  WD_HD bool greedy() const { return k == 1; }
  WD_HD bool draws_last() const { return order == Order::llama_cpp; }  // temperature after the filters, which see temperature 1
  WD_HD float filter_scale() const { return draws_last() ? kLog2E : scale; }
};

// The filters in the middle of the chain, in the order of each preset. flashinfer_joint lets top_p see what top_k saw.
enum class Step { min_p, top_k, top_p, typical_p };
inline constexpr int kSteps = 4;
WD_HD inline Step step_of(Order order, int i) {
  switch (order) {
    case Order::vllm:
      return i == 0 ? Step::min_p : i == 1 ? Step::top_k : i == 2 ? Step::top_p : Step::typical_p;
    case Order::llama_cpp:
      return i == 0 ? Step::top_k : i == 1 ? Step::typical_p : i == 2 ? Step::top_p : Step::min_p;
    case Order::hf:
    case Order::flashinfer_joint:
      break;
  }
  return i == 0 ? Step::top_k : i == 1 ? Step::top_p : i == 2 ? Step::min_p : Step::typical_p;
}

WD_HD inline bool in_range(float x, float low, float high) { return x >= low && x <= high; }

// Temperature 0 is the first token of the total order, like k = 1. A parameter outside its domain makes the row invalid.
WD_HD inline Filter make_filter(float temperature, std::int32_t k, float p, float min_p, Order order) {
  Filter f{};
  f.valid = in_range(temperature, 0.0f, kLargest) && k >= 0 && in_range(p, 0.0f, 1.0f) && in_range(min_p, 0.0f, 1.0f);
  if (temperature == 0.0f) k = 1, temperature = 1.0f;
  f.k = k, f.p = p, f.min_p = min_p, f.typical_p = 1.0f, f.xtc_threshold = 2.0f;
  f.temperature = temperature, f.dynatemp_exponent = 1.0f, f.scale = exponent_scale(temperature), f.order = order;
  return f;
}

WD_HD inline Filter make_filter(const Parameters& in, std::int64_t row, Order order, const Noise& noise) {
  Filter f = make_filter(in.temperature[row], in.top_k[row], in.top_p[row], in.min_p[row], order);
  const float xtc = in.xtc_probability[row], threshold = in.xtc_threshold[row];
  f.top_n_sigma = in.top_n_sigma[row], f.epsilon = in.epsilon[row], f.eta = in.eta[row];
  f.dynatemp_range = in.dynatemp_range[row], f.dynatemp_exponent = in.dynatemp_exponent[row];
  f.typical_p = in.typical_p[row];
  f.valid = f.valid && in_range(f.typical_p, 0.0f, 1.0f) && in_range(f.top_n_sigma, 0.0f, kLargest) &&
            in_range(f.epsilon, 0.0f, 1.0f) && in_range(f.eta, 0.0f, 1.0f) && in_range(xtc, 0.0f, 1.0f) &&
            in_range(threshold, 0.0f, 1.0f) && in_range(f.dynatemp_range, 0.0f, kLargest) &&
            in_range(f.dynatemp_exponent, 0.0f, kLargest);
  // u = (r + 1/2) / 2^32 < probability
  if (xtc > 0.0f && (double(noise.bits(Stream::xtc, 0)) + 0.5) * 0x1p-32 < double(xtc)) f.xtc_threshold = threshold;
  return f;
}

// Sums over what a filter sees, weights relative to the largest of it.
struct Sums {
  std::uint64_t mass, moment;  // moment: of mass times -t
  std::int64_t count;

  // t averaged by mass.
  WD_HD float mean_exponent() const { return float(-(double(moment) / double(mass))); }
  // In nats.
  WD_HD double entropy() const { return log_mass(mass) + double(kLn2) * (double(moment) / double(mass)); }
};

// A token passes epsilon, eta or xtc if its mass is at least this.
WD_HD inline double epsilon_mass(float epsilon, const Sums& seen) { return double(epsilon) * double(seen.mass); }
WD_HD inline double eta_mass(float eta, const Sums& seen) {
  const double relative = sqrt(double(eta)) * double(weight(float(-seen.entropy() * double(kLog2E))));
  return (relative < double(eta) ? relative : double(eta)) * double(seen.mass);
}
WD_HD inline bool reaches(float w, double least_mass) { return double(mass(w)) >= least_mass; }

// Sets the temperature that the entropy of what is seen asks for; at 0 only the first token is left to draw.
WD_HD inline void set_dynamic_temperature(Filter& f, const Sums& seen) {
  double share = 0.0;
  if (seen.count > 1) share = seen.entropy() / natural_log(double(seen.count));
  share = share < 0.0 ? 0.0 : share > 1.0 ? 1.0 : share;
  if (f.dynatemp_exponent == 0.0f)
    share = 1.0;
  else if (f.dynatemp_exponent != 1.0f && share > 0.0)
    share = double(weight(float(double(f.dynatemp_exponent) * natural_log(share) * double(kLog2E))));
  const double range = double(f.dynatemp_range), middle = double(f.temperature);
  const double low = middle > range ? middle - range : 0.0, high = middle + range;
  const double temperature = low + (high - low) * share;
  f.temperature = temperature < double(kLargest) ? float(temperature) : kLargest;
  f.scale = f.temperature > 0.0f ? exponent_scale(f.temperature) : kLog2E;
}

// Distances from the largest logit in whole steps of 2^-20 of their range (a power of two), so that their sums are exact.
struct Deviations {
  double highest, scale;

  WD_HD Deviations(float x_max, float x_min) : highest(x_max) {
    int e;
    frexp(highest - double(x_min), &e);
    scale = ldexp(1.0, 20 - e);
  }
  WD_HD double steps(float x) const { return floor((highest - double(x)) * scale); }
  // max - n sigma, from the sums of steps and of their squares.
  WD_HD double threshold(float n, std::uint64_t sum, std::uint64_t squares, std::int64_t count) const {
    const double mean = double(sum) / double(count), square = double(squares) / double(count), variance = square - mean * mean;
    return highest - double(n) * (sqrt(variance > 0.0 ? variance : 0.0) / scale);
  }
};

}  // namespace warpdraw
