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

// A table that holds each number below `count` once.
static std::vector<int32_t> any_order(index_t count) {
  std::vector<int32_t> table;
  for (index_t n = 0, first = draw(0, count - 1); n < count; n++) table.push_back(static_cast<int32_t>((first + n) % count));
  table.shrink_to_fit();
  return table;
}

// A table of `count` numbers that holds each below `known` once, and -1 otherwise.
static std::vector<int32_t> some_of(index_t count, index_t known) {
  std::vector<int32_t> table = any_order(count);
  for (int32_t &entry : table)
    if (entry >= known) entry = -1;
  return table;
}

// Which of so many planes each element of the group may be the largest on.
static std::vector<int32_t> any_pool(index_t planes) {
  std::vector<int32_t> pool = any_order(order);
  for (int32_t &plane : pool) plane = static_cast<int32_t>(plane % planes);
  return pool;
}

// Between fields; one side may be in blocks of sites, or of a quotient; what is written may be pooled and rectified.
static double one_case(int isa) {
  const index_t blocked = draw(0, 2), side = blocked ? draw(2, 6) : 1, sites = side * side, cut = blocked ? draw(0, 1) : 0;
  const index_t size = draw(1, blocked ? 3 : 5), cells = size * size, batch = draw(1, 4);
  const index_t layer_in = draw(1, blocked ? 3 : 6), layer_other = draw(1, 11);
  const index_t in = layer_in * (blocked == PATCHED ? sites : 1), other = layer_other * (blocked == OTHER ? sites : 1);
  const index_t padding = blocked == PATCHED ? 0 : draw(-1, size + 1), least = size > 2 * padding ? size - 2 * padding : 1;
  const index_t height = draw(least, least + (blocked ? 5 : 18)), width = draw(least, least + (blocked ? 17 : 37));
  const index_t out_height = height + 2 * padding - size + 1, out_width = width + 2 * padding - size + 1;
  const index_t map_padding = cut ? 0 : draw(0, side + 1);
  const index_t map_height = (blocked == PATCHED ? height : out_height) * side - 2 * map_padding;
  const index_t map_width = (blocked == PATCHED ? width : out_width) * side - 2 * map_padding;
  if (blocked && !cut && (map_height < 1 || map_width < 1)) return 0;
  const index_t whole = map_height * map_width, mapped = blocked && !cut;
  const index_t halved = !blocked && order % 2 == 0 ? draw(1, 2) : 1, fiber = order / halved;
  const bool other_halved = draw(0, 1), backwards = other_halved && halved > 1;
  const bool pooled = blocked != OTHER && !backwards && draw(0, 2) == 0;
  const index_t left = pooled ? draw(1, order) : order;
  const index_t planes_in = backwards ? order : fiber, planes_out = backwards ? fiber : left;
  const index_t inputs = batch * planes_in * (mapped && blocked == PATCHED ? layer_in * whole : in * height * width);
  const index_t outputs = batch * planes_out * (mapped && blocked == OTHER ? layer_other * whole : other * out_height * out_width);
  const index_t slices = draw(1, 3), floats = gradient_size(isa, in, other, cells), entries = fiber * cells * sites;
  const index_t bfloat16 = draw(0, 7);
  std::vector<char> x = maps(inputs, bfloat16 & 1);
  std::vector<char> out = maps(outputs, bfloat16 & 2), plain = maps(outputs, bfloat16 & 4);
  std::vector<float> weight = numbers(layer_other * layer_in * entries);
  std::vector<float> bias = numbers(other), packed(packed_size(isa, in, other, cells)), gradient(slices * floats);
  const std::vector<int32_t> entry = some_of(order * cells * sites, entries), fields = any_order(order);
  const std::vector<int32_t> pool = any_pool(left);
  std::vector<int32_t> planes, halves;
  for (int32_t element : fields) halves.push_back(static_cast<int32_t>(element / halved));
  halves.shrink_to_fit();
  for (int32_t plane : any_order(order * sites))
    for (index_t part : {plane / sites, plane / side % side, plane % side}) planes.push_back(static_cast<int32_t>(part));
  planes.shrink_to_fit();
  Filter filter = {weight.data(), packed.data(), entry.data(), in, other, layer_in, layer_other, entries,
                   layer_in * entries, cells, slices};
  pack(isa, &filter, draw(1, 3), NULL);
  std::vector<double> sums(slices * (in > other ? in : other));
  Task task = {REGULAR, x.data(), packed.data(), bias.data(), out.data(), plain.data(), gradient.data(),
               shifts[size - 1], (backwards ? fields : halves).data(), (backwards ? halves : pooled ? pool : fields).data(),
               batch, in, other, height, width, out_height, out_width, planes_in, planes_out, halved > 1 ? draw(0, 255) : 255, padding, 1, size, cells, draw(1, 9), slices, NULL, NULL, bfloat16,
               blocked, cut, side, map_height, map_width, map_padding, planes.data(), draw(0, 1), 0.5f, pooled, sums.data(), draw(0, cells - 1)};
  if (pooled || draw(0, 2) == 0) task.plain = NULL, task.filter_gradient = NULL;
  if (draw(0, 2) == 0) task.bias = NULL;
  if (task.plain && draw(0, 2) == 0) task.out = NULL, task.filter = NULL;
  if (task.plain && draw(0, 1)) task.sums_cell = -1;
  if (draw(0, 2) == 0) task.sums = NULL;
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
  const index_t kind = draw(0, 1) ? LIFTING : LIFTING_BACKWARDS;
  const bool forwards = kind == LIFTING && draw(0, 1), fits = (isa < 2 ? 4 : 8) % order == 0;  // columns of a tile
  const index_t left = forwards && fits && draw(0, 1) ? draw(1, order) : order;
  const std::vector<int32_t> pool = any_pool(left);
  const index_t outputs = batch * other * left * out_height * out_width;
  std::vector<char> x = maps(batch * in * height * width, bfloat16 & 1);
  std::vector<char> out = maps(outputs, bfloat16 & 2), plain = maps(outputs, bfloat16 & 4);
  std::vector<float> weight = numbers(other * in * cells), bias = numbers(other);
  std::vector<float> sums(slices * (in * cells + 1) * channels), of_weight = weight, of_bias = bias;
  Task task = {kind, x.data(), weight.data(), bias.data(), out.data(), NULL, NULL, lifting_entrys[size - 1],
               NULL, pool.data(), batch, in, other, height, width, out_height, out_width, 1, left, 0, padding, stride, size, cells, rows, slices,
               NULL, NULL, bfloat16, NOTHING, 0, 1, 0, 0, 0, NULL, draw(0, 1), 0.5f, left < order, NULL, 0};
  if (!forwards) task.out = NULL, task.plain = plain.data();
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

int main(int count, char **words) {
  const int rounds = count > 1 ? atoi(words[1]) : 150;
  told = count > 2;
  double sum = 0;
  for (int isa = 0; isa <= best_isa(); isa++)
    for (int round = 0; round < rounds; round++) {
      sum += one_case(isa);
      sum += one_case(isa);
      sum += one_lifting(isa);
    }
  printf("%d cases, sum %g\n", 3 * rounds * (best_isa() + 1), sum);
  return sum == sum ? 0 : 1;
}
