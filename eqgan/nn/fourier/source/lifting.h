// Part of kernel.cpp: lifting, from planes without a fiber.
//
// Patches of a few planes are few: they are laid out, row by row for (in, cell), and multiplied by the expanded
// filter. A block is rows of one image, so that what it writes of a channel lies in one piece. With a stride, columns
// are staged by their remainders, so that what an output row reads of a cell lies in one piece too.

const index_t PATCHES_IN_CACHE = 24 * 1024;  // floats
const int MOST_BLOCKS = 8;

struct LiftingPlan {
  const Task &t;
  index_t channels, patch_rows;           // out; (in, cell)
  index_t blocks;                         // of an image
  index_t patch_stride;                   // between rows of patches
  index_t reach, high;                    // padded columns and rows of a plane that windows see
  index_t phase, staged_width, staged_plane;  // columns of one remainder
  index_t chunk;                          // blocks whose filter gradients are taken together
  index_t patches, staged, bias, filter, sums, tails, total;  // in the scratch

  explicit LiftingPlan(const Task &task) : t(task) {
    channels = t.other * ORDER;
    patch_rows = t.in * t.cells;
    blocks = ceil_div(t.out_height, t.rows);
    patch_stride = row_stride(ceil_div(t.out_height, blocks) * t.out_width);
    reach = (t.out_width - 1) * t.stride + t.side;
    high = (t.out_height - 1) * t.stride + t.side;
    phase = ceil_div(reach, t.stride);
    staged_width = phase * t.stride;
    staged_plane = row_stride(high * staged_width);
    chunk = t.filter_gradient ? max_of(1, min_of(MOST_BLOCKS, PATCHES_IN_CACHE / ((patch_rows + 1) * patch_stride))) : 1;
    patches = 0;
    staged = patches + chunk * (patch_rows + 1) * patch_stride;
    bias = staged + t.in * staged_plane + 2 * LANES;
    filter = round_up(bias + max_of(channels, patch_rows), 16);
    sums = filter + (t.filter ? max_of(round_up(channels, TILE) * patch_rows, round_up(patch_rows, TILE) * channels) : 0);
    sums = round_up(sums, 16);
    tails = sums + (t.filter_gradient ? (patch_rows + 1) * channels * LANES : 0);
    total = tails + (t.filter_gradient ? chunk * channels * LANES : 0) + 2 * LANES;
  }
};

// Of each number of the expanded filter: where it stands in the base filter, and its row (in, cell) and column
// (field other, element).
template <class F> INLINE void each_entry(const Task &t, F visit) {
  for (index_t other = 0, column = 0; other < t.other; other++)
    for (index_t g = 0; g < ORDER; g++, column++)
      for (index_t in = 0, row = 0; in < t.in; in++)
        for (index_t cell = 0; cell < t.cells; cell++, row++)
          visit((other * t.in + in) * t.cells + t.shift[g * t.cells + cell], row, column);
}

// In tiles of columns; backwards, rows and columns are each other.
void expand_filter(const LiftingPlan &p, float *filter) {
  const Task &t = p.t;
  if (t.kind == LIFTING_BACKWARDS)
    each_entry(t, [&](index_t from, index_t row, index_t column) {
      filter[(row / TILE * p.channels + column) * TILE + row % TILE] = t.filter[from];
    });
  else
    each_entry(t, [&](index_t from, index_t row, index_t column) {
      filter[(column / TILE * p.patch_rows + row) * TILE + column % TILE] = t.filter[from];
    });
}

// The sums of all slices, in their order, added up over the elements.
void finish_lifting(const Task &t) {
  const index_t channels = t.other * ORDER, rows = t.in * t.cells, entries = (rows + 1) * channels;
  float *sums = t.filter_gradient;
  for (index_t slice = 1; slice < t.slices; slice++)
    for (index_t i = 0; i < entries; i++) sums[i] += sums[slice * entries + i];
  clear(t.weight_gradient, t.other * rows);
  each_entry(t, [&](index_t to, index_t row, index_t column) { t.weight_gradient[to] += sums[row * channels + column]; });
  for (index_t other = 0; other < t.other; other++) {
    t.bias_gradient[other] = 0;
    for (index_t g = 0; g < ORDER; g++) t.bias_gradient[other] += sums[rows * channels + other * ORDER + g];
  }
}

