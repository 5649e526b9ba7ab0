// The group convolution for one instruction set: compiled once for each, with -DKERNEL=kernel_avx512 and so on.
//
// group.h is generated from the group's algebra: ORDER, its irreps, and straight-line code for the transforms.
// Everything is in an unnamed namespace and no library is used, so that no function compiled for a newer
// machine can take the place of one for an older.
#include "engine.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif
// Products of bfloat16 maps by the instruction that multiplies two pairs and adds both.
#if defined(__AVX512BF16__)
#define PAIRS 1
#else
#define PAIRS 0
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
#define REGISTERS 32
#else
#define REGISTERS 16
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

namespace {

#include "group.h"

// ---- vectors -------------------------------------------------------------------------------------------

template <int N> struct Vector;
#define VECTOR(n)                                                                   \
  template <> struct Vector<n> {                                                    \
    typedef float type __attribute__((vector_size(4 * n)));                         \
    typedef float loose __attribute__((vector_size(4 * n), aligned(4), may_alias)); \
    typedef uint32_t bits __attribute__((vector_size(4 * n)));                      \
    typedef uint16_t upper __attribute__((vector_size(2 * n), aligned(2), may_alias)); \
  };
VECTOR(4)
VECTOR(8)
VECTOR(16)

#define VEC typename Vector<N>::type
template <int N> INLINE VEC load(const float *p) { return *(const typename Vector<N>::loose *)p; }
template <int N> INLINE void store(float *p, VEC v) { *(typename Vector<N>::loose *)p = v; }

// bfloat16 is the upper half of a float's bits.
struct Half {
  uint16_t bits;
};

template <int N> INLINE VEC load(const Half *p) {
  typedef typename Vector<N>::bits Bits;
  return (VEC)(__builtin_convertvector(*(const typename Vector<N>::upper *)p, Bits) << 16);
}

// To the nearest, ties to even; not-a-number stays so.
template <int N> INLINE void store(Half *p, VEC v) {
#if PAIRS
  if (N == 16) {  // one instruction; what is below the least normal number becomes zero
    const __m256bh rounded = _mm512_cvtneps_pbh(*(const __m512 *)&v);
    __builtin_memcpy(p, &rounded, sizeof rounded);
    return;
  }
#endif
  typedef typename Vector<N>::bits Bits;
  const Bits bits = (Bits)v, none = (Bits)(v != v);
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  *(typename Vector<N>::upper *)p =
      __builtin_convertvector((none & 0x7fc0) | (~none & rounded), typename Vector<N>::upper);
}

// ---- pairs of bfloat16, each in the place of one float ----------------------------------------------------

typedef Vector<16>::type Sixteen;

#if PAIRS
// sum + the products of both numbers of the pairs in x with the pair w.
INLINE Vector<4>::type dot(Vector<4>::type sum, Vector<4>::type x, float w) {
  return (Vector<4>::type)_mm_dpbf16_ps((__m128)sum, (__m128bh)x, (__m128bh)_mm_set1_ps(w));
}
INLINE Vector<8>::type dot(Vector<8>::type sum, Vector<8>::type x, float w) {
  return (Vector<8>::type)_mm256_dpbf16_ps((__m256)sum, (__m256bh)x, (__m256bh)_mm256_set1_ps(w));
}
INLINE Sixteen dot(Sixteen sum, Sixteen x, float w) {
  return (Sixteen)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)_mm512_set1_ps(w));
}

INLINE Sixteen dot(Sixteen sum, Sixteen x, Sixteen y) {
  return (Sixteen)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
}

// Thirty-two numbers as bfloat16 in a row.
INLINE Sixteen halve(Sixteen lower, Sixteen upper) {
  return (Sixteen)_mm512_cvtne2ps_pbh((__m512)upper, (__m512)lower);
}

// The first of each pair from one row, the second from the other.
INLINE Sixteen pair(Sixteen first, Sixteen second) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (Sixteen)_mm512_permutexvar_epi16(order, (__m512i)halve(first, second));
}
#else
template <class V, class W> INLINE V dot(V sum, V, W) { return sum; }
#endif

// sum + x w, or, of pairs, the sum of two products.
template <int N, bool LOWER> INLINE VEC multiply_add(VEC sum, VEC x, float w) {
  if (LOWER) return dot(sum, x, w);
  return sum + x * w;
}

template <int N, bool LOWER> INLINE VEC multiply_add(VEC sum, VEC x, VEC y) {
  if (LOWER) return dot(sum, x, y);
  return sum + x * y;
}

const int TILE = REGISTERS == 32 ? 8 : 4;        // filter columns of a product tile, and of the packed layout
const int WIDE = 3;                              // its vectors of positions
const int HALF = LANES > 4 ? LANES / 2 : LANES;  // enough for the end of most rows
const int MOST_FLAT = 16;                        // side of a window whose features are made without a stage
const int FEATURES_IN_CACHE = 96 * 1024;         // floats; more are made chunk by chunk of fields

INLINE index_t ceil_div(index_t a, index_t b) { return (a + b - 1) / b; }
INLINE index_t round_up(index_t a, index_t b) { return ceil_div(a, b) * b; }
INLINE index_t min_of(index_t a, index_t b) { return a < b ? a : b; }
INLINE index_t max_of(index_t a, index_t b) { return a > b ? a : b; }

// Rows of at least `length` floats, with room to spill a vector, an odd number of cache lines apart.
INLINE index_t row_stride(index_t length) { return 16 * (ceil_div(length + LANES, 16) | 1); }

// What follows a convolution in eval: numbers below zero times a slope. Of none, all are kept.
struct Rectifier {
  const bool on;
  const float slope;

  explicit Rectifier(const Task &t) : on(t.rectified), slope(t.slope) {}
  Rectifier() : on(false), slope(1) {}

  template <class V> inline __attribute__((always_inline)) V operator()(V y) const {
    if (!on) return y;
    const V below = slope != 0 ? y * slope : V{};  // an infinity times zero is no number
    return y < 0 ? below : y;
  }
};

// The larger, or what is no number.
template <class V> INLINE V larger(V a, V b) { return (b > a) | (b != b) ? b : a; }

// Of numbers for each element, the largest on each plane, to y[0], y[1], ...; `planes` of them.
template <class V> INLINE void pool(const int32_t *plane_of, index_t planes, V *y) {
  if (planes == 1) {  // in registers
    UNROLL for (int g = 1; g < ORDER; g++) y[0] = larger(y[0], y[g]);
    return;
  }
  V largest[ORDER];
  bool seen[ORDER] = {};
  for (int g = 0; g < ORDER; g++) {
    const int32_t plane = plane_of[g];
    largest[plane] = seen[plane] ? larger(largest[plane], y[g]) : y[g];
    seen[plane] = true;
  }
  for (index_t plane = 0; plane < planes; plane++) y[plane] = largest[plane];
}

// ---- packed filters ------------------------------------------------------------------------------------
// Blocks, irrep by irrep: [tile of columns][row][TILE]; row (field in, cell, l), column (field other, j).
// Gradients: [row][columns rounded up to 4].

INLINE index_t block_floats(int irrep, index_t in, index_t other, index_t cells) {
  return in * cells * IRREP_DIM[irrep] * round_up(other * IRREP_DIM[irrep], TILE);
}

INLINE index_t gradient_floats(int irrep, index_t in, index_t other, index_t cells) {
  return in * cells * IRREP_DIM[irrep] * round_up(other * IRREP_DIM[irrep], 4);
}

index_t packed_size(index_t in, index_t other, index_t cells) {
  index_t sum = 0;
  for (int irrep = 0; irrep < IRREPS; irrep++) sum += block_floats(irrep, in, other, cells);
  return sum;
}

