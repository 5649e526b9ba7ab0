// Dispatch to the instruction set of this machine, threads, and scratch memory. See engine.h.
#include "engine.h"

#include <pthread.h>
#include <stdlib.h>
#if defined(WITH_AVX512_BF16)
#include <cpuid.h>
#endif

extern "C" {
extern const Kernel kernel_plain;
#ifdef WITH_AVX2
extern const Kernel kernel_avx2;
#endif
#ifdef WITH_AVX512
extern const Kernel kernel_avx512;
#endif
#ifdef WITH_AVX512_BF16
extern const Kernel kernel_avx512_bf16;
#endif

// GOMP_parallel of the OpenMP that is already in the process: a second one would fight it for the cores.
typedef void (*Team)(void (*)(void *), void *, unsigned, unsigned);

#if defined(WITH_AVX512_BF16)
// Asked of the processor itself: not every compiler knows the name of it.
static bool multiplies_bfloat16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));
}
#endif

int best_isa() {
#if defined(WITH_AVX512)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
#if defined(WITH_AVX512_BF16)
    if (multiplies_bfloat16()) return 3;
#endif
    return 2;
  }
#endif
#if defined(WITH_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}

static const Kernel *kernel(int isa) {
#ifdef WITH_AVX512_BF16
  if (isa == 3) return &kernel_avx512_bf16;
#endif
#ifdef WITH_AVX512
  if (isa == 2) return &kernel_avx512;
#endif
#ifdef WITH_AVX2
  if (isa == 1) return &kernel_avx2;
#endif
  return &kernel_plain;
}

index_t packed_size(int isa, index_t in, index_t other, index_t cells) {
  return kernel(isa)->packed_size(in, other, cells);
}

index_t gradient_size(int isa, index_t in, index_t other, index_t cells) {
  return kernel(isa)->gradient_size(in, other, cells);
}
}  // extern "C"

namespace {

#ifndef FRESH_SCRATCH
#define FRESH_SCRATCH 0  // 1 to look for writes beyond it: no call finds what a larger one left
#endif

struct Scratch {
  float *memory;
  size_t bytes;
};

pthread_key_t scratch_key;
pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

void free_scratch(void *kept) {
  free(static_cast<Scratch *>(kept)->memory);
  free(kept);
}

void make_key() { pthread_key_create(&scratch_key, free_scratch); }

// Kept by each thread for its next call: fresh pages would be faulted in one by one.
float *scratch(size_t bytes) {
  pthread_once(&scratch_once, make_key);
  Scratch *kept = static_cast<Scratch *>(pthread_getspecific(scratch_key));
  if (!kept) {
    kept = static_cast<Scratch *>(calloc(1, sizeof(Scratch)));
    if (!kept || pthread_setspecific(scratch_key, kept)) return NULL;
  }
  if (kept->bytes < bytes || FRESH_SCRATCH) {
    free(kept->memory);
    kept->memory = NULL;
    kept->bytes = posix_memalign(reinterpret_cast<void **>(&kept->memory), 64, bytes) ? 0 : bytes;
  }
  return kept->memory;
}

struct Work {
  const Kernel *kernel;
  const Task *task;
  index_t next, failed;
};

// Slices are handed out by ticket, so that any number of threads does the same sums in the same order.
void run_slices(void *data) {
  Work *work = static_cast<Work *>(data);
  float *memory = scratch(sizeof(float) * work->kernel->scratch_size(work->task));
  index_t number;
  while ((number = __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED)) < work->task->slices) {
    if (memory)
      work->kernel->slice(work->task, number, memory);
    else
      __atomic_store_n(&work->failed, 1, __ATOMIC_RELAXED);
  }
}

void *run_thread(void *data) {
  run_slices(data);
  return NULL;
}

void own_threads(Work *work) {
  pthread_t threads[256];
  int started = 0;
  while (started < 255 && started + 1 < work->task->slices &&
         !pthread_create(&threads[started], NULL, run_thread, work))
    started++;
  run_slices(work);
  while (started) pthread_join(threads[--started], NULL);
}

struct Packing {
  void (*slice)(const Filter *, index_t number, index_t slices);
  const Filter *filter;
  index_t slices, next;
};

void pack_slices(void *data) {
  Packing *work = static_cast<Packing *>(data);
  index_t number;
  while ((number = __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED)) < work->slices)
    work->slice(work->filter, number, work->slices);
}

void share(Packing work, Team team) {
  if (team && work.slices > 1)
    team(pack_slices, &work, static_cast<unsigned>(work.slices), 0);
  else
    pack_slices(&work);
}

}  // namespace

extern "C" void pack(int isa, const Filter *filter, index_t slices, Team team) {
  share(Packing{kernel(isa)->pack, filter, slices, 0}, team);
}

extern "C" void unpack(int isa, const Filter *filter, index_t slices, Team team) {
  share(Packing{kernel(isa)->unpack, filter, slices, 0}, team);
}

// Zero, or one if there is not enough memory.
extern "C" int run(int isa, const Task *task, Team team) {
  Work work = {kernel(isa), task, 0, 0};
  if (task->slices <= 1)
    run_slices(&work);
  else if (team)
    team(run_slices, &work, static_cast<unsigned>(task->slices), 0);
  else
    own_threads(&work);
  if (!work.failed) work.kernel->finish(task);
  return static_cast<int>(work.failed);
}