// The blocks of a slice, one by one.
struct LiftingBlocks {
  const LiftingPlan &p;
  index_t next_block, end_block, image, first, rows, positions;

  LiftingBlocks(const LiftingPlan &plan, index_t number, index_t whole)
      : p(plan), next_block(bound(number, whole)), end_block(bound(number + 1, whole)) {}

  // Slices of so many blocks as make `whole` blocks: one, or an image.
  index_t bound(index_t number, index_t whole) const {
    return p.t.batch * p.blocks / whole * number / p.t.slices * whole;
  }

  bool next() {
    if (next_block >= end_block) return false;
    const index_t block = next_block % p.blocks;
    image = next_block++ / p.blocks;
    first = p.t.out_height * block / p.blocks;
    rows = p.t.out_height * (block + 1) / p.blocks - first;
    positions = rows * p.t.out_width;
    return true;
  }

  // Of a channel of a map of the shape of the output.
  index_t start(index_t channel) const { return start(channel, p.channels); }
  index_t start(index_t channel, index_t channels) const {
    return ((image * channels + channel) * p.t.out_height + first) * p.t.out_width;
  }
};

// Vectors of positions, the last of which may lie over others: what they hold of the same position is the same.
struct Spans {
  const index_t positions;
  index_t at, width, done;

  explicit Spans(index_t count) : positions(count), done(0) {}

  bool next() {
    if (done >= positions) return false;
    width = next_width(ceil_div(positions - done, LANES));
    width = min_of(width, positions / LANES);
    at = min_of(done, positions - width * LANES);
    done = at + width * LANES;
    return true;
  }
};

INLINE const float *cell_of(const LiftingPlan &p, const float *staged, index_t row) {
  const index_t cell = row % p.t.cells, y = cell / p.t.side, x = cell % p.t.side;
  return staged + row / p.t.cells * p.staged_plane + y * p.staged_width + x % p.t.stride * p.phase + x / p.t.stride;
}

// The padded columns of one remainder that a plane has: visits (position in it, column of the plane).
template <class F> INLINE void each_column(const LiftingPlan &p, index_t remainder, index_t end, F visit) {
  const Task &t = p.t;
  const index_t first = t.padding > remainder ? ceil_div(t.padding - remainder, t.stride) : 0;
  for (index_t i = first, x = first * t.stride + remainder; x < end; i++, x += t.stride) visit(i, x - t.padding);
}

// As stage_plane, with a stride.
template <class T>
void stage_strided(const LiftingPlan &p, const T *plane, index_t y, index_t rows, float *staged) {
  const Task &t = p.t;
  for (; rows > 0; rows--, y++, staged += p.staged_width) {
    if (y < 0 || y >= t.height) {
      clear(staged, p.staged_width);
      continue;
    }
    const T *from = plane + y * t.width;
    for (index_t c = 0; c < t.stride; c++) {
      float *to = staged + c * p.phase;
      each_column(p, c, min_of(p.reach, t.width + t.padding), [&](index_t i, index_t x) { to[i] = one(from + x); });
    }
  }
}

template <class T> void make_patches(const LiftingPlan &p, const LiftingBlocks &b, float *staged, float *patches) {
  const Task &t = p.t;
  const T *image = static_cast<const T *>(t.patched) + b.image * t.in * t.height * t.width;
  const index_t y = b.first * t.stride - t.padding, rows = (b.rows - 1) * t.stride + t.side;
  for (index_t in = 0; in < t.in; in++, image += t.height * t.width)
    if (t.stride == 1)
      stage_plane(t, image, y, rows, p.staged_width, staged + in * p.staged_plane);
    else
      stage_strided(p, image, y, rows, staged + in * p.staged_plane);
  for (index_t k = 0; k < p.patch_rows; k++, patches += p.patch_stride) {
    const float *from = cell_of(p, staged, k);
    float *to = patches;
    for (index_t r = 0; r < b.rows; r++, from += t.stride * p.staged_width, to += t.out_width)
      for (index_t x = 0; x < t.out_width; x += LANES)  // spills over the next row, which is written after it
        store<LANES>(to + x, load<LANES>(from + x));
    store<LANES>(to, Lanes{});
  }
}