index_t gradient_size(index_t in, index_t other, index_t cells) {
  index_t sum = 0;
  for (int irrep = 0; irrep < IRREPS; irrep++) sum += gradient_floats(irrep, in, other, cells);
  return sum;
}

const int GROUP = 8;  // other fields transformed at once, in the lanes of a vector
typedef Vector<GROUP>::type Lane;

// Of a field in and a group of others, where they stand in the filter.
struct Pairs {
  index_t in, first, count;      // fields of blocks, if there are any
  float *weight[GROUP];          // of the pair with each of the others
  const int32_t *entry;
};

// Visits all pairs of a slice: no two write the same number. Sites of a pair follow each other, its weights are near.
template <class F> INLINE void each_group(const Filter &f, index_t number, index_t slices, F visit) {
  const index_t sites_in = f.in / f.layer_in, sites_other = f.other / f.layer_other;
  const index_t groups = ceil_div(f.layer_other, GROUP), all = groups * f.layer_in;
  for (index_t i = all * number / slices; i < all * (number + 1) / slices; i++) {
    const index_t field = i % f.layer_in, other = i / f.layer_in * GROUP;
    Pairs p;
    p.count = min_of(GROUP, f.layer_other - other);
    for (index_t n = 0; n < GROUP; n++)
      p.weight[n] = f.weight + field * f.in_stride + (other + min_of(n, p.count - 1)) * f.other_stride;
    for (index_t site = 0; site < sites_in * sites_other; site++) {  // one of both is 1
      p.in = (sites_in > 1 ? site * f.layer_in : 0) + field;
      p.first = (sites_other > 1 ? site * f.layer_other : 0) + other;
      p.entry = f.entry + site * ORDER * f.cells;
      for (index_t cell = 0; cell < f.cells; cell++) visit(p, cell);
    }
  }
}

// Of d rows of GROUP others the numbers other by other, as columns lie, and back.
INLINE void interleave(int d, const Lane *rows, Lane *columns) {
  if (d == 1) {
    columns[0] = rows[0];
  } else if (d == 2) {
    const Lane a = rows[0], b = rows[1];
    columns[0] = Lane{a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]};
    columns[1] = Lane{a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]};
  } else {
    for (int c = 0; c < GROUP * d; c++) columns[c / GROUP][c % GROUP] = rows[c % d][c / d];
  }
}

INLINE void separate(int d, const Lane *columns, Lane *rows) {
  if (d == 1) {
    rows[0] = columns[0];
  } else if (d == 2) {
    const Lane a = columns[0], b = columns[1];
    rows[0] = Lane{a[0], a[2], a[4], a[6], b[0], b[2], b[4], b[6]};
    rows[1] = Lane{a[1], a[3], a[5], a[7], b[1], b[3], b[5], b[7]};
  } else {
    for (int c = 0; c < GROUP * d; c++) rows[c % d][c / d] = columns[c / GROUP][c % GROUP];
  }
}

INLINE void pack_cell(const Filter &f, const Pairs &p, index_t cell) {
  Lane w[ORDER], block[ENTRIES], columns[ENTRIES];
  UNROLL for (int u = 0; u < ORDER; u++) {
    const index_t e = p.entry[u * f.cells + cell];
    w[u] = e < 0 ? Lane{}
                 : Lane{p.weight[0][e], p.weight[1][e], p.weight[2][e], p.weight[3][e],
                        p.weight[4][e], p.weight[5][e], p.weight[6][e], p.weight[7][e]};
  }
  filter_blocks(w, block);
  float *packed = f.packed;
  const Lane *entries = block;
  UNROLL for (int irrep = 0; irrep < IRREPS; irrep++) {
    const int d = IRREP_DIM[irrep];
    const index_t rows = f.in * f.cells * d, first = p.first * d;
    UNROLL for (int l = 0; l < d; l++, entries += d) {
      const index_t row = (p.in * f.cells + cell) * d + l;
      interleave(d, entries, columns);
      const float *numbers = reinterpret_cast<const float *>(columns);
      if (p.count == GROUP && first % TILE == 0)
        for (int c = 0; c < GROUP * d; c += TILE)
          store<TILE>(packed + ((first + c) / TILE * rows + row) * TILE, load<TILE>(numbers + c));
      else
        for (index_t c = first; c < first + p.count * d; c++)
          packed[(c / TILE * rows + row) * TILE + c % TILE] = numbers[c - first];
    }
    packed += block_floats(irrep, f.in, f.other, f.cells);
  }
}

// The columns that fill up the last tile are zero: it is multiplied whole only where it is full, but read.
void clear_last_columns(const Filter &f) {
  float *packed = f.packed;
  for (int irrep = 0; irrep < IRREPS; irrep++) {
    const index_t floats = block_floats(irrep, f.in, f.other, f.cells), columns = f.other * IRREP_DIM[irrep] % TILE;
    const index_t rows = f.in * f.cells * IRREP_DIM[irrep];
    for (float *row = packed + floats - rows * TILE; columns && row < packed + floats; row += TILE)
      for (index_t i = columns; i < TILE; i++) row[i] = 0;
    packed += floats;
  }
}

void pack(const Filter *f, index_t number, index_t slices) {
  if (number == 0) clear_last_columns(*f);
  each_group(*f, number, slices, [&](const Pairs &p, index_t cell) { pack_cell(*f, p, cell); });
}

INLINE void unpack_cell(const Filter &f, const Pairs &p, index_t cell) {
  Lane w[ORDER], block[ENTRIES], columns[ENTRIES];
  const float *packed = f.packed;
  const index_t size = gradient_size(f.in, f.other, f.cells);
  Lane *entries = block;
  UNROLL for (int irrep = 0; irrep < IRREPS; irrep++) {
    const int d = IRREP_DIM[irrep];
    const index_t length = round_up(f.other * d, 4);
    UNROLL for (int l = 0; l < d; l++, entries += d) {
      const float *row = packed + ((p.in * f.cells + cell) * d + l) * length + p.first * d;
      UNROLL for (int j = 0; j < d; j++) columns[j] = Lane{};
      for (index_t k = 0; k < f.gradients; k++, row += size)
        if (p.count == GROUP)
          UNROLL for (int j = 0; j < d; j++) columns[j] += load<GROUP>(row + j * GROUP);
        else
          for (index_t c = 0; c < p.count * d; c++) columns[c / GROUP][c % GROUP] += row[c];
      separate(d, columns, entries);
    }
    packed += gradient_floats(irrep, f.in, f.other, f.cells);
  }
  filter_adjoint(block, w);
  UNROLL for (int u = 0; u < ORDER; u++) {
    const index_t e = p.entry[u * f.cells + cell];
    for (index_t n = 0; n < p.count && e >= 0; n++) p.weight[n][e] = w[u][n];
  }
}

void unpack(const Filter *f, index_t number, index_t slices) {
  each_group(*f, number, slices, [&](const Pairs &p, index_t cell) { unpack_cell(*f, p, cell); });
}

// ---- a slice and its scratch ---------------------------------------------------------------------------

struct Plan {
  const Task &t;
  index_t positions, stride;              // of a block; floats from one row of positions to the next
  index_t fields;                         // in a chunk of features
  index_t staged_width, staged_plane;     // padded input rows of a block
  bool lower;                             // products in bfloat16
  bool flat;                              // features are made without a stage
  bool in_blocks;                         // out and plain, not cut: they are moved by way of the scratch
  // in the scratch
  index_t products, plain, transposed, features, staged, halves, plain_pairs, filter, moved, some, total;

