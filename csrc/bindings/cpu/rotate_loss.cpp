// Torch glue of mmkgc::rotate_loss; the work is in cpu/.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

#include "loss_rows_pass.h"
#include "rotate_passes.h"

namespace mmkgc {
namespace {

constexpr const char* kOp = "rotate_loss: ";

template <typename T>
void run(const RotatePasses& passes, const std::optional<Tensor>& usable,
         const LossSettings& settings, double offset, const Tensor& loss, const Tensor& d_scores,
         const Tensor& d_known, const Tensor& d_phases) {
  const cpu::RotateTask<T> rotate = passes.make_queries<T>();
  cpu::SampledLossTask<T> task{};
  task.queries = rotate.queries;
  task.table = rotate.table;
  task.sides = RotatePasses::kSides;
  task.query_width = task.candidate_width = passes.table.size(1);
  task.metric = Metric::modulus;
  task.pairs = &passes.whole;
  task.n_pairs = 1;
  task.d_queries = d_known.mutable_data_ptr<T>();  // turned back in place below
  pass_over_candidates(task, passes.candidates, usable, settings, offset, d_scores, loss);
  passes.turn_back(rotate, d_known, d_phases);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> rotate_loss(
    const Tensor& table, const Tensor& phases, const Tensor& heads, const Tensor& relations,
    const Tensor& tails, const Tensor& ids, const Tensor& side, std::optional<Tensor> usable_in,
    double offset, int64_t loss_kind, const std::vector<double>& loss_settings) {
  const RotatePasses passes(kOp, table, phases, heads, relations, tails, ids, side);
  const std::optional<Tensor> usable = checked_usable(kOp, usable_in, passes.candidates.ids);
  const LossSettings settings(kOp, loss_kind, loss_settings);
  const Tensor loss = torch::stable::new_empty(table, {});
  const Tensor d_scores = torch::stable::new_empty(
      table, {passes.heads.size(0), passes.candidates.ids.size(1)});
  const Tensor d_known = passes.new_known();
  const Tensor d_phases = torch::stable::empty_like(passes.phases);
  const bool single = table.scalar_type() == ScalarType::Float;
  (single ? run<float> : run<double>)(passes, usable, settings, offset, loss, d_scores, d_known,
                                      d_phases);
  return {loss, d_scores, passes.queries, d_known, d_phases};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmkgc, CPU, m) { m.impl("rotate_loss", TORCH_BOX(&rotate_loss)); }

}  // namespace mmkgc
