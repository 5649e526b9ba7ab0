// What the group convolution engine computes, and what its caller hands over: raw float pointers, no library.
//
// One pass does both directions. It takes co-rotated neighbourhoods of one tensor, `patched`, transforms them
// over the group (features), and then
//   out    = inverse transform of features x filter blocks     (forward, or the gradient of the input), and/or
//   filter_gradient = features x transform of `plain`          (the gradient of the filter),
// block of positions by block of positions, each in cache from the gather to the last store.
// docs/fast_group_convolution.md derives it. Maps are float32 or bfloat16; all arithmetic is in float32.
// Planes without a fiber (lifting) need no transform: their patches are multiplied by the expanded filter.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef int64_t index_t;

enum Kind : index_t {
  REGULAR,
  LIFTING,           // `patched` is (batch, in, height, width)
  LIFTING_BACKWARDS  // of lifting, the gradient of `patched`, into it, from `plain` and the transposed filter
};

enum Blocked : index_t { NOTHING, PATCHED, OTHER };  // OTHER: out and plain

struct Task {
  index_t kind;
  void *patched;             // (batch, in, planes, height, width)
  const float *filter;       // packed blocks, with out; of lifting, the base filter (other, in, cells)
  const float *bias;         // (other), or null
  void *out;                 // (batch, other, other_planes, out_height, out_width), or null
  const void *plain;         // the shape of out, or null
  float *filter_gradient;    // packed gradients, one for each slice, zeroed; with plain. Of lifting, room for
                             // (in * cells + 1, channels) for each slice
  const int32_t *shift;      // (ORDER, cells, 2): row and column of the cell to which t moves each cell; of lifting,
                             // (ORDER, cells): which cell of the base filter the filter of each element has there
  const int32_t *plane, *other_plane;  // (ORDER): which plane of a field of `patched`, of out and plain, is each element's
  index_t batch, in, other, height, width, out_height, out_width;
  index_t planes, other_planes;  // of a field: ORDER, or fewer of a quotient; of lifting, 1 and ORDER
  index_t irreps;            // a bit for each that is multiplied: others have no part in fields of a quotient
  index_t padding;           // of regular fields it may be negative: crops
  index_t stride;            // of lifting
  index_t side, cells;       // of the window, and at how many of its cells patches are taken
  index_t rows;              // output rows in a block; of lifting, at most
  index_t slices;            // parts of the work, for threads
  float *weight_gradient, *bias_gradient;  // of lifting: (other, in, cells) and (other), with filter_gradient
  index_t bfloat16;          // whether the maps are: 1 for patched, 2 for out, 4 for plain
  // One side may be in blocks of its sites, of regular fields: fields, sides and padding above count blocks, site by
  // site of them, and what lies in memory is (batch, fields, ORDER, map_height, map_width), or, if it is cut,
  // (batch, fields, ORDER, block_side, block_side) and the sides in blocks.
  index_t blocked, cut, block_side, map_height, map_width, map_padding;
  const int32_t *sites;      // (block_side^2, ORDER, 3): of each plane of a field's block, which plane of the field it
                             // is of, and row and column in the block
  index_t rectified;         // whether what is below zero in out is multiplied by the slope
  float slope;
  index_t pooled;            // whether each plane of out is the largest of its elements; not if out is in blocks
  double *sums;              // of each field of `patched` or of plain over planes and sites, for each slice, zeroed; or null
  index_t sums_cell;         // a cell at which the patches of each element see all of `patched`; -1: of plain
};

struct Filter {
  float *weight;             // base filter or its gradient, entries of a pair of fields contiguous; where one side
                             // is in blocks, of a pair of the layer's fields, all sites of the block
  float *packed;             // blocks, or packed gradients one after the other
  const int32_t *entry;      // (sites, ORDER, cells): where w'_z[u] stands among the entries of a pair; -1: it is 0
  index_t in, other;         // fields of the patched and of the other side; of blocks, site by site
  index_t layer_in, layer_other;    // of the layer: as many, or of the side in blocks those of one site
  index_t in_stride, other_stride;  // of the layer's fields, in weight
  index_t cells;
  index_t gradients;         // packed ones, whose sum is unpacked
};

struct Kernel {              // one for each instruction set
  index_t (*packed_size)(index_t in, index_t other, index_t cells);
  index_t (*gradient_size)(index_t in, index_t other, index_t cells);
  void (*pack)(const Filter *, index_t number, index_t slices);
  void (*unpack)(const Filter *, index_t number, index_t slices);
  index_t (*scratch_size)(const Task *);  // floats that a slice works in
  void (*slice)(const Task *, index_t number, float *scratch);
  void (*finish)(const Task *);           // after all slices
};
