/* What onchip.h asks for, on a CPU: the threads of a phase as a loop, the lanes of a warp as a vector. */

#pragma once

#include <math.h>
#include <stdint.h>

#define INLINE static inline
#define ALIGNED(bytes) __attribute__((aligned(bytes)))
#define EACH_THREAD(i, from, to) for (int i = (from), stop_##i = (to); i < stop_##i; i++)
#define EACH_WARP EACH_THREAD
#define SYNC

typedef float lanes __attribute__((vector_size(128), aligned(4), may_alias)); /* TILE floats */
typedef int32_t lane_bits __attribute__((vector_size(128)));
#define LANES(at) (*(lanes *)(at))
#define ZERO ((lanes){0})

/* NaN stays. */
INLINE lanes rectified(lanes x) { return (lanes)((lane_bits)x & ~(lane_bits)(x < ZERO)); }
INLINE lanes gated(lanes gradient, lanes y) { return (lanes)((lane_bits)gradient & ~(lane_bits)(y <= ZERO)); }

/* Of whole turns. */
INLINE float sine(float turns) { return sinf(6.2831853f * turns); }
INLINE float cosine(float turns) { return cosf(6.2831853f * turns); }
