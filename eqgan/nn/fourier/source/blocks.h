// Part of kernel.cpp: maps to blocks of sites and back, for strided convolutions.
//
// A map whose padded sites lie in blocks of side x side is a map of the blocks with side^2 times as many planes:
// plane n of the blocks holds one site of each block of one plane of the map, as `shift` says. Row by row of the
// map: its sites go to `side` planes in turn.

const index_t MOST_SIDE = 8, MOST_ROW = 4096;  // beyond, the caller does without

template <class T> struct Pack {
  typedef T type __attribute__((vector_size(8 * sizeof(T))));
  typedef T loose __attribute__((vector_size(8 * sizeof(T)), aligned(sizeof(T)), may_alias));
};

// The first of each pair of sixteen numbers, and the second.
template <class T> INLINE void split(const T *from, T *first, T *second) {
  const typename Pack<T>::type a = *(const typename Pack<T>::loose *)from, b = *(const typename Pack<T>::loose *)(from + 8);
  *(typename Pack<T>::loose *)first = typename Pack<T>::type{a[0], a[2], a[4], a[6], b[0], b[2], b[4], b[6]};
  *(typename Pack<T>::loose *)second = typename Pack<T>::type{a[1], a[3], a[5], a[7], b[1], b[3], b[5], b[7]};
}

template <class T> INLINE void join(const T *first, const T *second, T *to) {
  const typename Pack<T>::type a = *(const typename Pack<T>::loose *)first, b = *(const typename Pack<T>::loose *)second;
  *(typename Pack<T>::loose *)to = typename Pack<T>::type{a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]};
  *(typename Pack<T>::loose *)(to + 8) = typename Pack<T>::type{a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]};
}

// A padded row of the map, to or from a row of each of `side` planes.
template <bool BACK, class T> INLINE void move_row(T *row, T *const *parts, index_t side, index_t columns) {
  if (side == 2 && columns >= 8)
    for (index_t done = 0; done < columns; done += 8) {
      const index_t x = min_of(done, columns - 8);  // the last eight may lie over others
      if (BACK)
        join(parts[0] + x, parts[1] + x, row + 2 * x);
      else
        split(row + 2 * x, parts[0] + x, parts[1] + x);
    }
  else
    for (index_t x = 0; x < columns; x++)
      for (index_t c = 0; c < side; c++) {
        if (BACK)
          row[x * side + c] = parts[c][x];
        else
          parts[c][x] = row[x * side + c];
      }
}

template <class T> struct Mover {
  const Task &t;
  const T *start, *end;                       // of all maps
  index_t left[MOST_SIDE], right[MOST_SIDE];  // where padding ends and begins, in a row of each part
  T spare[MOST_ROW];                          // a row whose padding is zero

  explicit Mover(const Task &task) : t(task), spare() {
    start = static_cast<T *>(t.patched);
    end = start + t.batch * t.in * t.height * t.width;
    for (index_t c = 0; c < t.side; c++) {
      left[c] = ceil_div(max_of(t.padding - c, 0), t.side);
      right[c] = ceil_div(max_of(t.padding + t.width - c, 0), t.side);
    }
  }

  // A row of sites with its padding is read and written in place where it lies over other sites of the maps.
  inline __attribute__((always_inline)) void row_to_blocks(T *sites, T *const *parts) {
    T *row = sites - t.padding;
    if (row < start || row + t.out_width * t.side > end) {
      for (index_t x = 0; x < t.width; x++) spare[t.padding + x] = sites[x];
      row = spare;
    }
    move_row<false>(row, parts, t.side, t.out_width);
    for (index_t c = 0; c < t.side; c++) {
      for (index_t x = 0; x < left[c]; x++) parts[c][x] = T();
      for (index_t x = right[c]; x < t.out_width; x++) parts[c][x] = T();
    }
  }

  inline __attribute__((always_inline)) void row_from_blocks(T *sites, T *const *parts) {
    if (!t.padding) return move_row<true>(sites, parts, t.side, t.out_width);
    move_row<true>(spare, parts, t.side, t.out_width);
    for (index_t x = 0; x < t.width; x++) sites[x] = spare[t.padding + x];
  }

  // The rows r, r + side, ... of a plane of the map.
  template <bool BACK> inline __attribute__((always_inline)) void move_rows(T *plane, index_t r, T **parts) {
    index_t y = r - t.padding;
    for (index_t block = 0; block < t.out_height; block++, y += t.side) {
      if (y >= 0 && y < t.height)
        BACK ? row_from_blocks(plane + y * t.width, parts) : row_to_blocks(plane + y * t.width, parts);
      else if (!BACK)
        for (index_t c = 0; c < t.side; c++) clear_row(parts[c]);
      for (index_t c = 0; c < t.side; c++) parts[c] += t.out_width;
    }
  }

  inline __attribute__((always_inline)) void clear_row(T *row) {
    for (index_t x = 0; x < t.out_width; x++) row[x] = T();
  }
};

template <bool BACK, class T> void move_images(const Task &t, index_t number) {
  index_t plane_of[MOST_SIDE * MOST_SIDE * ORDER];  // (plane, row, column): which plane of the blocks holds this site
  for (index_t n = 0; n < t.other; n++) {
    const int32_t *site = t.shift + 3 * n;
    plane_of[(site[0] * t.side + site[1]) * t.side + site[2]] = n;
  }
  Mover<T> mover(t);
  const index_t map = t.height * t.width, block = t.out_height * t.out_width;
  for (index_t i = t.batch * number / t.slices; i < t.batch * (number + 1) / t.slices; i++)
    for (index_t n = 0; n < t.in; n++)
      for (index_t r = 0; r < t.side; r++) {
        T *parts[MOST_SIDE];
        for (index_t c = 0; c < t.side; c++)
          parts[c] = static_cast<T *>(t.out) + (i * t.other + plane_of[(n * t.side + r) * t.side + c]) * block;
        mover.template move_rows<BACK>(static_cast<T *>(t.patched) + (i * t.in + n) * map, r, parts);
      }
}

void slice_blocks(const Task *task, index_t number) {
  const bool half = task->bfloat16 & 1;
  if (task->kind == TO_BLOCKS)
    half ? move_images<false, uint16_t>(*task, number) : move_images<false, float>(*task, number);
  else
    half ? move_images<true, uint16_t>(*task, number) : move_images<true, float>(*task, number);
}
