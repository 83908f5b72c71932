// onchip.h on a GPU: a block of THREADS threads is a member, whose batch elements are the lanes of its warps.

#ifndef THREADS
#define THREADS 512
#endif
#define INLINE static __device__ __forceinline__
#define ALIGNED(bytes) __align__(bytes)
#define EACH_THREAD(i, from, to) for (int i = (from) + threadIdx.x; i < (to); i += THREADS)
#define EACH_WARP(i, from, to) for (int i = (from) + threadIdx.x / 32; i < (to); i += THREADS / 32)
#define SYNC __syncthreads();

typedef float lanes;  // of one element of the tile, each thread its own
#define LANES(at) ((at)[threadIdx.x % 32])
#define ZERO 0.0f

// NaN stays.
INLINE lanes rectified(lanes x) { return x < 0 ? 0 : x; }
INLINE lanes gated(lanes gradient, lanes y) { return y <= 0 ? 0 : gradient; }

// Of whole turns.
INLINE float sine(float turns) { return sinpif(2 * turns); }
INLINE float cosine(float turns) { return cospif(2 * turns); }

#include "onchip_update.h"

extern "C" __global__ void __launch_bounds__(THREADS, 1) winnow_onchip(
    const Machine* machine, const long long* first, int updates, const int* program, const float* numbers
) {
    extern __shared__ __align__(16) char shared[];
    updates_of(machine, blockIdx.x, *first, updates, program, numbers, shared);
}