  explicit Plan(const Task &task) : t(task) {
    lower = PAIRS && (t.bfloat16 & 1);
    flat = LANES == 16 && t.blocked != PATCHED && 2 * t.padding == t.side - 1 && t.side <= MOST_FLAT;
    positions = t.rows * t.out_width;
    stride = row_stride(positions);
    const index_t floats_a_field = ORDER * t.cells * stride;
    const index_t chunks = ceil_div(t.in * floats_a_field, FEATURES_IN_CACHE);
    fields = ceil_div(t.in, min_of(chunks, t.in));
    if (lower && fields < t.in) fields = round_up(fields, 2);  // no pair of rows in two chunks
    staged_width = t.out_width + t.side - 1;
    const index_t images = min_of(t.batch, (t.rows + t.out_height - 2) / t.out_height + 1);
    staged_plane = row_stride((t.rows + images * (t.side - 1)) * staged_width);
    products = 0;
    plain = products + (t.out ? t.other * ORDER * stride : 0);
    transposed = plain + (t.plain ? (t.other * ORDER + 4 * BLOCKS) * stride : 0);
    features = transposed + (t.plain ? (t.other * ORDER + 4 * BLOCKS) * round_up(positions, 4) : 0);
    features = round_up(features, 16);
    staged = features + fields * floats_a_field;
    const index_t masks = t.side * t.side * (positions / 16 + images + 1) / 2 + 1;  // in place of the stage
    halves = round_up(staged + (flat ? masks : fields * t.planes * staged_plane) + 2 * LANES, 16);
    plain_pairs = halves + (lower && t.plain ? round_up(fields * floats_a_field / 2, 16) + 16 : 0);
    filter = plain_pairs + (lower && t.plain ? round_up((features - transposed) / 2, 16) + 16 : 0);
    moved = round_up(filter + (lower && t.out ? packed_size(t.in, t.other, t.cells + 1) / 2 : 0) + 2 * LANES, 16);
    in_blocks = t.blocked == OTHER && !t.cut;
    some = moved + (in_blocks ? t.block_side * t.block_side * ORDER * stride : 0);
    total = some + (t.plain ? round_up(positions, 8) * 16 : 0);
  }
};

// The rows of a block, image by image: rows first .. first + rows, at position `at` of the block, whose padded
// input starts at row `stage_row` of the stage.
struct Segments {
  const Task &t;
  const index_t start, end;
  index_t row, number, image, first, rows, at, stage_row;

  Segments(const Task &task, index_t from, index_t to) : t(task), start(from), end(to), row(from), number(0) {}

  bool next() {
    if (row >= end) return false;
    image = row / t.out_height;
    first = row % t.out_height;
    rows = min_of(t.out_height - first, end - row);
    at = (row - start) * t.out_width;
    stage_row = row - start + number++ * (t.side - 1);
    row += rows;
    return true;
  }
};

// The cache lines of some rows of maps, asked for a few at a time while products keep the processor busy: rows of
// a plane are too short for it to guess what comes next.
struct Lines {
  Segments s;
  const char *const map;
  const index_t height, row_bytes, plane_bytes, image_bytes;
  index_t first, planes;  // of each image; none: nothing is asked for
  index_t above, more;    // rows that a window reaches beyond those of the output: above, and in all
  index_t plane, share;
  const char *at, *end;

  Lines(const Task &t, index_t from, index_t to, const void *maps, bool halves, index_t rows, index_t width, index_t all)
      : s(t, from, to), map(static_cast<const char *>(maps)), height(rows), row_bytes(width * (halves ? 2 : 4)),
        plane_bytes(rows * row_bytes), image_bytes(all * plane_bytes), first(0), planes(0), above(0), more(0),
        plane(0), share(0), at(NULL), end(NULL) {}

  // All of them in so many calls of ask, or so.
  void spread(index_t calls) {
    plane = planes;
    share = ceil_div(planes * ((s.end - s.start + more) * row_bytes / 64 + 1), max_of(calls, 1));
  }

  bool next() {
    while (at >= end) {
      if (plane == planes) {
        if (!s.next()) return false;
        plane = 0;
      }
      const index_t top = max_of(s.first - above, 0), bottom = min_of(s.first - above + s.rows + more, height);
      const char *here = map + s.image * image_bytes + (first + plane++) * plane_bytes;
      at = here + top * row_bytes;
      end = here + bottom * row_bytes;
    }
    return true;
  }

  template <int WRITE> void ask() {
    for (index_t i = 0; i < share && next(); i++, at += 64) __builtin_prefetch(at, WRITE, 2);
  }
};