// Whether patches of such planes, which are of that type exactly, are multiplied as pairs of bfloat16.
template <class X> struct InPairs {
  static const bool value = false;
};
template <> struct InPairs<Half> {
  static const bool value = PAIRS;
};

// What follows the products: a rectifier, and a pool over the elements of each field, whose columns are neighbours.
struct After {
  const Rectifier rectify;
  const int32_t *plane_of;  // null without a pool
  index_t planes;

  After() : plane_of(NULL), planes(0) {}
  explicit After(const Task &t) : rectify(t), plane_of(t.pooled ? t.other_plane : NULL), planes(t.other_planes) {}

  index_t channel(index_t column) const { return plane_of ? column / ORDER * planes : column; }
};

const bool POOLS = TILE % ORDER == 0;  // no field lies in two tiles

// c[n][x] = bias[n] + sum_k f[k][x] w[k][n]
template <bool LOWER, int COLUMNS, int VECTORS, class From, class To>
void lift_tile(const From *f, index_t stride, const float *w, index_t rows, const float *bias, const After &after, To *c,
               index_t to_stride) {
  Lanes sum[COLUMNS][VECTORS];
  UNROLL for (int n = 0; n < COLUMNS; n++)
    UNROLL for (int v = 0; v < VECTORS; v++) sum[n][v] = Lanes{} + bias[n];
  accumulate<COLUMNS, VECTORS, LOWER>(sum, f, stride, w, rows);
  if (!after.plane_of || COLUMNS % ORDER) {
    UNROLL for (int n = 0; n < COLUMNS; n++)
      UNROLL for (int v = 0; v < VECTORS; v++) store<LANES>(c + n * to_stride + v * LANES, after.rectify(sum[n][v]));
    return;
  }
  UNROLL for (int field = 0; field < COLUMNS / ORDER; field++)  // all unrolled: else the sums would lie in memory
    UNROLL for (int v = 0; v < VECTORS; v++) {
      Lanes y[ORDER];
      UNROLL for (int g = 0; g < ORDER; g++) y[g] = sum[(field * ORDER + g) % COLUMNS][v];
      pool(after.plane_of, after.planes, y);
      for (index_t plane = 0; plane < after.planes; plane++)
        store<LANES>(c + (field * after.planes + plane) * to_stride + v * LANES, after.rectify(y[plane]));
    }
}

template <bool LOWER, int COLUMNS, class From, class To>
INLINE void lift_columns(const From *f, index_t stride, const float *w, index_t rows, const float *bias,
                         const After &after, To *c, index_t to_stride, index_t positions) {
  for (Spans s(positions); s.next();)
    switch (s.width) {
      case 1: lift_tile<LOWER, COLUMNS, 1>(f + s.at, stride, w, rows, bias, after, c + s.at, to_stride); break;
      case 2: lift_tile<LOWER, COLUMNS, 2>(f + s.at, stride, w, rows, bias, after, c + s.at, to_stride); break;
      default: lift_tile<LOWER, COLUMNS, WIDE>(f + s.at, stride, w, rows, bias, after, c + s.at, to_stride);
    }
}

// Columns n, n + 1, ..., as long as COLUMNS are left; returns the next.
template <bool LOWER, int COLUMNS, class From, class To>
INLINE index_t lift_all(const From *f, index_t stride, const float *w, index_t rows, const float *bias,
                        const After &after, To *c, index_t to_stride, index_t positions, index_t n, index_t columns) {
  for (; n + COLUMNS <= columns; n += COLUMNS)
    lift_columns<LOWER, COLUMNS>(f, stride, w + n / TILE * rows * TILE + n % TILE, rows, bias + n, after,
                                 c + after.channel(n) * to_stride, to_stride, positions);
  return n;
}

