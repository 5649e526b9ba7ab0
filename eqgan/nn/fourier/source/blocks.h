// Part of kernel.cpp: maps to blocks of sites and back, for strided convolutions.
//
// A map whose padded sites lie in blocks of side x side is a map of the blocks with side^2 times as many planes:
// plane n of the blocks holds one site of each block of one plane of the map, as `shift` says. Row by row of the
// map: its sites go to `side` planes in turn.

const index_t MOST_SIDE = 8;  // beyond, the caller does without

template <class T, int N> struct Pack {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
  typedef T loose __attribute__((vector_size(N * sizeof(T)), aligned(sizeof(T)), may_alias));
};

// 2 N sites of a row: every other to or from one place, those between to or from another.
template <bool BACK, int N, class T> INLINE void move_pairs(T *sites, T *first, T *second) {
  typedef typename Pack<T, N>::type V;
  typedef typename Pack<T, N>::loose Loose;
  const V a = *(Loose *)(BACK ? first : sites), b = *(Loose *)(BACK ? second : sites + N);
  V x, y;
  if constexpr (N == 8 && BACK) {
    x = V{a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]};
    y = V{a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]};
  } else if constexpr (N == 8) {
    x = V{a[0], a[2], a[4], a[6], b[0], b[2], b[4], b[6]};
    y = V{a[1], a[3], a[5], a[7], b[1], b[3], b[5], b[7]};
  } else if constexpr (BACK) {
    x = V{a[0], b[0], a[1], b[1]}, y = V{a[2], b[2], a[3], b[3]};
  } else {
    x = V{a[0], a[2], b[0], b[2]}, y = V{a[1], a[3], b[1], b[3]};
  }
  *(Loose *)(BACK ? sites : first) = x;
  *(Loose *)(BACK ? sites + N : second) = y;
}

// The last ones may lie over others.
template <bool BACK, int N, class T> INLINE void move_many_pairs(T *sites, T *first, T *second, index_t pairs) {
  for (index_t done = 0; done < pairs; done += N) {
    const index_t x = min_of(done, pairs - N);
    move_pairs<BACK, N>(sites + 2 * x, first + x, second + x);
  }
}

// A row of `side` parts: part c holds its sites c, c + side, ...
template <bool BACK, class T> INLINE void move_row(T *sites, index_t width, T *const *parts, index_t side) {
  if (side == 2 && width >= 16) return move_many_pairs<BACK, 8>(sites, parts[0], parts[1], width / 2);
  if (side == 2 && width >= 8) return move_many_pairs<BACK, 4>(sites, parts[0], parts[1], width / 2);
  for (index_t c = 0; c < side; c++)
    for (index_t x = c, n = 0; x < width; x += side, n++) {
      if (BACK)
        sites[x] = parts[c][n];
      else
        parts[c][n] = sites[x];
    }
}

// The planes of the blocks that the rows r, r + side, ... of a plane lie in, padding counted.
template <bool BACK, class T> INLINE void move_rows(const Task &t, T *plane, index_t r, T *const *planes) {
  if (!BACK && t.padding)
    for (index_t c = 0; c < t.side; c++)
      for (index_t i = 0; i < t.out_height * t.out_width; i++) planes[c][i] = T();
  T *parts[MOST_SIDE];  // of the first row, from where its sites lie on
  const index_t first = (r - t.padding % t.side + t.side) % t.side;
  for (index_t c = 0; c < t.side; c++) {
    const index_t x = t.padding + c;
    parts[c] = planes[x % t.side] + (t.padding + first) / t.side * t.out_width + x / t.side;
  }
  for (index_t y = first; y < t.height; y += t.side) {
    move_row<BACK>(plane + y * t.width, t.width, parts, t.side);
    for (index_t c = 0; c < t.side; c++) parts[c] += t.out_width;
  }
}

template <bool BACK, class T> void move_fields(const Task &t, index_t number) {
  const index_t fields = t.in / ORDER, sites = t.side * t.side, all = t.batch * fields;
  const index_t map = t.height * t.width, block = t.out_height * t.out_width;
  index_t plane_of[MOST_SIDE * MOST_SIDE * ORDER];  // (plane, row, column): which plane of a block holds this site
  for (index_t n = 0; n < sites * ORDER; n++) {
    const int32_t *site = t.shift + 3 * n;
    plane_of[(site[0] * t.side + site[1]) * t.side + site[2]] = n / ORDER * t.in + n % ORDER;
  }
  for (index_t i = all * number / t.slices; i < all * (number + 1) / t.slices; i++) {
    T *field = static_cast<T *>(t.patched) + i * ORDER * map;
    T *blocks = static_cast<T *>(t.out) + (i / fields * sites * fields + i % fields) * ORDER * block;
    for (index_t n = 0; n < ORDER; n++)
      for (index_t r = 0; r < t.side; r++) {
        T *planes[MOST_SIDE];
        for (index_t c = 0; c < t.side; c++) planes[c] = blocks + plane_of[(n * t.side + r) * t.side + c] * block;
        move_rows<BACK>(t, field + n * map, r, planes);
      }
  }
}

void slice_blocks(const Task *task, index_t number) {
  const bool half = task->bfloat16 & 1;
  if (task->kind == TO_BLOCKS)
    half ? move_fields<false, uint16_t>(*task, number) : move_fields<false, float>(*task, number);
  else
    half ? move_fields<true, uint16_t>(*task, number) : move_fields<true, float>(*task, number);
}
