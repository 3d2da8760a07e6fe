// Rows of different lengths, cut into segments of a maximum length, so that a hub entity does not
// delay one thread or block. The segments depend on the rows alone and not on the number of
// threads, so that sums have the same bits everywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mmkgc {

struct Segment {
  int64_t row;
  int64_t begin;  // of the edges
  int64_t end;
  int64_t part;   // index of the partial sum, or -1 for a row with one segment
};

// A row that is the sum of the partial sums [begin, end).
struct SplitRow {
  int64_t row;
  int64_t begin;  // of the parts
  int64_t end;
};

struct Segments {
  std::vector<Segment> all;
  std::vector<SplitRow> split;
  int64_t parts = 0;
};

// `range(row)` returns the half-open range of the edges of a row as a pair.
template <typename Range>
Segments cut_rows(int64_t rows, int64_t longest, Range range) {
  Segments out;
  out.all.reserve(static_cast<std::size_t>(rows));
  for (int64_t row = 0; row < rows; ++row) {
    const auto [begin, end] = range(row);
    if (end - begin <= longest) {
      out.all.push_back({row, begin, end, -1});
      continue;
    }
    const int64_t first = out.parts;
    for (int64_t at = begin; at < end; at += longest) {
      out.all.push_back({row, at, at + longest < end ? at + longest : end, out.parts++});
    }
    out.split.push_back({row, first, out.parts});
  }
  return out;
}

// Boundaries of ranges of segments with about the same number of edges. The constant accounts for
// writing a row, which a segment without edges does too.
inline std::vector<int64_t> even_bounds(const std::vector<Segment>& segments, int64_t ranges) {
  const auto work = [](const Segment& s) { return s.end - s.begin + 4; };
  int64_t total = 0, done = 0, range = 1;
  for (const Segment& s : segments) total += work(s);
  std::vector<int64_t> bounds(static_cast<std::size_t>(ranges) + 1,
                              static_cast<int64_t>(segments.size()));
  bounds[0] = 0;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    done += work(segments[i]);
    while (range < ranges && done * ranges >= total * range) {
      bounds[static_cast<std::size_t>(range++)] = static_cast<int64_t>(i) + 1;
    }
  }
  return bounds;
}

}  // namespace mmkgc
