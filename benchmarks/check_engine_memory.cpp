// Calls the engine on buffers of exactly the promised sizes. See check_engine_memory.sh.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "engine.h"
#include "tables.h"

extern "C" {
int best_isa();
index_t packed_size(int isa, index_t in, index_t other, index_t cells);
index_t gradient_size(int isa, index_t in, index_t other, index_t cells);
typedef void (*Team)(void (*)(void *), void *, unsigned, unsigned);
void pack(int isa, const Filter *, index_t slices, Team);
void unpack(int isa, const Filter *, index_t slices, Team);
int run(int isa, const Task *, Team);
}

static unsigned state = 1;

static index_t draw(index_t least, index_t most) {
  state = state * 1664525u + 1013904223u;
  return least + (state >> 8) % (most - least + 1);
}

// On the heap and exactly as long, so that the sanitizer sees the first float beyond it.
static std::vector<float> numbers(index_t count) {
  std::vector<float> made(count);
  for (float &value : made) value = static_cast<float>(draw(-100, 100)) / 100;
  made.shrink_to_fit();
  return made;
}

// The same as bytes, every number in two if `half`: bfloat16 is the upper half.
static std::vector<char> maps(index_t count, bool half) {
  const std::vector<float> values = numbers(count);
  const char *from = reinterpret_cast<const char *>(values.data());
  std::vector<char> made;
  for (index_t i = 0; i < 4 * count; i++)
    if (!half || i % 4 > 1) made.push_back(from[i]);
  made.shrink_to_fit();
  return made;
}

static bool told;  // whether each sum is printed

// Of maps or filters, every number with a weight of its own; beside it, how large the numbers are.
static double sum_of(const char *bytes, size_t count, bool half) {
  double sum = 0, size = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t bits = 0;
    memcpy(reinterpret_cast<char *>(&bits) + (half ? 2 : 0), bytes + i * (half ? 2 : 4), half ? 2 : 4);
    float value;
    memcpy(&value, &bits, 4);
    sum += value * (1 + i % 7), size += (value < 0 ? -value : value) * (1 + i % 7);
  }
  if (told) printf("sum %d %.12g %.12g\n", half, sum, size);
  return sum;
}

static double sum_of(const std::vector<char> &map, bool half) { return sum_of(map.data(), map.size() / (half ? 2 : 4), half); }

static double sum_of(const std::vector<float> &values) {
  return sum_of(reinterpret_cast<const char *>(values.data()), values.size(), false);
}

static double one_case(int isa) {
  const index_t size = draw(1, 5), cells = size * size, layer_in = draw(1, 6), layer_other = draw(1, 11);
  const index_t sites = draw(0, 1) ? 4 : 1, in_blocks = draw(0, 1), batch = draw(1, 4);
  const index_t in = layer_in * (in_blocks ? sites : 1), other = layer_other * (in_blocks ? 1 : sites);
  const index_t padding = draw(-1, size + 1), least = size > 2 * padding ? size - 2 * padding : 1;
  const index_t height = draw(least, least + 18), width = draw(least, least + 37);
  const index_t out_height = height + 2 * padding - size + 1, out_width = width + 2 * padding - size + 1;
  const index_t slices = draw(1, 3), floats = gradient_size(isa, in, other, cells);
  const index_t bfloat16 = draw(0, 7), outputs = batch * other * order * out_height * out_width;
  std::vector<char> x = maps(batch * in * order * height * width, bfloat16 & 1);
  std::vector<char> out = maps(outputs, bfloat16 & 2), plain = maps(outputs, bfloat16 & 4);
  const index_t entries = order * cells * sites;
  std::vector<float> weight = numbers(layer_other * layer_in * entries);
  std::vector<float> bias = numbers(other), packed(packed_size(isa, in, other, cells)), gradient(slices * floats);
  Filter filter = {weight.data(), packed.data(), (sites > 1 ? blocks_entrys : entrys)[size - 1], in, other, layer_in,
                   layer_other, entries, layer_in * entries, cells, slices};
  pack(isa, &filter, draw(1, 3), NULL);
  Task task = {REGULAR, x.data(), packed.data(), bias.data(), out.data(), plain.data(), gradient.data(),
               shifts[size - 1], batch, in, other, height, width, out_height, out_width,
               padding, 1, size, cells, draw(1, 9), slices, NULL, NULL, bfloat16};
  if (draw(0, 2) == 0) task.plain = NULL, task.filter_gradient = NULL;
  if (draw(0, 2) == 0) task.bias = NULL;
  if (task.plain && draw(0, 2) == 0) task.out = NULL, task.filter = NULL;
  if (run(isa, &task, NULL)) abort();
  filter.packed = gradient.data();
  unpack(isa, &filter, draw(1, 3), NULL);
  const double of_out = sum_of(out, bfloat16 & 2);  // one by one: compilers may order the terms of a sum
  return of_out + sum_of(weight);
}