INLINE float one(const float *p) { return *p; }
INLINE float one(const Half *p) {
  const uint32_t bits = (uint32_t)p->bits << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

INLINE void put(float *p, float value) { *p = value; }
INLINE void put(Half *p, float value) {
  uint16_t four[4];
  store<4>(reinterpret_cast<Half *>(four), Vector<4>::type{value});
  p->bits = four[0];
}

template <class T> INLINE void copy(const T *from, float *to, index_t count) {
  index_t i = 0;
  for (; i + LANES <= count; i += LANES) store<LANES>(to + i, load<LANES>(from + i));
  if (LANES > 8 && i + 8 <= count) store<8>(to + i, load<8>(from + i)), i += 8;
  if (LANES > 4 && i + 4 <= count) store<4>(to + i, load<4>(from + i)), i += 4;
  if (i < count && count >= 4) store<4>(to + count - 4, load<4>(from + count - 4)), i = count;  // some again
  for (; i < count; i++) to[i] = one(from + i);
}

INLINE void clear(float *p, index_t count) {
  for (index_t i = 0; i < count; i++) p[i] = 0;
}

// `rows` padded rows of a plane, from row y of it on, as far as the window reaches. The columns left and right
// are left alone: they stay zero from the start of the slice.
template <class T>
INLINE void stage_plane(const Task &t, const T *plane, index_t y, index_t rows, index_t staged_width, float *staged) {
  const index_t left = max_of(t.padding, 0), skip = max_of(-t.padding, 0);
  const index_t count = min_of(staged_width - left, t.width - skip);
  if (!t.padding && staged_width == t.width && y >= 0 && y + rows <= t.height)
    return copy(plane + y * t.width, staged, rows * t.width);  // one after the other, here and there
  for (float *to = staged + left; rows > 0; rows--, y++, to += staged_width)
    if (y < 0 || y >= t.height)
      clear(to, count);
    else
      copy(plane + y * t.width + skip, to, count);
}

#include "blocks.h"

// Input rows of some fields of blocks, which have no padding of their own.
template <class T>
void stage_blocks(const Plan &p, const T *patched, index_t row, index_t end, index_t field, index_t fields,
                  float *staged) {
  const Task &t = p.t;
  const Blocks b(t, t.in);
  const index_t plane = t.cut ? t.height * t.width : t.map_height * t.map_width;
  for (Segments s(t, row, end); s.next();) {
    const T *item = patched + s.image * b.item() * plane;
    const index_t rows = s.rows + t.side - 1;
    for (index_t i = 0; i < fields * ORDER; i++) {
      const index_t n = field + i / ORDER;
      const int g = static_cast<int>(i % ORDER);
      float *to = staged + i * p.staged_plane + s.stage_row * p.staged_width;
      if (t.cut)
        copy(item + b.cut_plane(n, g) * plane + s.first * t.width, to, rows * t.width);
      else
        read_blocks(b, item, n, g, s.first, rows, t.width, to);
    }
  }
}

// Padded input rows of some fields.
template <class T>
void stage(const Plan &p, const T *patched, index_t row, index_t end, index_t field, index_t fields, float *staged) {
  const Task &t = p.t;
  if (t.blocked == PATCHED) return stage_blocks(p, patched, row, end, field, fields, staged);
  for (Segments s(t, row, end); s.next();) {
    const T *image = patched + (s.image * t.in + field) * t.planes * t.height * t.width;
    for (index_t plane = 0; plane < fields * t.planes; plane++)
      stage_plane(t, image + plane * t.height * t.width, s.first - t.padding, s.rows + t.side - 1, p.staged_width,
                  staged + plane * p.staged_plane + s.stage_row * p.staged_width);
  }
}

template <int N, class T> INLINE void analyse(const T *const *from, float *const *to, index_t a, index_t b) {
  VEC x[ORDER], y[ORDER];
  UNROLL for (int i = 0; i < ORDER; i++) x[i] = load<N>(from[i] + a);
  analysis(x, y);
  UNROLL for (int i = 0; i < ORDER; i++) store<N>(to[i] + b, y[i]);
}

// Features of one field and cell. A row's last vector spills over the next row, which is written after it.
INLINE void feature_rows(const Plan &p, index_t row, index_t end, const float *const *from, float *const *to) {
  const Task &t = p.t;
  for (Segments s(t, row, end); s.next();) {
    for (index_t r = 0; r < s.rows; r++) {
      const index_t a = (s.stage_row + r) * p.staged_width, b = s.at + r * t.out_width;
      index_t x = 0;
      for (; x + LANES <= t.out_width; x += LANES) analyse<LANES>(from, to, a + x, b + x);
      if (x + HALF < t.out_width)
        analyse<LANES>(from, to, a + x, b + x);
      else if (x < t.out_width)
        analyse<HALF>(from, to, a + x, b + x);
    }
  }
}

// Where the features of one of some fields and a cell go.
INLINE void feature_places(const Plan &p, index_t fields, index_t field, index_t cell, float *features, float **to) {
  const index_t cells = p.t.cells;
  for (int block = 0; block < BLOCKS; block++)
    for (int l = 0; l < BLOCK_DIM[block]; l++) {
      const index_t number = fields * cells * BLOCK_FIRST[block] + (field * cells + cell) * BLOCK_DIM[block];
      to[BLOCK_FIRST[block] + l] = features + (number + l) * p.stride;
    }
}

void make_features(const Plan &p, index_t row, index_t end, index_t fields, const float *staged, float *features) {
  const Task &t = p.t;
  for (index_t field = 0; field < fields; field++)
    for (index_t cell = 0; cell < t.cells; cell++) {
      const float *from[ORDER];
      float *to[ORDER];
      for (int g = 0; g < ORDER; g++) {
        const int32_t *shift = t.shift + 2 * (g * t.cells + cell);
        from[g] = staged + (field * t.planes + t.plane[g]) * p.staged_plane + shift[0] * p.staged_width + shift[1];
      }
      feature_places(p, fields, field, cell, features, to);
      feature_rows(p, row, end, from, to);
    }
}

#if LANES == 16
// ---- features without a stage -----------------------------------------------------------------------------
// Of maps as wide as those out, the neighbours of positions that follow each other do too, from row to row: they
// are read where they lie, and what a window sees beyond the map is masked.

INLINE Sixteen load_some(const float *p, __mmask16 some) { return (Sixteen)_mm512_maskz_loadu_ps(some, p); }
INLINE Sixteen load_some(const Half *p, __mmask16 some) {
  return (Sixteen)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, p)), 16);
}

// For each place (side, side) in the window and vector of positions from `first` on, which of its neighbours there
// are on the map.
void mask_neighbours(const Task &t, index_t first, index_t vectors, uint16_t *masks) {
  const auto all = [](index_t number) { return _mm512_set1_epi32(static_cast<int>(number)); };
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), width = all(t.width);
  for (index_t v = 0; v < vectors; v++) {
    __m512i row = all((first + 16 * v) / t.width - t.padding);
    __m512i column = _mm512_add_epi32(lanes, all((first + 16 * v) % t.width));
    for (__mmask16 beyond; (beyond = _mm512_cmpge_epi32_mask(column, width));) {
      row = _mm512_mask_add_epi32(row, beyond, row, all(1));
      column = _mm512_mask_sub_epi32(column, beyond, column, width);
    }
    column = _mm512_sub_epi32(column, all(t.padding));
    __mmask16 columns[MOST_FLAT];
    for (index_t d = 0; d < t.side; d++)  // below zero is beyond all, without a sign
      columns[d] = _mm512_cmplt_epu32_mask(_mm512_add_epi32(column, all(d)), width);
    for (index_t d = 0; d < t.side; d++) {
      const __mmask16 rows = _mm512_cmplt_epu32_mask(_mm512_add_epi32(row, all(d)), all(t.height));
      for (index_t e = 0; e < t.side; e++) masks[(d * t.side + e) * vectors + v] = rows & columns[e];
    }
  }
}

template <class T>
void make_flat_features(const Plan &p, const T *patched, index_t row, index_t end, index_t field, index_t fields,
                        uint16_t *masks, float *features) {
  const Task &t = p.t;
  const index_t plane = t.height * t.width;
  for (Segments s(t, row, end); s.next();) {
    const index_t first = s.first * t.width, vectors = ceil_div(s.rows * t.width, 16);
    mask_neighbours(t, first, vectors, masks);
    const T *image = patched + (s.image * t.in + field) * t.planes * plane + first - t.padding * (t.width + 1);
    for (index_t n = 0; n < fields; n++)
      for (index_t cell = 0; cell < t.cells; cell++) {
        const T *from[ORDER];
        const uint16_t *some[ORDER];
        float *to[ORDER];
        for (int g = 0; g < ORDER; g++) {
          const int32_t *shift = t.shift + 2 * (g * t.cells + cell);
          from[g] = image + (n * t.planes + t.plane[g]) * plane + shift[0] * t.width + shift[1];
          some[g] = masks + (shift[0] * t.side + shift[1]) * vectors;
        }
        feature_places(p, fields, n, cell, features, to);
        for (index_t v = 0; v < vectors; v++) {
          Sixteen x[ORDER], y[ORDER];
          UNROLL for (int g = 0; g < ORDER; g++) x[g] = load_some(from[g] + 16 * v, some[g][v]);
          analysis(x, y);
          UNROLL for (int i = 0; i < ORDER; i++) store<16>(to[i] + s.at + 16 * v, y[i]);
        }
      }
  }
}
#else
template <class T>
void make_flat_features(const Plan &, const T *, index_t, index_t, index_t, index_t, uint16_t *, float *) {}
#endif

template <class T>
void find_features(const Plan &p, const T *patched, index_t row, index_t end, index_t field, index_t fields,
                   float *staged, float *features) {
  if (p.flat)
    return make_flat_features(p, patched, row, end, field, fields, reinterpret_cast<uint16_t *>(staged), features);
  stage(p, patched, row, end, field, fields, staged);
  make_features(p, row, end, fields, staged, features);
}

// The features of the trivial irrep are sums over a field's planes; of some fields, `apart` rows from one to the next,
// their sums over the positions too.
void add_sums(const float *rows, index_t apart, index_t fields, index_t positions, double *sums) {
  for (index_t field = 0; field < fields; field++, rows += apart) {
    Vector<LANES>::type some = {};
    index_t x = 0;
    for (; x + LANES <= positions; x += LANES) some += load<LANES>(rows + x);
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += some[i];
    for (; x < positions; x++) sum += rows[x];
    sums[field] += sum;
  }
}

// ---- products: features x blocks -----------------------------------------------------------------------

typedef Vector<LANES>::type Lanes;

