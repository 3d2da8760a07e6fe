// The schemas of all ops. The kernels of each device are registered in cpu/ and cuda/.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(mmkgc, m) {
  m.def(
      "rank_candidates(Tensor queries, Tensor table, Tensor target_ptr, Tensor target_ids, "
      "Tensor filter_ptr, Tensor filter_ids, int metric, int[] pairs, float[] weights, "
      "Tensor? scale=None) -> (Tensor better, Tensor equal, Tensor nonfinite)");
  m.def(
      "sampled_score(Tensor queries, Tensor table, Tensor ids, Tensor corrupted_side, int metric, "
      "int[] pairs, float[] weights, Tensor? scale=None, Tensor? order=None) -> Tensor");
  m.def(
      "sampled_score_backward(Tensor grad, Tensor queries, Tensor table, Tensor ids, "
      "Tensor corrupted_side, int metric, int[] pairs, float[] weights, Tensor? scale=None, Tensor? order=None) -> "
      "(Tensor d_queries, Tensor d_table, Tensor d_scale)");
  m.def(
      "sampled_score_backward_queries(Tensor grad, Tensor queries, Tensor table, Tensor ids, "
      "Tensor corrupted_side, int metric, int[] pairs, float[] weights, Tensor? scale=None, "
      "Tensor? order=None) -> (Tensor d_queries, Tensor d_scale)");
  m.def(
      "rotate_score(Tensor table, Tensor phases, Tensor heads, Tensor relations, Tensor tails, "
      "Tensor ids, Tensor corrupted_side, Tensor? order=None) -> Tensor");
  m.def(
      "rotate_score_backward(Tensor grad, Tensor table, Tensor phases, Tensor heads, "
      "Tensor relations, Tensor tails, Tensor ids, Tensor corrupted_side, Tensor? order=None) -> "
      "(Tensor d_table, Tensor d_phases)");
  m.def(
      "rotate_score_backward_queries(Tensor grad, Tensor table, Tensor phases, Tensor heads, "
      "Tensor relations, Tensor tails, Tensor ids, Tensor corrupted_side, Tensor? order=None) -> "
      "(Tensor queries, Tensor d_known, Tensor d_phases)");
  m.def(
      "sampled_loss(Tensor queries, Tensor table, Tensor ids, Tensor corrupted_side, Tensor? mask, "
      "int metric, int[] pairs, float[] weights, float offset, int loss, float[] settings) -> "
      "(Tensor loss, Tensor d_scores, Tensor d_queries)");
  m.def(
      "rotate_loss(Tensor table, Tensor phases, Tensor heads, Tensor relations, Tensor tails, "
      "Tensor ids, Tensor corrupted_side, Tensor? mask, float offset, int loss, "
      "float[] settings) -> (Tensor loss, Tensor d_scores, Tensor queries, Tensor d_known, Tensor d_phases)");
  m.def(
      "table_adam(Tensor grad, Tensor queries, Tensor(a!) table, Tensor(b!) exp_avg, "
      "Tensor(c!) exp_avg_sq, Tensor ids, Tensor corrupted_side, int metric, int[] pairs, "
      "float[] weights, Tensor? scale, Tensor? order, Tensor? extra, Tensor? extra_ids, Tensor? dense, float lr, "
      "float beta1, float beta2, float eps, float weight_decay, bool decoupled, int step, "
      "Tensor? counter=None) -> "
      "Tensor");
  m.def(
      "filtered_negatives(Tensor positives, Tensor head_share, Tensor tail_keys, Tensor tail_ptr, "
      "Tensor tail_answers, Tensor head_keys, Tensor head_ptr, Tensor head_answers, int entities, "
      "int n, int choice, int rounds, bool with_positive, int seed, int step, "
      "Tensor? counter=None) -> "
      "(Tensor ids, Tensor corrupted_side, Tensor mask, Tensor order)");
  m.def(
      "rgcn_propagate(Tensor x, Tensor coefficients, Tensor ptr, Tensor source, Tensor relation, "
      "Tensor norm, Tensor back_ptr, Tensor back_target, Tensor back_relation, Tensor back_norm, "
      "Tensor? rows=None, Tensor? sources=None) -> Tensor");
  m.def(
      "rgcn_propagate_backward(Tensor grad, Tensor x, Tensor coefficients, Tensor back_ptr, "
      "Tensor back_target, Tensor back_relation, Tensor back_norm, Tensor? rows, "
      "Tensor? sources, bool need_x, bool need_coefficients) -> "
      "(Tensor d_x, Tensor d_coefficients)");
  m.def(
      "self_adversarial_loss(Tensor positive, Tensor negative, Tensor? mask, float temperature, "
      "int form, float margin) -> (Tensor loss, Tensor d_positive, Tensor d_negative)");
  m.def(
      "entropy_weighted_loss(Tensor positive, Tensor negative, Tensor? mask, float easy_above, "
      "float hard_upto, float[] weights, int reduction, float temperature, bool one_sided) -> "
      "(Tensor loss, Tensor d_positive, Tensor d_negative)");
}