// All columns, tile by tile, the last ones one by one, or field by field.
template <bool LOWER, class From, class To>
void lift_product(const From *f, index_t stride, const float *w, index_t rows, const float *bias, const After &after,
                  To *c, index_t to_stride, index_t positions, index_t columns) {
  index_t n = lift_all<LOWER, TILE>(f, stride, w, rows, bias, after, c, to_stride, positions, 0, columns);
  if (POOLS && after.plane_of)
    n = lift_all<LOWER, POOLS ? ORDER : 1>(f, stride, w, rows, bias, after, c, to_stride, positions, n, columns);
  lift_all<LOWER, 1>(f, stride, w, rows, bias, after, c, to_stride, positions, n, columns);
}

template <class X, class Y> void lift(const LiftingPlan &p, index_t number, float *scratch) {
  const Task &t = p.t;
  float *patches = scratch + p.patches, *staged = scratch + p.staged, *bias = scratch + p.bias;
  float *filter = scratch + p.filter;
  const bool lower = InPairs<X>::value;
  const index_t rows = lower ? ceil_div(p.patch_rows, 2) : p.patch_rows;
  expand_filter(p, filter);
  if (lower) pair_tiles(filter, p.patch_rows, p.channels, filter);
  clear(staged, t.in * p.staged_plane + 2 * LANES);
  for (index_t n = 0; n < p.channels; n++) bias[n] = t.bias ? t.bias[n / ORDER] : 0;
  for (LiftingBlocks b(p, number, 1); b.next();) {
    make_patches<X>(p, b, staged, patches);
    if (lower) pair_rows(patches, p.patch_stride, patches, p.patch_stride, p.patch_rows, b.positions);
    lift_product<lower>(patches, p.patch_stride, filter, rows, bias, After(t),
                        static_cast<Y *>(t.out) + b.start(0, t.other * t.other_planes), t.out_height * t.out_width,
                        b.positions, p.channels);
  }
}

// Some blocks: the sums over all their positions stay in registers.
template <class T> struct LiftingChunk {
  index_t count, positions[MOST_BLOCKS];
  const T *z[MOST_BLOCKS];  // of the first channel
};

// A vector of the output's gradient; where it is multiplied in pairs, twice as many numbers as they lie.
template <bool LOWER, class T> INLINE Lanes load_plain(const T *p) {
  if (!LOWER) return load<LANES>(p);
  Lanes pairs;
  __builtin_memcpy(&pairs, p, sizeof pairs);
  return pairs;
}

// sums[k][n] += f[k][x] z[n][x], lane by lane; `tail` holds what is left of z after whole vectors, and zeros.
template <bool LOWER, int ROWS, int COLUMNS, class T>
void dot_tile(const LiftingPlan &p, const LiftingChunk<T> &chunk, const float *f, index_t channel, const float *tail,
              float *sums) {
  const index_t plane = p.t.out_height * p.t.out_width, part = LOWER ? 2 : 1;
  Lanes sum[ROWS][COLUMNS];
  UNROLL for (int k = 0; k < ROWS; k++)
    UNROLL for (int n = 0; n < COLUMNS; n++) sum[k][n] = load<LANES>(sums + (k * p.channels + n) * LANES);
  for (index_t i = 0; i < chunk.count; i++, f += (p.patch_rows + 1) * p.patch_stride, tail += p.channels * LANES) {
    const T *z = chunk.z[i] + channel * plane;
    index_t x = 0;
    for (; x + part * LANES <= chunk.positions[i]; x += part * LANES) {
      Lanes y[COLUMNS];
      UNROLL for (int n = 0; n < COLUMNS; n++) y[n] = load_plain<LOWER>(z + n * plane + x);
      UNROLL for (int k = 0; k < ROWS; k++) {
        const Lanes a = load<LANES>(f + k * p.patch_stride + x / part);
        UNROLL for (int n = 0; n < COLUMNS; n++) sum[k][n] = multiply_add<LANES, LOWER>(sum[k][n], a, y[n]);
      }
    }
    if (x == chunk.positions[i]) continue;
    UNROLL for (int k = 0; k < ROWS; k++) {
      const Lanes a = load<LANES>(f + k * p.patch_stride + x / part);
      UNROLL for (int n = 0; n < COLUMNS; n++)
        sum[k][n] = multiply_add<LANES, LOWER>(sum[k][n], a, load<LANES>(tail + n * LANES));
    }
  }
  UNROLL for (int k = 0; k < ROWS; k++)
    UNROLL for (int n = 0; n < COLUMNS; n++) store<LANES>(sums + (k * p.channels + n) * LANES, sum[k][n]);
}