// sum[n][x] += sum_k f[k][x] w[k][n], for COLUMNS values of n and VECTORS vectors of x.
template <int COLUMNS, int VECTORS, bool LOWER, class T>
INLINE void accumulate(Lanes (&sum)[COLUMNS][VECTORS], const T *f, index_t stride, const float *w, index_t rows) {
  for (index_t k = 0; k < rows; k++, f += stride, w += TILE) {
    Lanes x[VECTORS];
    UNROLL for (int v = 0; v < VECTORS; v++) x[v] = load<LANES>(f + v * LANES);
    UNROLL for (int n = 0; n < COLUMNS; n++)
      UNROLL for (int v = 0; v < VECTORS; v++) sum[n][v] = multiply_add<LANES, LOWER>(sum[n][v], x[v], w[n]);
  }
}

// The sums, into c or added to it.
template <int COLUMNS, int VECTORS, bool LOWER>
INLINE void product_tile(const float *f, index_t stride, const float *w, index_t rows, float *c, bool add) {
  Lanes sum[COLUMNS][VECTORS];
  UNROLL for (int n = 0; n < COLUMNS; n++)
    UNROLL for (int v = 0; v < VECTORS; v++)
      sum[n][v] = add ? load<LANES>(c + n * stride + v * LANES) : Lanes{};
  accumulate<COLUMNS, VECTORS, LOWER>(sum, f, stride, w, rows);
  UNROLL for (int n = 0; n < COLUMNS; n++)
    UNROLL for (int v = 0; v < VECTORS; v++) store<LANES>(c + n * stride + v * LANES, sum[n][v]);
}

typedef void (*ProductTile)(const float *, index_t, const float *, index_t, float *, bool);

template <int COLUMNS, int VECTORS, bool LOWER>
void product(const float *f, index_t stride, const float *w, index_t rows, float *c, bool add) {
  product_tile<COLUMNS, VECTORS, LOWER>(f, stride, w, rows, c, add);
}

#define WIDTHS(n, lower) {product<n, 1, lower>, product<n, 2, lower>, product<n, 3, lower>}
#if REGISTERS == 32
#define TILES(lower)                                                                    \
  {WIDTHS(1, lower), WIDTHS(2, lower), WIDTHS(3, lower), WIDTHS(4, lower),              \
   WIDTHS(5, lower), WIDTHS(6, lower), WIDTHS(7, lower), WIDTHS(8, lower)}
#else
#define TILES(lower) {WIDTHS(1, lower), WIDTHS(2, lower), WIDTHS(3, lower), WIDTHS(4, lower)}
#endif
const ProductTile PRODUCT[1 + PAIRS][TILE][WIDE] = {
    TILES(false),
#if PAIRS
    TILES(true)
#endif
};

// Two of two rather than three and one.
INLINE index_t next_width(index_t vectors) { return vectors >= WIDE && vectors != WIDE + 1 ? WIDE : min_of(vectors, 2); }

// Rows of features, two of which become one where they are multiplied as pairs.
INLINE index_t paired(const Plan &p, index_t rows) { return p.lower ? ceil_div(rows, 2) : rows; }

void multiply(const Plan &p, index_t positions, index_t field, index_t fields, const float *features,
              const float *filter, float *products, Lines &read, Lines &written) {
  const Task &t = p.t;
  for (int block = 0, irrep = 0; block < BLOCKS; block++) {
    if (!(t.irreps >> BLOCK_IRREP[block] & 1)) continue;
    for (; irrep < BLOCK_IRREP[block]; irrep++)
      filter += paired(p, t.in * t.cells * IRREP_DIM[irrep]) * round_up(t.other * IRREP_DIM[irrep], TILE);
    const index_t d = BLOCK_DIM[block], columns = t.other * d, rows = paired(p, fields * t.cells * d);
    const float *f = features + fields * t.cells * BLOCK_FIRST[block] * p.stride;
    float *c = products + t.other * BLOCK_FIRST[block] * p.stride;
    index_t vectors = ceil_div(positions, LANES), width;
    for (index_t x = 0; vectors; x += width * LANES, vectors -= width) {
      width = next_width(vectors);
      for (index_t n = 0; n < columns; n += TILE) {
        const float *w = filter + n * paired(p, t.in * t.cells * d) + paired(p, field * t.cells * d) * TILE;
        const index_t count = min_of(TILE, columns - n);
        read.ask<0>();
        written.ask<1>();
        PRODUCT[p.lower][count - 1][width - 1](f + x, p.stride, w, rows, c + n * p.stride + x, field > 0);
      }
    }
  }
}

// ---- inverse transform of the products, and the transform of `plain` --------------------------------------

template <int N> INLINE void synthesise(const float *const *from, index_t a, float bias, VEC *y) {
  VEC x[ORDER];
  UNROLL for (int i = 0; i < ORDER; i++) x[i] = load<N>(from[i] + a);
  synthesis(x, y);
  UNROLL for (int i = 0; i < ORDER; i++) y[i] += bias;
}

// One field of the products at positions of one image, to a row of numbers for each element.
// With POOLED, to one for each plane of out.
template <bool POOLED, class T>
INLINE void combine_field(const Task &t, const float *const *from, float bias, index_t count, T *const *to) {
  const Rectifier rectify(t);
  const index_t rows = POOLED ? t.other_planes : ORDER;
  Vector<LANES>::type y[ORDER];
  index_t x = 0;
  for (; count >= LANES && x < count; x += LANES) {
    x = min_of(x, count - LANES);  // the last ones again
    synthesise<LANES>(from, x, bias, y);
    if (POOLED) pool(t.other_plane, rows, y);
    UNROLL for (int g = 0; g < rows; g++) store<LANES>(to[g] + x, rectify(y[g]));
  }
  if (x < count) {
    synthesise<LANES>(from, x, bias, y);
    if (POOLED) pool(t.other_plane, rows, y);
    T last[ORDER][LANES];
    UNROLL for (int g = 0; g < rows; g++) store<LANES>(last[g], rectify(y[g]));
    for (int g = 0; g < rows; g++)
      for (index_t i = 0; i < count - x; i++) to[g][x + i] = last[g][i];
  }
}

INLINE uint16_t *raw(Half *p) { return &p->bits; }
INLINE float *raw(float *p) { return p; }

// Of out and plain, where they are not moved by way of the scratch: the plane of an element, of all of an item.
INLINE index_t plane_of(const Task &t, const Blocks &b, index_t field, int g) {
  return t.blocked == OTHER ? b.cut_plane(field, g) : field * t.other_planes + t.other_plane[g];
}

template <class T> void combine(const Plan &p, index_t row, index_t end, const float *products, T *out, float *moved) {
  const Task &t = p.t;
  const Blocks b(t, t.other);
  const index_t plane = t.out_height * t.out_width, map = t.map_height * t.map_width;
  const index_t sites = t.blocked == OTHER ? b.sites : 1, fields = t.other / sites;
  Planes which;
  if (p.in_blocks) which.find(t);
  for (Segments s(t, row, end); s.next();) {
    const index_t at = s.first * t.out_width;
    T *item = out + s.image * (p.in_blocks ? b.item() * map : t.other * t.other_planes * plane);
    for (index_t field = 0; field < fields; field++) {
      for (index_t site = 0; site < sites; site++) {
        const index_t n = site * fields + field;
        const float *from[ORDER];
        for (int block = 0; block < BLOCKS; block++)
          for (int j = 0; j < BLOCK_DIM[block]; j++)
            from[BLOCK_FIRST[block] + j] =
                products + (t.other * BLOCK_FIRST[block] + n * BLOCK_DIM[block] + j) * p.stride + s.at;
        T *to[ORDER];
        for (int g = 0; g < (t.pooled ? t.other_planes : ORDER); g++)
          if (t.pooled)
            to[g] = item + (n * t.other_planes + g) * plane + at;
          else if (p.in_blocks)
            to[g] = reinterpret_cast<T *>(moved) + (site * ORDER + g) * p.stride;
          else
            to[g] = item + plane_of(t, b, n, g) * plane + at;
        if (t.pooled)
          combine_field<true>(t, from, t.bias ? t.bias[n] : 0, s.rows * t.out_width, to);
        else
          combine_field<false>(t, from, t.bias ? t.bias[n] : 0, s.rows * t.out_width, to);
      }
      if (p.in_blocks)
        write_blocks(t, which, raw(reinterpret_cast<T *>(moved)), p.stride, s.first, s.rows, t.out_width,
                     raw(item + field * ORDER * map));
    }
  }
}

