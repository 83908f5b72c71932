/* What is done to the units of one tile (kernels.c shows them): products, gradients, normalization, and the way in and out. */

#pragma once

#include "functions.h"

#if defined __AVX512F__
enum { LANES = 16 };
#elif defined __AVX2__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
enum { TILE = 64, PASS = 8 };                      /* PASS: registers that hold sums */
enum { BESIDE = 16 };                              /* sums over the batch side by side, of which one is made: the same on every processor */
enum { SUMMED = LANES < 8 ? 8 : LANES }; /* as many of them as are in registers at once */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t bits __attribute__((vector_size(4 * LANES)));
typedef float vec8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float summed __attribute__((vector_size(4 * SUMMED), aligned(4), may_alias));
typedef int32_t order __attribute__((vector_size(4 * SUMMED)));
#define UNROLL _Pragma("GCC unroll 8")

typedef struct { /* one layer of one copy of one member, live units only */
    int32_t inputs, outputs;
    const int32_t *start;  /* [outputs + 1] into the member's values */
    const int32_t *visit;  /* [inputs] the order in which backward visits the inputs */
    const int32_t *tstart; /* [inputs + 1] into the member's trow and tvalue */
} Layer;

/* ---- kernels: those that end in _of are compiled for each n from 1 to 8 ---- */

#define ONE_OF_EIGHT(n, call, ...)                                                                                                   \
    switch (n) {                                                                                                                     \
        case 1: call(1, __VA_ARGS__); break; case 2: call(2, __VA_ARGS__); break; case 3: call(3, __VA_ARGS__); break;               \
        case 4: call(4, __VA_ARGS__); break; case 5: call(5, __VA_ARGS__); break; case 6: call(6, __VA_ARGS__); break;               \
        case 7: call(7, __VA_ARGS__); break; default: call(8, __VA_ARGS__);                                                          \
    }

/* Zero where the unit is off; a NaN passes, as in torch.relu. */
INLINE vec gate(vec value, vec unit) { return (vec)((bits)value & ~(bits)(unit <= (vec){0})); }

/* `like`: the units whose gates count, and then row 0 of `x` is not taken to be 1; else NULL. */
INLINE void rows_of(const int n, const Layer *layer, const float *value, const int32_t *column, const float *x, float *y, int relu,
                    const float *like) {
    for (int r = 0; r < layer->outputs; r++, y += TILE) {
        int p = layer->start[r];
        vec sum[PASS];
        UNROLL for (int i = 0; i < n; i++) sum[i] = like ? value[p] * ((const vec *)x)[i] : value[p] + (vec){0};
        for (p++; p < layer->start[r + 1]; p++) {
            const vec *unit = (const vec *)(x + column[p]);
            UNROLL for (int i = 0; i < n; i++) sum[i] += value[p] * unit[i];
        }
        UNROLL for (int i = 0; i < n; i++)
            ((vec *)y)[i] = like ? gate(sum[i], ((const vec *)(like + r * TILE))[i]) : relu ? gate(sum[i], sum[i]) : sum[i];
    }
}

static void rows(int n, const Layer *layer, const float *value, const int32_t *column, const float *x, float *y, int relu, const float *like) {
    for (; n > 0; n -= PASS, x += PASS * LANES, y += PASS * LANES, like = like ? like + PASS * LANES : NULL)
        ONE_OF_EIGHT(n, rows_of, layer, value, column, x, y, relu, like)
}

/* Inputs [from, to) in visiting order. `x` gates where the inputs are hidden units, else NULL; `add` adds to what is there. */
INLINE void columns_of(const int n, const Layer *layer, int from, int to, const float *value, const int32_t *trow, const float *dy, const float *x,
                       float *dx, int add) {
    for (int c = from; c < to; c++) {
        const int at = layer->visit[c] * TILE;
        vec sum[PASS];
        UNROLL for (int i = 0; i < n; i++) sum[i] = add ? ((vec *)(dx + at))[i] : (vec){0};
        for (int p = layer->tstart[c]; p < layer->tstart[c + 1]; p++) {
            const vec *unit = (const vec *)(dy + trow[p]);
            UNROLL for (int i = 0; i < n; i++) sum[i] += value[p] * unit[i];
        }
        UNROLL for (int i = 0; i < n; i++) ((vec *)(dx + at))[i] = x ? gate(sum[i], ((const vec *)(x + at))[i]) : sum[i];
    }
}