const int DOT_ROWS = REGISTERS == 32 ? 5 : 2;

template <bool LOWER, int ROWS, int COLUMNS, class T>
INLINE index_t dot_rows(const LiftingPlan &p, const LiftingChunk<T> &chunk, const float *patches, index_t channel,
                        const float *tails, float *sums, index_t k) {
  for (; k + ROWS <= p.patch_rows + 1; k += ROWS)
    dot_tile<LOWER, ROWS, COLUMNS>(p, chunk, patches + k * p.patch_stride, channel, tails + channel * LANES,
                                   sums + (k * p.channels + channel) * LANES);
  return k;
}

template <bool LOWER, int COLUMNS, class T>
INLINE index_t dot_columns(const LiftingPlan &p, const LiftingChunk<T> &chunk, const float *patches, const float *tails,
                           float *sums, index_t channel) {
  for (; channel + COLUMNS <= p.channels; channel += COLUMNS) {
    index_t k = dot_rows<LOWER, DOT_ROWS, COLUMNS>(p, chunk, patches, channel, tails, sums, 0);
    k = dot_rows<LOWER, 2, COLUMNS>(p, chunk, patches, channel, tails, sums, k);
    dot_rows<LOWER, 1, COLUMNS>(p, chunk, patches, channel, tails, sums, k);
  }
  return channel;
}