// One field of `plain` at positions of one image, from a row of numbers for each element.
template <class T> INLINE void analyse_field(const T *const *rows, index_t count, float *const *to) {
  const T *from[ORDER];
  for (int g = 0; g < ORDER; g++) from[g] = rows[g];
  index_t x = 0;
  for (; count >= LANES && x < count; x += LANES) {
    x = min_of(x, count - LANES);  // the last ones again
    analyse<LANES>(from, to, x, x);
  }
  if (x < count) {  // not a float beyond the tensor is read
    T last[ORDER][LANES] = {};
    for (int g = 0; g < ORDER; g++) {
      for (index_t i = 0; i < count - x; i++) last[g][i] = from[g][x + i];
      from[g] = last[g];
    }
    analyse<LANES>(from, to, 0, x);
  }
}

template <class T>
void analyse_plain(const Plan &p, const T *given, index_t row, index_t end, float *plain, float *moved) {
  const Task &t = p.t;
  const Blocks b(t, t.other);
  const index_t plane = t.out_height * t.out_width, map = t.map_height * t.map_width;
  for (Segments s(t, row, end); s.next();) {
    const T *item = given + s.image * (p.in_blocks ? b.item() * map : t.other * t.other_planes * plane);
    const index_t count = s.rows * t.out_width, at = s.first * t.out_width;
    for (index_t n = 0; n < t.other; n++) {
      float *to[ORDER];
      for (int block = 0; block < BLOCKS; block++)
        for (int j = 0; j < BLOCK_DIM[block]; j++)
          to[BLOCK_FIRST[block] + j] =
              plain + (t.other * BLOCK_FIRST[block] + 4 * block + n * BLOCK_DIM[block] + j) * p.stride + s.at;
      if (p.in_blocks) {
        const float *from[ORDER];
        for (int g = 0; g < ORDER; g++) {
          read_blocks(b, item, n, g, s.first, s.rows, t.out_width, moved + g * p.stride);
          from[g] = moved + g * p.stride;
        }
        analyse_field(from, count, to);
      } else {
        const T *from[ORDER];
        for (int g = 0; g < ORDER; g++)
          from[g] = item + plane_of(t, b, n, g) * plane + at;
        analyse_field(from, count, to);
      }
    }
  }
}

// from[n][x] to to[x][n]; both sides have room up to multiples of four.
INLINE void transpose(const float *from, index_t stride, float *to, index_t columns, index_t positions) {
  typedef Vector<4>::type V;
  for (index_t x = 0; x < positions; x += 4)
    for (index_t n = 0; n < columns; n += 4) {
      V r[4];
      UNROLL for (int i = 0; i < 4; i++) r[i] = load<4>(from + (n + i) * stride + x);
      UNROLL for (int i = 0; i < 4; i++)
        store<4>(to + (x + i) * columns + n, V{r[0][i], r[1][i], r[2][i], r[3][i]});
    }
}

void transpose_plain(const Plan &p, index_t positions, const float *plain, float *transposed) {
  const index_t other = p.t.other, length = round_up(p.positions, 4);
  for (int block = 0; block < BLOCKS; block++) {
    const index_t first = other * BLOCK_FIRST[block] + 4 * block;
    transpose(plain + first * p.stride, p.stride, transposed + first * length,
              round_up(other * BLOCK_DIM[block], 4), positions);
  }
}

// ---- the gradient of the filter: features x transposed plain -------------------------------------------

// c[k][n] += sum_x f[k][x] z[x][n], for ROWS values of k and VECTORS vectors of n.
template <int N, int ROWS, int VECTORS, bool LOWER>
INLINE void outer_tile(const float *f, index_t stride, const float *z, index_t columns, index_t positions, float *c) {
  VEC sum[ROWS][VECTORS];
  UNROLL for (int k = 0; k < ROWS; k++)
    UNROLL for (int v = 0; v < VECTORS; v++) sum[k][v] = load<N>(c + k * columns + v * N);
  for (index_t x = 0; x < positions; x++, z += columns) {
    VEC y[VECTORS];
    UNROLL for (int v = 0; v < VECTORS; v++) y[v] = load<N>(z + v * N);
    UNROLL for (int k = 0; k < ROWS; k++)
      UNROLL for (int v = 0; v < VECTORS; v++)
        sum[k][v] = multiply_add<N, LOWER>(sum[k][v], y[v], f[k * stride + x]);
  }
  UNROLL for (int k = 0; k < ROWS; k++)
    UNROLL for (int v = 0; v < VECTORS; v++) store<N>(c + k * columns + v * N, sum[k][v]);
}

#if LANES == 16
// Two vectors hold N columns (16, 8 or 4) at 32 / N positions. From (position, column), as they lie, to (column,
// position), so that a feature at these positions, broadcast in one piece, meets both vectors; and back.
template <int N> struct Interleaving {
  int32_t there[32], back[32];
  constexpr Interleaving() : there(), back() {
    for (int i = 0; i < 32; i++) {
      const int from = i % (32 / N) * N + i / (32 / N);
      there[i] = from;
      back[from] = i;
    }
  }
};
template <int N> alignas(64) constexpr Interleaving<N> INTERLEAVING;

INLINE void permute(const int32_t *order, Sixteen *x) {
  const __m512 a = (__m512)x[0], b = (__m512)x[1];
  x[0] = (Sixteen)_mm512_permutex2var_ps(a, _mm512_load_si512(order), b);
  x[1] = (Sixteen)_mm512_permutex2var_ps(a, _mm512_load_si512(order + 16), b);
}

// A vector of N columns of some positions.
template <int N> INLINE Sixteen together(const float *z, index_t columns) {
  if (N == 16) return load<16>(z);
  if (N == 8)
    return (Sixteen)_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(z)), _mm256_loadu_ps(z + columns), 1);
  __m512 all = _mm512_castps128_ps512(_mm_loadu_ps(z));
  all = _mm512_insertf32x4(all, _mm_loadu_ps(z + columns), 1);
  all = _mm512_insertf32x4(all, _mm_loadu_ps(z + 2 * columns), 2);
  return (Sixteen)_mm512_insertf32x4(all, _mm_loadu_ps(z + 3 * columns), 3);
}

// N columns of all positions but the last few; returns how many were taken.
template <int N> index_t interleave_columns(const float *z, index_t columns, index_t positions, float *to) {
  const index_t STEP = 32 / N;
  index_t x = 0;
  for (; x + STEP <= positions; x += STEP, z += STEP * columns, to += 32) {
    Sixteen y[2];
    if (columns == N)
      y[0] = load<16>(z), y[1] = load<16>(z + 16);
    else
      y[0] = together<N>(z, columns), y[1] = together<N>(z + STEP / 2 * columns, columns);
    permute(INTERLEAVING<N>.there, y);
    store<16>(to, y[0]), store<16>(to + 16, y[1]);
  }
  return x;
}

