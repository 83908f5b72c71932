/* onchip.h on a CPU: blocks one after the other, the threads of a phase as a loop, the lanes of a warp as a vector. */

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

#include "onchip_update.h"

void winnow_onchip(const Machine *machine, int members, int64_t first, int updates, const int *program, const float *numbers, void *shared) {
    for (int member = 0; member < members; member++) updates_of(machine, member, (unsigned long long)first, updates, program, numbers, shared);
}