// Planes to fields, forwards and both ways back. A block of at least half as many rows fills a vector.
static double one_lifting(int isa) {
  const index_t size = draw(1, 5), cells = size * size, in = draw(1, 4), other = draw(1, 7), batch = draw(1, 4);
  const index_t padding = draw(0, size + 1), out_height = draw(1, 24);
  const index_t out_width = draw((15 + out_height) / out_height, 40);
  const index_t stride = draw(1, 3), rest = draw(0, stride - 1);  // columns and rows that no window reaches
  const index_t height = (out_height - 1) * stride + size + rest - 2 * padding;
  const index_t width = (out_width - 1) * stride + size + rest - 2 * padding;
  if (height < 1 || width < 1) return 0;
  const index_t rows = draw(0, 1) ? out_height : 2 * ((15 + out_width) / out_width) + 2;
  const index_t slices = draw(1, 3), bfloat16 = draw(0, 7), channels = other * order;
  const index_t outputs = batch * channels * out_height * out_width;
  std::vector<char> x = maps(batch * in * height * width, bfloat16 & 1);
  std::vector<char> out = maps(outputs, bfloat16 & 2), plain = maps(outputs, bfloat16 & 4);
  std::vector<float> weight = numbers(other * in * cells), bias = numbers(other);
  std::vector<float> sums(slices * (in * cells + 1) * channels), of_weight = weight, of_bias = bias;
  const index_t kind = draw(0, 1) ? LIFTING : LIFTING_BACKWARDS;
  Task task = {kind, x.data(), weight.data(), bias.data(), out.data(), NULL, NULL, lifting_entrys[size - 1],
               batch, in, other, height, width, out_height, out_width, padding, stride, size, cells, rows, slices,
               NULL, NULL, bfloat16};
  if (kind == LIFTING_BACKWARDS || draw(0, 1)) task.out = NULL, task.plain = plain.data();
  if (kind == LIFTING && !task.out) {
    task.filter = NULL, task.filter_gradient = sums.data();
    task.weight_gradient = of_weight.data(), task.bias_gradient = of_bias.data();
  }
  if (draw(0, 2) == 0) task.bias = NULL;
  if (run(isa, &task, NULL)) abort();
  double sum = sum_of(out, bfloat16 & 2);
  sum += sum_of(x, bfloat16 & 1);
  sum += sum_of(of_weight);
  return sum + sum_of(of_bias);
}

// Maps to blocks of sites and back, by any table.
static double one_move(int isa) {
  const index_t side = draw(2, 5), planes = order * side * side, batch = draw(1, 4), fields = draw(1, 3);
  const index_t padding = draw(0, side + 1), out_height = draw(1, 7), out_width = draw(1, 21);
  const index_t height = out_height * side - 2 * padding, width = out_width * side - 2 * padding;
  if (height < 1 || width < 1) return 0;
  const index_t kind = draw(0, 1) ? TO_BLOCKS : FROM_BLOCKS, bfloat16 = draw(0, 1);
  std::vector<char> x = maps(batch * fields * order * height * width, bfloat16);
  std::vector<char> blocks = maps(batch * fields * planes * out_height * out_width, bfloat16);
  std::vector<int32_t> sites;
  for (index_t n = 0, first = draw(0, planes - 1); n < planes; n++) {
    const int32_t site = static_cast<int32_t>((first + n) % planes), each = static_cast<int32_t>(side);
    for (int32_t part : {site / each / each, site / each % each, site % each}) sites.push_back(part);
  }
  sites.shrink_to_fit();
  Task task = {kind, x.data(), NULL, NULL, blocks.data(), NULL, NULL, sites.data(),
               batch, fields * order, fields * planes, height, width, out_height, out_width, padding, 1, side, 0, 0,
               draw(1, 3), NULL, NULL, bfloat16};
  if (run(isa, &task, NULL)) abort();
  return sum_of(kind == TO_BLOCKS ? blocks : x, bfloat16);
}

int main(int count, char **words) {
  const int rounds = count > 1 ? atoi(words[1]) : 150;
  told = count > 2;
  double sum = 0;
  for (int isa = 0; isa <= best_isa(); isa++)
    for (int round = 0; round < rounds; round++) {
      sum += one_case(isa);
      sum += one_lifting(isa);
      sum += one_move(isa);
    }
  printf("%d cases, sum %g\n", 3 * rounds * (best_isa() + 1), sum);
  return sum == sum ? 0 : 1;
}