// A feature at 32 / N positions, again and again.
template <int N> INLINE Sixteen repeated(const float *f) {
  typedef double Two __attribute__((aligned(4), may_alias));
  if (N == 16) return (Sixteen)_mm512_set1_pd(*(const Two *)f);
  if (N == 8) return (Sixteen)_mm512_broadcast_f32x4(_mm_loadu_ps(f));
  return (Sixteen)_mm512_broadcast_f32x8(_mm256_loadu_ps(f));
}

// Of each column the sum over its positions.
template <int N> INLINE VEC over_positions(Sixteen *sum) {
  permute(INTERLEAVING<N>.back, sum);
  float numbers[16];
  store<16>(numbers, sum[0] + sum[1]);
  VEC total = load<N>(numbers);
  UNROLL for (int i = N; i < 16; i += N) total += load<N>(numbers + i);
  return total;
}

// c[k][n] += sum_x f[k][x] z[x][n], for ROWS values of k and N of n, of which `some` holds the first positions.
// Not inlined, or the permutations take up registers that the sums want.
template <int N, int ROWS, bool LOWER>
__attribute__((noinline)) void narrow_tile(const float *f, index_t stride, const float *some, index_t interleaved,
                                           const float *z, index_t columns, index_t positions, float *c) {
  Sixteen sum[ROWS][2] = {};
  for (index_t x = 0; x < interleaved; x += 32 / N, some += 32) {
    const Sixteen first = load<16>(some), second = load<16>(some + 16);
    UNROLL for (int k = 0; k < ROWS; k++) {
      const Sixteen feature = repeated<N>(f + k * stride + x);
      sum[k][0] = multiply_add<16, LOWER>(sum[k][0], feature, first);
      sum[k][1] = multiply_add<16, LOWER>(sum[k][1], feature, second);
    }
  }
  UNROLL for (int k = 0; k < ROWS; k++) {
    VEC total = load<N>(c + k * columns) + over_positions<N>(sum[k]);
    for (index_t x = interleaved; x < positions; x++)
      total = multiply_add<N, LOWER>(total, load<N>(z + x * columns), f[k * stride + x]);
    store<N>(c + k * columns, total);
  }
}
#endif

// What a tile of columns is made from.
struct Columns {
  const float *z, *some;  // (position, column), and interleaved
  index_t columns, positions, interleaved;
};

template <int N, int ROWS, int VECTORS, bool LOWER>
INLINE void correlate_tile(const float *f, index_t stride, const Columns &y, float *c) {
#if LANES == 16
  if constexpr (VECTORS == 1)
    return narrow_tile<N, ROWS, LOWER>(f, stride, y.some, y.interleaved, y.z, y.columns, y.positions, c);
#endif
  outer_tile<N, ROWS, VECTORS, LOWER>(f, stride, y.z, y.columns, y.positions, c);
}

// The last rows, fewer than a tile has.
template <int N, int ROWS, int VECTORS, bool LOWER>
INLINE void correlate_last(const float *f, index_t stride, const Columns &y, float *c, index_t rows) {
  if (rows == ROWS) correlate_tile<N, ROWS, VECTORS, LOWER>(f, stride, y, c);
  if constexpr (ROWS > 1)
    if (rows < ROWS) correlate_last<N, ROWS - 1, VECTORS, LOWER>(f, stride, y, c, rows);
}

// N VECTORS columns, all rows.
template <int N, int ROWS, int VECTORS, bool LOWER>
void correlate_columns(const float *f, index_t stride, Columns y, float *c, index_t rows, float *some, Lines &read) {
#if LANES == 16
  if constexpr (VECTORS == 1) y.interleaved = interleave_columns<N>(y.z, y.columns, y.positions, some);
#endif
  y.some = some;
  for (; rows >= ROWS; rows -= ROWS, f += ROWS * stride, c += ROWS * y.columns) {
    read.ask<0>();
    correlate_tile<N, ROWS, VECTORS, LOWER>(f, stride, y, c);
  }
  correlate_last<N, ROWS - 1, VECTORS, LOWER>(f, stride, y, c, rows);
}

const int TALL = REGISTERS == 32 ? 12 : 6;

// Features and plain lie in rows; of pairs, these are pairs of positions.
template <bool LOWER>
void correlate(const Plan &p, index_t positions, index_t field, index_t fields, const float *features,
               const float *transposed, float *gradient, float *some, Lines &read) {
  const Task &t = p.t;
  const index_t part = LOWER ? 2 : 1, stride = p.stride / part, length = ceil_div(positions, part);
  for (int block = 0, irrep = 0; block < BLOCKS; block++) {
    if (!(t.irreps >> BLOCK_IRREP[block] & 1)) continue;
    for (; irrep < BLOCK_IRREP[block]; irrep++) gradient += gradient_floats(irrep, t.in, t.other, t.cells);
    const index_t d = BLOCK_DIM[block], columns = round_up(t.other * d, 4), rows = fields * t.cells * d;
    const float *f = features + fields * t.cells * BLOCK_FIRST[block] * stride;
    const float *z = transposed + (t.other * BLOCK_FIRST[block] + 4 * block) * round_up(p.positions, 4) / part;
    float *c = gradient + field * t.cells * d * columns;
    index_t n = 0;
    const auto from = [&](index_t n) { return Columns{z + n, NULL, columns, length, 0}; };
    for (; n + 2 * LANES <= columns; n += 2 * LANES)
      correlate_columns<LANES, TALL, 2, LOWER>(f, stride, from(n), c + n, rows, some, read);
    for (; n + LANES <= columns; n += LANES)
      correlate_columns<LANES, 12, 1, LOWER>(f, stride, from(n), c + n, rows, some, read);
    if (LANES > 8 && n + 8 <= columns)
      correlate_columns<8, 12, 1, LOWER>(f, stride, from(n), c + n, rows, some, read), n += 8;
    if (LANES > 4 && n < columns) correlate_columns<4, 12, 1, LOWER>(f, stride, from(n), c + n, rows, some, read);
  }
}

// ---- to pairs of bfloat16 ------------------------------------------------------------------------------

#if PAIRS
// Rows two by two: pairs (from[2 k][x], from[2 k + 1][x]); the last row alone is paired with zeros.
void pair_rows(const float *from, index_t stride, float *to, index_t to_stride, index_t rows, index_t count) {
  for (index_t k = 0; k < rows; k += 2, from += 2 * stride, to += to_stride)
    for (index_t x = 0; x < count; x += 16) {
      const Sixteen second = k + 1 < rows ? load<16>(from + stride + x) : Sixteen{};
      store<16>(to + x, pair(load<16>(from + x), second));
    }
}

// Of tiles of columns the rows two by two, to where they lie or elsewhere; returns where the next would go.
float *pair_tiles(const float *from, index_t rows, index_t columns, float *to) {
  for (index_t n = 0; n < columns; n += TILE, from += rows * TILE)
    for (index_t k = 0; k < rows; k += 2, to += TILE) {
      Sixteen first = {}, second = {};
      for (int i = 0; i < TILE; i++) first[i] = from[k * TILE + i];
      for (int i = 0; i < TILE && k + 1 < rows; i++) second[i] = from[(k + 1) * TILE + i];
      const Sixteen made = pair(first, second);
      for (int i = 0; i < TILE; i++) to[i] = made[i];
    }
  return to;
}

// The packed filter.
void pair_filter(const Plan &p, float *to) {
  const float *from = p.t.filter;
  for (int irrep = 0; irrep < IRREPS; irrep++) {
    const index_t rows = p.t.in * p.t.cells * IRREP_DIM[irrep], columns = p.t.other * IRREP_DIM[irrep];
    to = pair_tiles(from, rows, columns, to);
    from += rows * round_up(columns, TILE);
  }
}

