/* onchip.cu's threads as threads of a CPU, each with one lane, for a tool that finds what they read and write at once. */

#include <math.h>
#include <pthread.h>
#include <stdint.h>

enum { THREADS = 64 };
static __thread int thread;
static pthread_barrier_t barrier;

#define INLINE static inline
#define ALIGNED(bytes) __attribute__((aligned(bytes)))
#define EACH_THREAD(i, from, to) for (int i = (from) + thread; i < (to); i += THREADS)
#define EACH_WARP(i, from, to) for (int i = (from) + thread / 32; i < (to); i += THREADS / 32)
#define SYNC pthread_barrier_wait(&barrier);

typedef float lanes;
#define LANES(at) ((at)[thread % 32])
#define ZERO 0.0f

INLINE lanes rectified(lanes x) { return x < 0 ? 0 : x; }
INLINE lanes gated(lanes gradient, lanes y) { return y <= 0 ? 0 : gradient; }
INLINE float sine(float turns) { return sinf(6.2831853f * turns); }
INLINE float cosine(float turns) { return cosf(6.2831853f * turns); }

#include "onchip_update.h"

typedef struct {
    const Machine *machine;
    int member, number, updates;
    int64_t first;
    const int *program;
    const float *numbers;
    char *shared;
} Thread;

static void *run(void *given) {
    const Thread *own = given;
    thread = own->number;
    updates_of(own->machine, own->member, (unsigned long long)own->first, own->updates, own->program, own->numbers, own->shared);
    return 0;
}

void winnow_onchip(const Machine *machine, int members, int64_t first, int updates, const int *program, const float *numbers, void *shared) {
    for (int member = 0; member < members; member++) {
        pthread_t threads[THREADS];
        Thread own[THREADS];
        pthread_barrier_init(&barrier, 0, THREADS);
        for (int t = 0; t < THREADS; t++) {
            own[t] = (Thread){machine, member, t, updates, first, program, numbers, shared};
            pthread_create(threads + t, 0, run, own + t);
        }
        for (int t = 0; t < THREADS; t++) pthread_join(threads[t], 0);
        pthread_barrier_destroy(&barrier);
    }
}
