// Checks that results do not depend on the addresses of arrays. If arrays may overlap, the compiler
// emits two versions of a loop, which round differently and are selected by the distance in memory.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "cpu/rotate_score.h"
#include "cpu/row_loss.h"

using namespace mmkgc;
using namespace mmkgc::cpu;

namespace {

std::mt19937 source(3);
int failures = 0;

std::vector<float> normal(int n) {
  std::normal_distribution<float> draw;
  std::vector<float> out(static_cast<size_t>(n));
  for (float& x : out) x = draw(source);
  return out;
}

void hold(const char* what, int n, int gap, std::vector<float>& first, const std::vector<float>& now) {
  if (first.empty()) first = now;
  if (std::memcmp(first.data(), now.data(), sizeof(float) * now.size()) == 0) return;
  ++failures;
  std::printf("%s: width %d, %d numbers apart, differs\n", what, n, gap);
}

void losses(int n, bool by_entropy) {
  const std::vector<float> scores = normal(n + 1);
  std::vector<uint8_t> mask(static_cast<size_t>(n), 1);
  mask[1] = 0;
  RowLoss<float> loss{};
  loss.by_entropy = by_entropy;
  loss.adversarial = {{}, 1.0f, 0.0f, AdversarialForm::log_sigmoid};
  loss.entropy = {{}, 3.4f, 1.1f, 0.5f, 1.5f, 1.2f, 1.0f, NegativeReduction::mean, false};
  std::vector<float> room(4096), first;
  for (int gap = 0; gap < 40; ++gap) {
    for (const bool before : {false, true}) {
      float* s = room.data() + 1024;
      float* d = before ? s - (n + 1) - gap : s + (n + 1) + gap;
      std::memcpy(s, scores.data(), sizeof(float) * scores.size());
      const double value = loss(s, s + 1, mask.data(), n, d, d + 1);
      std::vector<float> now(d, d + n + 1);
      now.push_back(static_cast<float>(value));
      hold(by_entropy ? "entropy-weighted" : "self-adversarial", n, gap, first, now);
    }
  }
}

void rotations(int dim) {
  const std::vector<float> queries = normal(4 * dim), gradients = normal(4 * dim), phase = normal(dim);
  std::vector<float> room(8192), cosines(phase), sines(phase), d_phases(phase), first;
  const int64_t relation = 0, order = 0, starts[] = {0, 1};
  for (int gap = 0; gap < 40; ++gap) {
    float* known = room.data() + 2048;
    std::vector<float> q = queries;
    std::memcpy(known, gradients.data(), sizeof(float) * gradients.size());
    RotateTask<float> task{};
    task.phases = phase.data();
    task.relations = &relation;
    task.batch = 1;
    task.dim = dim;
    task.cosines = cosines.data();
    task.sines = sines.data();
    task.queries = q.data();
    task.d_known = known;
    task.d_phase_rows = known + 4 * dim + gap;
    task.order = &order;
    task.starts = starts;
    task.d_phases = d_phases.data();
    rotate_angles(task, 0, 1);
    rotate_backward(task, 0, 1);
    std::vector<float> now(task.d_phase_rows, task.d_phase_rows + dim);
    now.insert(now.end(), known, known + 4 * dim);
    hold("phases", dim, gap, first, now);
  }
}

}  // namespace

int main() {
  for (const int n : {4, 8, 12, 33, 64}) {
    losses(n, false);
    losses(n, true);
  }
  for (const int dim : {4, 8, 16, 20}) rotations(dim);
  return failures != 0;
}