static void columns(int n, const Layer *layer, int from, int to, const float *value, const int32_t *trow, const float *dy, const float *x, float *dx,
                    int add) {
    for (; n > 0; n -= PASS, dy += PASS * LANES, dx += PASS * LANES, x = x ? x + PASS * LANES : NULL)
        ONE_OF_EIGHT(n, columns_of, layer, from, to, value, trow, dy, x, dx, add)
}

/* Lane j of the result: the sum of s[j]. Each step adds two halves of two registers into one, until one is left. Where a register holds half
   of the sums that lie side by side, adding both results is the last of these steps. */
INLINE vec8 fold(const summed s[8]) {
#ifdef __AVX512F__
#define FIRST(a, b) __builtin_shuffle(a, b, (order){0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30})
#define SECOND(a, b) __builtin_shuffle(a, b, (order){1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31})
#define LOW(a, b) __builtin_shuffle(a, b, (order){0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27})
#define HIGH(a, b) __builtin_shuffle(a, b, (order){4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31})
#else
#define FIRST(a, b) __builtin_shuffle(a, b, (order){0, 2, 8, 10, 4, 6, 12, 14})
#define SECOND(a, b) __builtin_shuffle(a, b, (order){1, 3, 9, 11, 5, 7, 13, 15})
#define LOW(a, b) __builtin_shuffle(a, b, (order){0, 1, 2, 3, 8, 9, 10, 11})
#define HIGH(a, b) __builtin_shuffle(a, b, (order){4, 5, 6, 7, 12, 13, 14, 15})
#endif
    summed t[4], u[2];
    for (int j = 0; j < 4; j++) t[j] = FIRST(s[2 * j], s[2 * j + 1]) + SECOND(s[2 * j], s[2 * j + 1]);
    for (int j = 0; j < 2; j++) u[j] = FIRST(t[2 * j], t[2 * j + 1]) + SECOND(t[2 * j], t[2 * j + 1]);
    const summed v = LOW(u[0], u[1]) + HIGH(u[0], u[1]);
#ifdef __AVX512F__
    const summed w = __builtin_shuffle(v, v, (order){0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15}); /* gcc 11 cannot take a part */
    return ((const vec8 *)&w)[0] + ((const vec8 *)&w)[1];
#else
    return v;
#endif
}

/* The gradient at n neighbouring values of a group, over `lanes` of the batch (and zeros after them, up to 8 numbers). */
INLINE void dots_of(const int n, const int lanes, const float *dy, const float *x, const int32_t *column, float *gradient) {
    vec8 total;
    for (int first = 0; first < BESIDE; first += SUMMED) {
        summed sum[8] = {0};
        UNROLL for (int i = first; i < lanes; i += BESIDE) {
            const summed d = *(const summed *)(dy + i);
            UNROLL for (int j = 0; j < n; j++) sum[j] += d * *(const summed *)(x + column[j] + i);
        }
        if (first) total += fold(sum);
        else total = fold(sum);
    }
    *(vec8 *)gradient = total;
}

/* Adds to `gradient` by way of `fresh`: adding in place would wait for the eight numbers just written, which overlap the next. */
static void dots(int lanes, const Layer *layer, const int32_t *column, const float *dy, const float *x, float *fresh, float *gradient) {
    for (int r = 0; r < layer->outputs; r++, dy += TILE)
        for (int p = layer->start[r], end = layer->start[r + 1]; p < end; p += 8)
            if (lanes == TILE) /* unrolled */
                ONE_OF_EIGHT(end - p, dots_of, TILE, dy, x, column + p, fresh + p)
            else
                ONE_OF_EIGHT(end - p, dots_of, lanes, dy, x, column + p, fresh + p)
    for (int p = layer->start[0]; p < layer->start[layer->outputs]; p++) gradient[p] += fresh[p];
}