INLINE float sum_of_lanes(const float *p) {
  Vector<4>::type sum = load<4>(p);
  for (int i = 4; i < LANES; i += 4) sum += load<4>(p + i);
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

// What is left of each channel after whole vectors, and zeros.
template <bool LOWER, class T> INLINE void cut_tails(const LiftingPlan &p, const T *z, index_t positions, float *tails) {
  const index_t plane = p.t.out_height * p.t.out_width, numbers = LOWER ? 2 * LANES : LANES, rest = positions % numbers;
  for (index_t n = 0; n < p.channels && rest; n++, tails += LANES) {
    const T *from = z + n * plane + positions - rest;
    clear(tails, LANES);
    if (LOWER)
      __builtin_memcpy(reinterpret_cast<char *>(tails), from, rest * sizeof *from);
    else
      for (index_t i = 0; i < rest; i++) tails[i] = one(from + i);
  }
}

// Each row of patches and that of ones as bfloat16, from where it started, and zeros after it.
#if PAIRS
void halve_patches(const LiftingPlan &p, index_t positions, float *patches) {
  for (index_t k = 0; k <= p.patch_rows; k++, patches += p.patch_stride)
    for (index_t x = 0; x < positions; x += 32) {
      const Sixteen upper = x + 16 < positions ? load<16>(patches + x + 16) : Sixteen{};
      store<16>(patches + x / 2, halve(load<16>(patches + x), upper));
    }
}
#else
void halve_patches(const LiftingPlan &, index_t, float *) {}
#endif

// The gradient of the filter, and, by a row of ones among the patches, of the bias.
template <class X, class Z> void lift_filter_gradient(const LiftingPlan &p, index_t number, float *scratch) {
  const Task &t = p.t;
  const bool lower = InPairs<X>::value && InPairs<Z>::value;
  const index_t entries = (p.patch_rows + 1) * p.channels;
  float *patches = scratch + p.patches, *staged = scratch + p.staged, *sums = scratch + p.sums, *tails = scratch + p.tails;
  clear(staged, t.in * p.staged_plane + 2 * LANES);
  clear(sums, entries * LANES);
  LiftingBlocks b(p, number, 1);
  for (LiftingChunk<Z> chunk;;) {
    for (chunk.count = 0; chunk.count < p.chunk && b.next(); chunk.count++) {
      float *own = patches + chunk.count * (p.patch_rows + 1) * p.patch_stride, *ones = own + p.patch_rows * p.patch_stride;
      make_patches<X>(p, b, staged, own);
      for (index_t x = 0; x < b.positions; x += LANES) store<LANES>(ones + x, Lanes{} + 1.0f);
      store<LANES>(ones + b.positions, Lanes{});
      if (lower) halve_patches(p, b.positions, own);
      chunk.z[chunk.count] = static_cast<const Z *>(t.plain) + b.start(0);
      chunk.positions[chunk.count] = b.positions;
      cut_tails<lower>(p, chunk.z[chunk.count], b.positions, tails + chunk.count * p.channels * LANES);
    }
    if (!chunk.count) break;
    const index_t channel = dot_columns<lower, 4>(p, chunk, patches, tails, sums, 0);
    dot_columns<lower, 1>(p, chunk, patches, tails, sums, channel);
  }
  float *gradient = t.filter_gradient + number * entries;
  for (index_t i = 0; i < entries; i++) gradient[i] = sum_of_lanes(sums + i * LANES);
}

template <class X> void write_gradient(const LiftingPlan &p, index_t image, const float *staged) {
  const Task &t = p.t;
  X *to = static_cast<X *>(t.patched) + image * t.in * t.height * t.width;
  for (index_t in = 0; in < t.in; in++, staged += p.staged_plane)
    for (index_t y = t.padding; y < t.height + t.padding; y++, to += t.width)
      for (index_t c = 0; c < t.stride; c++) {
        const float *from = staged + y * p.staged_width + c * p.phase;
        const index_t reach = y < p.high ? p.reach : 0;
        each_column(p, c, t.width + t.padding,
                    [&](index_t i, index_t x) { put(to + x, x + t.padding < reach ? from[i] : 0); });
      }
}

// The gradient of the planes: of every patch, and from there added to where it was read.
template <class X, class Z> void lift_backwards(const LiftingPlan &p, index_t number, float *scratch) {
  const Task &t = p.t;
  float *patches = scratch + p.patches, *staged = scratch + p.staged, *none = scratch + p.bias;
  float *filter = scratch + p.filter;
  expand_filter(p, filter);
  clear(none, p.patch_rows);
  for (LiftingBlocks b(p, number, p.blocks); b.next();) {
    if (b.first == 0) clear(staged, t.in * p.staged_plane);
    lift_product<false>(static_cast<const Z *>(t.plain) + b.start(0), t.out_height * t.out_width, filter, p.channels,
                        none, After(), patches, p.patch_stride, b.positions, p.patch_rows);
    for (index_t k = 0; k < p.patch_rows; k++) {
      const float *from = patches + k * p.patch_stride;
      float *to = staged + (cell_of(p, staged, k) - staged) + b.first * t.stride * p.staged_width;
      for (index_t r = 0; r < b.rows; r++, from += t.out_width, to += t.stride * p.staged_width)
        for (index_t x = 0; x < t.out_width; x++) to[x] += from[x];
    }
    if (b.first + b.rows == t.out_height) write_gradient<X>(p, b.image, staged);
  }
}

// By the types of both maps: the planes, and those of the output's shape.
typedef void (*LiftingSlice)(const LiftingPlan &, index_t, float *);
#define BY_TYPES(f) {{f<float, float>, f<Half, float>}, {f<float, Half>, f<Half, Half>}}
const LiftingSlice LIFT[2][2] = BY_TYPES(lift), LIFT_FILTER_GRADIENT[2][2] = BY_TYPES(lift_filter_gradient),
                   LIFT_BACKWARDS[2][2] = BY_TYPES(lift_backwards);

void slice_lifting(const Task *task, index_t number, float *scratch) {
  const LiftingPlan p(*task);
  const bool planes = task->bfloat16 & 1;
  if (task->kind == LIFTING_BACKWARDS)
    LIFT_BACKWARDS[task->bfloat16 >> 2 & 1][planes](p, number, scratch);
  else if (task->out)
    LIFT[task->bfloat16 >> 1 & 1][planes](p, number, scratch);
  else
    LIFT_FILTER_GRADIENT[task->bfloat16 >> 2 & 1][planes](p, number, scratch);
}
