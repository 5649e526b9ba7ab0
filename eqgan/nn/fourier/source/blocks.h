// Part of kernel.cpp: reads and writes maps block by block of their sites, for strided convolutions.
//
// A map whose padded sites lie in blocks of s x s is a map of the blocks with s^2 times as many planes: a plane of the
// blocks holds one site of each block of one plane of the map, as `sites` says.

const index_t MOST_SIDE = 8;  // of blocks that are not cut; beyond, the caller does without

// Where the planes of blocks lie.
struct Blocks {
  const Task &t;
  const index_t sites, fields;  // fields of the map

  Blocks(const Task &task, index_t all) : t(task), sites(t.block_side * t.block_side), fields(all / sites) {}

  index_t item() const { return fields * ORDER * (t.cut ? sites : 1); }  // planes in memory

  // Plane, and row and column of the block, of the field n of the blocks at element g.
  index_t place(index_t n, int g, index_t *row, index_t *column) const {
    const int32_t *site = t.sites + (n / fields * ORDER + g) * 3;
    *row = site[1], *column = site[2];
    return n % fields * ORDER + site[0];
  }

  index_t cut_plane(index_t n, int g) const {
    index_t row, column;
    const index_t plane = place(n, g, &row, &column);
    return plane * sites + row * t.block_side + column;
  }
};

// Every second number of 2 N, the first or the second.
template <int N, bool SECOND, class T> INLINE VEC pick(const T *from) {
  const VEC a = load<N>(from), b = load<N>(from + N);
  const int k = SECOND;
  if constexpr (N == 8)
    return VEC{a[k], a[2 + k], a[4 + k], a[6 + k], b[k], b[2 + k], b[4 + k], b[6 + k]};
  else
    return VEC{a[k], a[2 + k], b[k], b[2 + k]};
}

// Rows of a map: every second number, the first or the second.
template <int N, bool SECOND, class T>
INLINE void pick_pairs(const T *from, index_t width, float *to, index_t to_width, index_t count, index_t rows) {
  for (; rows > 0; rows--, from += 2 * width, to += to_width) {
    index_t x = 0;
    for (; x + N < count; x += N) store<N>(to + x, pick<N, SECOND>(from + 2 * x));
    x = count - N;  // the last ones, some of them again
    store<N>(to + x, pick<N, SECOND>(from + 2 * x));
  }
}

template <int N, class T>
INLINE void pick_pairs(const T *from, bool second, index_t width, float *to, index_t to_width, index_t count, index_t rows) {
  if (second)
    pick_pairs<N, true>(from, width, to, to_width, count, rows);
  else
    pick_pairs<N, false>(from, width, to, to_width, count, rows);
}

// Rows y, y + 1, ... of a plane of the blocks, from the maps of one item.
template <class T>
void read_blocks(const Blocks &b, const T *item, index_t n, int g, index_t y, index_t rows, index_t width, float *to) {
  const Task &t = b.t;
  const index_t step = t.block_side, map_width = t.map_width;
  index_t row, column;
  const T *from = item + b.place(n, g, &row, &column) * t.map_height * map_width;
  column -= t.map_padding, row += y * step - t.map_padding;  // of the map, of the first number
  const index_t left = min_of(width, ceil_div(max_of(-column, 0), step));
  const index_t right = max_of(left, min_of(width, ceil_div(max_of(map_width - column, 0), step)));
  const index_t above = min_of(rows, ceil_div(max_of(-row, 0), step));
  const index_t below = max_of(above, min_of(rows, ceil_div(max_of(t.map_height - row, 0), step)));
  if (left || above || right < width || below < rows) clear(to, rows * width);
  const index_t count = right - left, first = column + left * step;
  from += (row + above * step) * map_width, to += above * width + left;
  if (step == 2 && first < 2 && map_width == 2 * count && count >= 8)
    return pick_pairs<8>(from, first, map_width, to, width, count, below - above);
  if (step == 2 && first < 2 && map_width == 2 * count && count >= 4)
    return pick_pairs<4>(from, first, map_width, to, width, count, below - above);
  for (rows = below - above; rows > 0; rows--, from += step * map_width, to += width)
    for (index_t x = 0; x < count; x++) to[x] = one(from + first + x * step);
}

// 2 N sites of a row, every other from one place, those between from another.
template <int N, class T> INLINE void join_pairs(const T *first, const T *second, T *to) {
  typedef T V __attribute__((vector_size(N * sizeof(T))));
  typedef T Loose __attribute__((vector_size(N * sizeof(T)), aligned(sizeof(T)), may_alias));
  const V a = *(const Loose *)first, b = *(const Loose *)second;
  if constexpr (N == 8) {
    *(Loose *)to = V{a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]};
    *(Loose *)(to + N) = V{a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]};
  } else {
    *(Loose *)to = V{a[0], b[0], a[1], b[1]};
    *(Loose *)(to + N) = V{a[2], b[2], a[3], b[3]};
  }
}

template <int N, class T> INLINE void join_row(const T *first, const T *second, T *to, index_t pairs) {
  for (index_t done = 0; done < pairs; done += N) {
    const index_t x = min_of(done, pairs - N);
    join_pairs<N>(first + x, second + x, to + 2 * x);
  }
}

// A row of sites: part c holds c, c + side, ... of them.
template <class T> INLINE void write_row(const T *const *parts, index_t side, T *to, index_t width) {
  if (side == 2 && width % 2 == 0 && width >= 16) return join_row<8>(parts[0], parts[1], to, width / 2);
  if (side == 2 && width % 2 == 0 && width >= 8) return join_row<4>(parts[0], parts[1], to, width / 2);
  for (index_t c = 0; c < side; c++)
    for (index_t x = c, n = 0; x < width; x += side, n++) to[x] = parts[c][n];
}

// (plane, row, column): which plane of a field's block holds this site.
struct Planes {
  index_t of[MOST_SIDE * MOST_SIDE * ORDER];

  void find(const Task &t) {
    for (index_t n = 0; n < t.block_side * t.block_side * ORDER; n++) {
      const int32_t *site = t.sites + 3 * n;
      of[(site[0] * t.block_side + site[1]) * t.block_side + site[2]] = n;
    }
  }
};

// The sites of a field of the map that lie in its blocks' rows y, y + 1, ..., from planes of these, site by site and
// element by element, `stride` apart.
template <class T>
void write_blocks(const Task &t, const Planes &which, const T *planes, index_t stride, index_t y, index_t rows,
                  index_t width, T *field) {
  const index_t side = t.block_side, padding = t.map_padding;
  for (index_t g = 0; g < ORDER; g++)
    for (index_t r = 0; r < side; r++) {
      const T *parts[MOST_SIDE];
      for (index_t c = 0; c < side; c++) {
        const index_t x = padding + c;
        parts[c] = planes + which.of[(g * side + r) * side + x % side] * stride + x / side;
      }
      for (index_t k = 0, at = y * side + r - padding; k < rows; k++, at += side) {
        if (at >= 0 && at < t.map_height) write_row(parts, side, field + (g * t.map_height + at) * t.map_width, t.map_width);
        for (index_t c = 0; c < side; c++) parts[c] += width;
      }
    }
}