// Rows of bfloat16, the odd last position paired with zero.
void halve_rows(const float *from, index_t stride, float *to, index_t rows, index_t count) {
  for (index_t k = 0; k < rows; k++, from += stride, to += stride / 2) {
    for (index_t x = 0; x < count; x += 32) store<16>(to + x / 2, halve(load<16>(from + x), load<16>(from + x + 16)));
    const Half none = {0};
    if (count % 2) __builtin_memcpy(reinterpret_cast<char *>(to) + count * sizeof none, &none, sizeof none);
  }
}

void pair_features(const Plan &p, index_t positions, index_t fields, float *features) {
  for (int block = 0; block < BLOCKS; block++) {
    float *f = features + fields * p.t.cells * BLOCK_FIRST[block] * p.stride;
    pair_rows(f, p.stride, f, p.stride, fields * p.t.cells * BLOCK_DIM[block], positions);
  }
}

void pair_plain(const Plan &p, index_t positions, const float *transposed, float *pairs) {
  const index_t other = p.t.other, length = round_up(p.positions, 4);
  for (int block = 0; block < BLOCKS; block++) {
    const index_t first = (other * BLOCK_FIRST[block] + 4 * block) * length;
    const index_t columns = round_up(other * BLOCK_DIM[block], 4);
    pair_rows(transposed + first, columns, pairs + first / 2, columns, positions, columns);
  }
}
#else
void pair_rows(const float *, index_t, float *, index_t, index_t, index_t) {}
float *pair_tiles(const float *, index_t, index_t, float *to) { return to; }
void pair_filter(const Plan &, float *) {}
void halve_rows(const float *, index_t, float *, index_t, index_t) {}
void pair_features(const Plan &, index_t, index_t, float *) {}
void pair_plain(const Plan &, index_t, const float *, float *) {}
#endif

// ---- what is asked for ahead -----------------------------------------------------------------------------

INLINE index_t product_calls(const Plan &p) {
  return ceil_div(p.positions, WIDE * LANES) * ceil_div(p.t.other * ORDER, TILE);
}

// What is read next: rows of some fields from this one on.
Lines input_lines(const Plan &p, index_t row, index_t end, index_t field) {
  const Task &t = p.t;
  Lines lines(t, row, end, t.patched, t.bfloat16 & 1, t.height, t.width, t.in * t.planes);
  if (t.blocked == PATCHED || row >= end) return lines;
  lines.first = field * t.planes;
  lines.planes = min_of(p.fields, t.in - field) * t.planes;
  lines.above = t.padding;
  lines.more = t.side - 1;
  lines.spread(t.plain ? ceil_div(p.fields * t.cells * ORDER, TALL) * ceil_div(t.other, 2 * LANES) : product_calls(p));
  return lines;
}

// What is written next.
Lines output_lines(const Plan &p, index_t row, index_t end) {
  const Task &t = p.t;
  const index_t planes = t.other * t.other_planes;
  Lines lines(t, row, end, t.out, t.bfloat16 & 2, t.out_height, t.out_width, planes);
  if (!t.out || t.blocked == OTHER) return lines;
  lines.planes = planes;
  lines.spread(product_calls(p));
  return lines;
}

// ---- a slice of the blocks -----------------------------------------------------------------------------

void slice_regular(const Task *task, index_t number, float *scratch) {
  const Plan p(*task);
  const Task &t = *task;
  const index_t all_rows = t.batch * t.out_height, blocks = ceil_div(all_rows, t.rows);
  float *gradient = t.filter_gradient + number * gradient_size(t.in, t.other, t.cells) * (t.plain != NULL);
  float *plain = scratch + p.plain, *transposed = scratch + p.transposed, *products = scratch + p.products;
  float *features = scratch + p.features, *staged = scratch + p.staged;
  float *halves = scratch + p.halves, *plain_pairs = scratch + p.plain_pairs, *paired_filter = scratch + p.filter;
  float *moved = scratch + p.moved, *some = scratch + p.some;
  double *sums = t.sums ? t.sums + number * (t.sums_cell < 0 ? t.other : t.in) : NULL;
  if (!p.flat) clear(staged, p.halves - p.staged);
  clear(plain, p.transposed - p.plain);  // columns that fill up to four
  if (t.irreps + 1 != index_t(1) << IRREPS) clear(products, p.plain - p.products);  // of those not multiplied
  if (p.lower && t.out) pair_filter(p, paired_filter);
  const index_t own_rows = min_of(blocks * (number + 1) / t.slices * t.rows, all_rows);
  for (index_t b = blocks * number / t.slices; b * t.rows < own_rows; b++) {
    const index_t row = b * t.rows, end = min_of(row + t.rows, all_rows), positions = (end - row) * t.out_width;
    if (t.plain) {
      if (t.bfloat16 & 4)
        analyse_plain(p, static_cast<const Half *>(t.plain), row, end, plain, moved);
      else
        analyse_plain(p, static_cast<const float *>(t.plain), row, end, plain, moved);
      if (sums && t.sums_cell < 0)
        add_sums(plain + (t.other * TRIVIAL + 4 * TRIVIAL_BLOCK) * p.stride, p.stride, t.other, positions, sums);
      transpose_plain(p, positions, plain, transposed);
      if (p.lower) pair_plain(p, positions, transposed, plain_pairs);
    }
    Lines written = output_lines(p, row, end);
    for (index_t field = 0; field < t.in; field += p.fields) {
      const index_t fields = min_of(p.fields, t.in - field), rest = t.in - field - fields;
      Lines read = rest ? input_lines(p, row, end, t.in - rest) : input_lines(p, end, min_of(end + t.rows, own_rows), 0);
      if (t.bfloat16 & 1)
        find_features(p, static_cast<const Half *>(t.patched), row, end, field, fields, staged, features);
      else
        find_features(p, static_cast<const float *>(t.patched), row, end, field, fields, staged, features);
      if (sums && t.sums_cell >= 0)
        add_sums(features + (fields * t.cells * TRIVIAL + t.sums_cell) * p.stride, t.cells * p.stride, fields, positions,
                 sums + field);
      if (t.plain && p.lower) {
        halve_rows(features, p.stride, halves, fields * t.cells * ORDER, positions);
        correlate<PAIRS>(p, positions, field, fields, halves, plain_pairs, gradient, some, read);
      } else if (t.plain) {
        correlate<false>(p, positions, field, fields, features, transposed, gradient, some, read);
      }
      if (t.out) {
        if (p.lower) pair_features(p, positions, fields, features);
        multiply(p, positions, field, fields, features, p.lower ? paired_filter : t.filter, products, read, written);
      }
    }
    if (t.out && t.bfloat16 & 2)
      combine(p, row, end, products, static_cast<Half *>(t.out), moved);
    else if (t.out)
      combine(p, row, end, products, static_cast<float *>(t.out), moved);
  }
}

#include "lifting.h"

// ---- all kinds -------------------------------------------------------------------------------------------

index_t scratch_size(const Task *task) {
  return task->kind == REGULAR ? Plan(*task).total : LiftingPlan(*task).total;
}

void slice(const Task *task, index_t number, float *scratch) {
  if (task->kind == REGULAR)
    slice_regular(task, number, scratch);
  else
    slice_lifting(task, number, scratch);
}

void finish(const Task *task) {
  if (task->kind == LIFTING && task->weight_gradient) finish_lifting(*task);
}

}  // namespace

extern "C" {
extern const Kernel KERNEL;
const Kernel KERNEL = {packed_size, gradient_size, pack, unpack, scratch_size, slice, finish};
}