/* Over the units, the mean of a, or of (a - about) x (b - about); summed in parts, so that rounding does not grow with their number. */
INLINE void mean_of(const int n, int units, const float *a, const float *b, const vec *about, vec *mean) {
    vec sum[PASS] = {0};
    for (int r = 0; r < units;) {
        vec part[PASS] = {0};
        for (const int stop = r + 16 < units ? r + 16 : units; r < stop; r++)
            UNROLL for (int i = 0; i < n; i++) {
                vec x = ((const vec *)(a + r * TILE))[i];
                if (about)
                    x = (x - about[i]) * (((const vec *)(b + r * TILE))[i] - about[i]);
                else if (b)
                    x *= ((const vec *)(b + r * TILE))[i];
                part[i] += x;
            }
        UNROLL for (int i = 0; i < n; i++) sum[i] += part[i];
    }
    UNROLL for (int i = 0; i < n; i++) mean[i] = sum[i] / ((float)units + (vec){0});
}

/* The units x of a layer -> z in their place, and the two rows below them. */
INLINE void normalize_of(const int n, int units, float epsilon, float *x) {
    vec mean[PASS], *inverse = (vec *)(x + units * TILE), *zero = (vec *)(x + (units + 1) * TILE);
    mean_of(n, units, x, NULL, NULL, mean);
    mean_of(n, units, x, x, mean, inverse);
    for (int i = 0; i < n * LANES; i++) ((float *)inverse)[i] = 1 / sqrtf(((float *)inverse)[i] + epsilon);
    UNROLL for (int i = 0; i < n; i++) zero[i] = ((vec){0} - mean[i]) * inverse[i];
    for (int r = 0; r < units; r++, x += TILE)
        UNROLL for (int i = 0; i < n; i++) ((vec *)x)[i] = (((vec *)x)[i] - mean[i]) * inverse[i];
}

static void normalize(int n, int units, float epsilon, float *x) {
    for (; n > 0; n -= PASS, x += PASS * LANES) ONE_OF_EIGHT(n, normalize_of, units, epsilon, x)
}

/* Gradients by z -> by what was normalized, in their place: inverse x (dz - mean of dz - z x mean of dz z), where the unit is on if it
   is `gated` by a ReLU. */
INLINE void denormalize_of(const int n, int units, const float *z, float *dz, int gated) {
    const vec *inverse = (const vec *)(z + units * TILE), *zero = (const vec *)(z + (units + 1) * TILE);
    vec mean[PASS], along[PASS];
    mean_of(n, units, dz, NULL, NULL, mean);
    mean_of(n, units, dz, z, NULL, along);
    for (int r = 0; r < units; r++, z += TILE, dz += TILE)
        UNROLL for (int i = 0; i < n; i++) {
            const vec unit = ((const vec *)z)[i];
            const vec through = inverse[i] * (((vec *)dz)[i] - mean[i] - unit * along[i]);
            ((vec *)dz)[i] = gated ? gate(through, unit - zero[i]) : through;
        }
}

static void denormalize(int n, int units, const float *z, float *dz, int gated) {
    for (; n > 0; n -= PASS, z += PASS * LANES, dz += PASS * LANES) ONE_OF_EIGHT(n, denormalize_of, units, z, dz, gated)
}

/* z -> x = max(z (1 + gain) + shift, 0); `gain`: those of the units, then their shifts. */
static void rectify(int n, int units, const float *gain, const float *z, float *x) {
    for (int r = 0; r < units; r++, z += TILE, x += TILE)
        for (int i = 0; i < n; i++) {
            const vec unit = (1 + gain[r]) * ((const vec *)z)[i] + gain[units + r];
            ((vec *)x)[i] = gate(unit, unit);
        }
}

