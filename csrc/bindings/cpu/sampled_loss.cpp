// Bindings of mmkgc::sampled_loss and mmkgc::rotate_loss, which have kernels on the CPU only.

#include <optional>
#include <tuple>
#include <vector>

#include "../../cpu/sampled_loss.h"
#include "../losses.h"
#include "../sampled_score.h"
#include "rotate_passes.h"

namespace mmkgc {
namespace {

// The loss of sampled scores: the mask and the settings, checked, and room for the results.
struct SampledLoss {
  const Scoring& scoring;
  std::optional<Tensor> mask;
  double offset;
  std::optional<SelfAdversarialSettings> adversarial;  // either this
  std::optional<EntropyWeightedSettings> entropy;      // or this
  Tensor loss, d_scores;

  // `kind` and `settings` are `loss` and `settings` of the schemas.
  SampledLoss(const Scoring& scoring_in, const std::optional<Tensor>& mask_in, double offset_in,
              int64_t kind, const std::vector<double>& settings)
      : scoring(scoring_in), offset(offset_in) {
    const char* op = scoring.op;
    const Tensor& ids = scoring.candidates.ids;
    STD_TORCH_CHECK(ids.size(1) >= 1, op,
                    "ids has no columns, expected the positives in the first column");
    mask = checked_mask(op, mask_in, "ids", ids);
    STD_TORCH_CHECK(kind == 0 || kind == 1, op, "loss is ", kind,
                    ", expected 0 (self_adversarial) or 1 (entropy_weighted)");
    if (kind == 0) {
      adversarial = unpacked<SelfAdversarialSettings>(settings);
    } else {
      entropy = unpacked<EntropyWeightedSettings>(settings);
    }
    loss = torch::stable::new_empty(scoring.queries, {});
    d_scores = scoring.new_scores();
  }

  // Runs the rows on all threads; `d_queries` has the shape of the queries or its rows flattened.
  template <typename T>
  void run(const Tensor& d_queries) const {
    cpu::SampledLossTask<T> task{};
    task.queries = scoring.queries.const_data_ptr<T>();
    task.table = scoring.table.const_data_ptr<T>();
    task.ids = scoring.candidates.ids.const_data_ptr<int64_t>();
    task.corrupted_side = scoring.candidates.corrupted_side.const_data_ptr<int8_t>();
    task.mask = mask_bytes(mask);
    task.mask_stride = mask ? mask->stride(0) : 0;
    task.sides = scoring.queries.size(0);
    task.batch = scoring.queries.size(1);
    task.n = scoring.candidates.ids.size(1);
    task.query_width = scoring.queries.size(2);
    task.candidate_width = scoring.table.size(1);
    task.metric = scoring.metric;
    task.pairs = scoring.pairs.data();
    task.n_pairs = static_cast<int64_t>(scoring.pairs.size());
    std::vector<Pair> swapped;
    for (const Pair& pair : scoring.pairs) {
      swapped.push_back({pair.candidate, pair.query, pair.width, pair.weight});
    }
    task.swapped = swapped.data();
    task.offset = static_cast<T>(offset);
    task.loss.by_entropy = entropy.has_value();
    if (entropy) {
      task.loss.entropy = entropy->task<T>({});
    } else {
      task.loss.adversarial = adversarial->task<T>({});
    }
    std::vector<double> losses(static_cast<size_t>(task.batch));
    task.losses = losses.data();
    task.d_scores = d_scores.mutable_data_ptr<T>();
    task.d_queries = d_queries.mutable_data_ptr<T>();
    torch::stable::parallel_for(0, task.batch, 8, [&](int64_t begin, int64_t end) {
      cpu::sampled_loss_rows(task, begin, end);
    });
    *loss.mutable_data_ptr<T>() = static_cast<T>(cpu::mean_of_rows(losses));
  }

 private:
  template <typename Settings>
  Settings unpacked(const std::vector<double>& settings) const {
    STD_TORCH_CHECK(settings.size() == Settings::kCount, scoring.op, "settings holds ",
                    settings.size(), " numbers, expected ", Settings::kCount);
    const Settings out = Settings::unpack(settings);
    out.check(scoring.op);
    return out;
  }
};

std::tuple<Tensor, Tensor, Tensor> sampled_loss(
    const Tensor& queries, const Tensor& table, const Tensor& ids, const Tensor& corrupted_side,
    std::optional<Tensor> mask, int64_t metric, const std::vector<int64_t>& pairs,
    const std::vector<double>& weights, double offset, int64_t loss_kind,
    const std::vector<double>& settings) {
  const Scoring scoring = checked_scoring("sampled_loss: ", queries, table, ids, corrupted_side,
                                          metric, pairs, weights, std::nullopt);
  const SampledLoss loss(scoring, mask, offset, loss_kind, settings);
  const Tensor d_queries = torch::stable::empty_like(scoring.queries);
  with_real(queries, [&]<typename T>() { loss.run<T>(d_queries); });
  return {loss.loss, loss.d_scores, d_queries};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> rotate_loss(
    const Tensor& table, const Tensor& phases, const Tensor& heads, const Tensor& relations,
    const Tensor& tails, const Tensor& ids, const Tensor& corrupted_side,
    std::optional<Tensor> mask, double offset, int64_t loss_kind,
    const std::vector<double>& settings) {
  const RotateArguments a("rotate_loss: ", table, phases, heads, relations, tails, ids,
                          corrupted_side);
  const SampledLoss loss(a.scoring, mask, offset, loss_kind, settings);
  const RotatePasses passes(a);
  const Tensor d_known = a.new_known_gradient();
  const Tensor d_phases = torch::stable::empty_like(a.phases);
  with_real(table, [&]<typename T>() {
    const cpu::RotateTask<T> rotation = passes.rotate_queries<T>();
    loss.run<T>(d_known);  // the gradients of the queries, which the next line replaces in place
    passes.rotate_back(rotation, d_known, d_phases);
  });
  return {loss.loss, loss.d_scores, a.scoring.queries, d_known, d_phases};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) {
  m.impl("sampled_loss", TORCH_BOX(&sampled_loss));
  m.impl("rotate_loss", TORCH_BOX(&rotate_loss));
}

}  // namespace mmkgc
