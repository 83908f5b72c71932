/* What an update does beside its networks: draws, the minibatch, the optimizer, the targets. One pass over memory each. */

#include "functions.h"

/* ---- Philox4x32-10 (Salmon et al. 2011) as in trainables/tensors/streams.py: counter (lane, update, update >> 32, 0), key per member ---- */

enum { LANES = 64 }; /* counters that go together; word w of counter i is draw 4 i + w */

static void philox(uint32_t lane, uint64_t update, const int64_t key[2], uint32_t word[4 * LANES]) {
    uint32_t c0[LANES], c1[LANES], c2[LANES], c3[LANES], k0 = (uint32_t)key[0], k1 = (uint32_t)key[1];
    for (int i = 0; i < LANES; i++) c0[i] = lane + i, c1[i] = (uint32_t)update, c2[i] = (uint32_t)(update >> 32), c3[i] = 0;
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9, k1 += 0xBB67AE85)
        for (int i = 0; i < LANES; i++) {
            const uint32_t a = c0[i], b = c2[i]; /* the two halves of a product apart: so the compiler makes vectors of them */
            c0[i] = (uint32_t)(((uint64_t)b * 0xCD9E8D57) >> 32) ^ c1[i] ^ k0, c1[i] = b * 0xCD9E8D57;
            c2[i] = (uint32_t)(((uint64_t)a * 0xD2511F53) >> 32) ^ c3[i] ^ k1, c3[i] = a * 0xD2511F53;
        }
    for (int i = 0; i < LANES; i++) word[4 * i] = c0[i], word[4 * i + 1] = c1[i], word[4 * i + 2] = c2[i], word[4 * i + 3] = c3[i];
}

/* [updates, members, count]: `below` > 0: integers in [0, below) to `integers`, else numbers in (0, 1) to `uniform`. */
void winnow_draw(int members, const int64_t *keys, int64_t first, int updates, int64_t count, int64_t below, int64_t *integers, float *uniform) {
    uint32_t word[4 * LANES];
    for (int u = 0; u < updates; u++)
        for (int k = 0; k < members; k++)
            for (int64_t done = 0; done < count; done += 4 * LANES) {
                const int length = count - done < 4 * LANES ? (int)(count - done) : 4 * LANES;
                philox((uint32_t)(done / 4), (uint64_t)(first + u), keys + 2 * k, word);
                if (below)
                    for (int i = 0; i < length; i++) *integers++ = (int64_t)((word[i] * (uint64_t)below) >> 32);
                else
                    for (int i = 0; i < length; i++) *uniform++ = ((float)(int32_t)(word[i] >> 9) + 0.5f) * 0x1p-23f;
            }
}

/* Pairs of uniforms -> standard normals (Box-Muller), in place. */
void winnow_normal(int64_t pairs, float *restrict drawn) {
    for (int64_t i = 0; i < pairs; i++) {
        float cosine, sine;
        turn_of(drawn[2 * i + 1], &cosine, &sine);
        const float radius = sqrtf(-2 * log_of(drawn[2 * i]));
        drawn[2 * i] = radius * cosine, drawn[2 * i + 1] = radius * sine;
    }
}

/* ---- the minibatch ---- */

/* out[i] = shift + scale x rows[index[i]], the rows fetched ahead: they lie anywhere in a table larger than the caches. */
void winnow_gather(int64_t count, const int64_t *index, int64_t width, const float *rows, const float *restrict shift, const float *restrict scale,
                   float *restrict out) {
    enum { AHEAD = 16, LINE = 16 };
    for (int64_t i = 0; i < count; i++, out += width) {
        if (i + AHEAD < count)
            for (int64_t j = 0; j < width + LINE - 1; j += LINE) __builtin_prefetch(rows + index[i + AHEAD] * width + (j < width ? j : width - 1));
        const float *row = rows + index[i] * width;
        for (int64_t j = 0; j < width; j++) out[j] = shift[j] + scale[j] * row[j];
    }
}

/* ---- optimizer and target tracking, rows [members, size] ---- */

typedef struct { /* as in build.py */
    int64_t members, size;
    int64_t *updates; /* that were made so far */
    float *value;
    const float *gradient;
    float *first, *second;
    const float *rate; /* [members] */
    const double *factor;
    double beta1, beta2, epsilon;
} Adam;

#ifdef FP_FAST_FMAF
#define FUSED fmaf /* which of two products is added unrounded is not left to the compiler */
#else
#define FUSED(a, b, c) ((a) * (b) + (c))
#endif

/* torch.optim.Adam: value -= rate (first / correction1) / (sqrt(second / correction2) + epsilon), with one division.
   rate = `rate` [members] x `factor`. */
void winnow_adam(const Adam *adam) {
    const int64_t size = adam->size;
    const double update = (double)++*adam->updates;
    float *restrict value = adam->value, *restrict first = adam->first, *restrict second = adam->second;
    const float *restrict gradient = adam->gradient;
    const double root = sqrt(1 - pow(adam->beta2, update));
    const float b1 = (float)(1 - adam->beta1), b2 = (float)adam->beta2, c2 = (float)(1 - adam->beta2), small = (float)(adam->epsilon * root);
    for (int64_t k = 0; k < adam->members; k++, value += size, gradient += size, first += size, second += size) {
        const float step = (float)(adam->rate[k] * (float)*adam->factor * root / (1 - pow(adam->beta1, update)));
        for (int64_t i = 0; i < size; i++) {
            const float g = gradient[i];
            first[i] += b1 * (g - first[i]);
            second[i] = FUSED(b2, second[i], c2 * g * g);
            value[i] -= step * first[i] / (sqrtf(second[i]) + small);
        }
    }
}

/* target += tau (online - target); `tau` [members]. */
void winnow_track(int members, int64_t size, float *restrict target, const float *restrict online, const float *tau) {
    for (int k = 0; k < members; k++, target += size, online += size)
        for (int64_t i = 0; i < size; i++) target[i] += tau[k] * (online[i] - target[i]);
}