/* Gradients by z (1 + gain) + shift -> by z, in their place. Those by gains and shifts are added to `gradient`, unless it is NULL. */
static void through_gain(int lanes, int units, const float *gain, const float *z, float *dz, float *gradient) {
    for (int r = 0; r < units; r++, z += TILE, dz += TILE) {
        vec8 total;
        for (int first = 0; first < BESIDE; first += SUMMED) {
            summed sum[8] = {0};
            for (int i = first; i < lanes; i += BESIDE) {
                summed *d = (summed *)(dz + i);
                sum[0] += *d * *(const summed *)(z + i), sum[1] += *d;
                *d *= 1 + gain[r];
            }
            if (!gradient) continue;
            if (first) total += fold(sum);
            else total = fold(sum);
        }
        if (gradient) gradient[r] += total[0], gradient[units + r] += total[1];
    }
}

/* stream = x += stream, for the units of a layer; the `first` x is the stream. */
static void add_to(int n, int units, float *stream, float *x, int first) {
    for (int r = 0; r < units; r++, stream += TILE, x += TILE)
        for (int i = 0; i < n; i++) {
            if (!first) ((vec *)x)[i] += ((vec *)stream)[i];
            ((vec *)stream)[i] = ((vec *)x)[i];
        }
}

static int whole(int count) { return (count + BESIDE - 1) / BESIDE * BESIDE; } /* lanes in use; those past the batch hold zeros */

typedef float four __attribute__((vector_size(16)));
typedef int32_t four_places __attribute__((vector_size(16)));

INLINE four four_from(const float *from) {
    four x;
    memcpy(&x, from, sizeof x);
    return x;
}

/* Four numbers each at `from`, `from` + `row`, ... -> the four columns of that, `column` apart. */
INLINE void transpose_four(const float *from, int64_t row, float *to, int64_t column) {
    const four a = four_from(from), b = four_from(from + row), c = four_from(from + 2 * row), d = four_from(from + 3 * row);
    const four_places low = {0, 4, 1, 5}, high = {2, 6, 3, 7}, left = {0, 1, 4, 5}, right = {2, 3, 6, 7};
    const four ab = __builtin_shuffle(a, b, low), cd = __builtin_shuffle(c, d, low);
    const four ab_high = __builtin_shuffle(a, b, high), cd_high = __builtin_shuffle(c, d, high);
    const four columns[4] = {__builtin_shuffle(ab, cd, left), __builtin_shuffle(ab, cd, right), __builtin_shuffle(ab_high, cd_high, left),
                             __builtin_shuffle(ab_high, cd_high, right)};
    for (int i = 0; i < 4; i++) memcpy(to + i * column, columns + i, sizeof(four));
}

/* [rows, columns] with steps `row` and 1 -> the same with steps 1 and `column`. The last block of four may overlap the one before it. */
static void transposed_to(const float *from, int64_t row, int rows, int columns, float *to, int64_t column) {
    int done = 0;
    if (columns >= 4)
        for (; done + 4 <= rows; done += 4)
            for (int c = 0; c < columns; c += 4) {
                const int at = c + 4 <= columns ? c : columns - 4;
                transpose_four(from + done * row + at, row, to + at * column + done, column);
            }
    for (; done < rows; done++)
        for (int c = 0; c < columns; c++) to[c * column + done] = from[done * row + c];
}

/* `count` rows of a batch -> the columns of a tile, zeros in the lanes past them; and back. */
static void tile_from(const float *from, int64_t row, int size, int count, float *tile) {
    transposed_to(from, row, count, size, tile, TILE);
    for (int c = 0; c < size && count < whole(count); c++) memset(tile + c * TILE + count, 0, sizeof(float) * (size_t)(whole(count) - count));
}

static void batch_from(const float *tile, int64_t row, int size, int count, float *to) {
    transposed_to(tile, TILE, size, count, to, row);
}
