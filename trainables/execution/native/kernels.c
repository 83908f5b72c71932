/* A pruned MLP that costs what its kept weights cost: forward and backward, on one thread.

   A batch is cut into tiles of 64. Inside, a unit is a row of 64 floats, its activation for each element of the tile;
   row 0 of every layer's input is the constant 1, so that a bias is the kept weight of input 0:

       values   | b w w w | b w | b w w | ...        one group per live unit, its bias first
       column   | 0 3 7 9 | 0 4 | 0 1 9 | ...        which row of the tile each value multiplies (times 64)
       start    ^         ^     ^

       tile     row 0   1 1 1 1 1 1 ... 1            forward    y[r] = sum over the group of value x tile[column]
                row 1   x x x x x x ... x            gradient   g[p] = <dy[r], tile[column[p]]>
                 ...    (64 of the batch)            backward   dx[c] = sum over the transposed group of value x dy[row]

   Each sum runs in registers and is written once. A tile goes through all layers before the next tile starts, so it stays
   in cache. A member's numbers do not depend on the other members: same groups, same tiles, same order of operations.

   A normalized layer's units lie normalized in the tile; below them stand what backward needs, a number per element:

       values   | b w w | b w w w | ... | gain gain ... | shift shift ... | the next layer's groups
       tile     1 1 1 ... | z = (x - mean) x inverse | inverse = 1 / deviation | zero = z of a unit that is off

   Gain and shift enter the next layer's weights and biases, of which there are fewer than activations, once in a call. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX2__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
enum { TILE = 64, PASS = 8 }; /* PASS: registers that hold sums */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t bits __attribute__((vector_size(4 * LANES)));
typedef float vec8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t bits8 __attribute__((vector_size(32)));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

typedef struct { /* one layer of one head of one member, live units only */
    int32_t inputs, outputs;
    const int32_t *start;  /* [outputs + 1] into the member's values */
    const int32_t *visit;  /* [inputs] the order in which backward visits the inputs */
    const int32_t *tstart; /* [inputs + 1] into the member's trow and tvalue */
} Layer;

typedef struct {
    int32_t members, heads, depth, features, outputs, widest, values, tanh;
    float norm;            /* added to the variance in layer normalization; 0: there is none */
    int64_t tile;          /* floats of a tile's activations */
    const int32_t *column; /* [members, values] */
    const int32_t *trow;   /* [members, values] the row of dy each transposed value multiplies (times 64) ... */
    const int32_t *tvalue; /* ... and where that value stands in the member's values */
    const int32_t *offset; /* [heads, depth] where a layer's output begins in a tile */
    const Layer *layers;   /* [members, heads, depth] */
} Network;

typedef struct { /* one of the tensors [members, batch, size] that make up the input together */
    float *data;     /* NULL: its gradient is not wanted */
    int64_t member, row; /* floats from a member, a row to the next */
    int64_t size;
} Part;

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

/* Lane j of the result: the sum of s[j]. */
INLINE vec8 fold(const vec8 s[8]) {
#define EVEN(a, b) __builtin_shuffle(a, b, (bits8){0, 2, 8, 10, 4, 6, 12, 14})
#define ODD(a, b) __builtin_shuffle(a, b, (bits8){1, 3, 9, 11, 5, 7, 13, 15})
    vec8 t[4], u[2];
    for (int j = 0; j < 4; j++) t[j] = EVEN(s[2 * j], s[2 * j + 1]) + ODD(s[2 * j], s[2 * j + 1]);
    for (int j = 0; j < 2; j++) u[j] = EVEN(t[2 * j], t[2 * j + 1]) + ODD(t[2 * j], t[2 * j + 1]);
    return __builtin_shuffle(u[0], u[1], (bits8){0, 1, 2, 3, 8, 9, 10, 11}) + __builtin_shuffle(u[0], u[1], (bits8){4, 5, 6, 7, 12, 13, 14, 15});
}

/* The gradient at n neighbouring values of a group, over `lanes` of the batch (and zeros after them, up to 8 numbers). */
INLINE void dots_of(const int n, int lanes, const float *dy, const float *x, const int32_t *column, float *gradient) {
    vec8 sum[8] = {0};
    for (int i = 0; i < lanes; i += 8) {
        const vec8 d = *(const vec8 *)(dy + i);
        UNROLL for (int j = 0; j < n; j++) sum[j] += d * *(const vec8 *)(x + column[j] + i);
    }
    *(vec8 *)gradient = fold(sum);
}

/* Adds to `gradient` by way of `fresh`: adding in place would wait for the eight numbers just written, which overlap the next. */
static void dots(int lanes, const Layer *layer, const int32_t *column, const float *dy, const float *x, float *fresh, float *gradient) {
    for (int r = 0; r < layer->outputs; r++, dy += TILE)
        for (int p = layer->start[r], end = layer->start[r + 1]; p < end; p += 8)
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

/* Gradients by z -> by the sums before ReLU, in their place: inverse x (dz - mean of dz - z x mean of dz z) where the unit is on. */
INLINE void denormalize_of(const int n, int units, const float *z, float *dz) {
    const vec *inverse = (const vec *)(z + units * TILE), *zero = (const vec *)(z + (units + 1) * TILE);
    vec mean[PASS], along[PASS];
    mean_of(n, units, dz, NULL, NULL, mean);
    mean_of(n, units, dz, z, NULL, along);
    for (int r = 0; r < units; r++, z += TILE, dz += TILE)
        UNROLL for (int i = 0; i < n; i++) {
            const vec unit = ((const vec *)z)[i];
            ((vec *)dz)[i] = gate(inverse[i] * (((vec *)dz)[i] - mean[i] - unit * along[i]), unit - zero[i]);
        }
}

static void denormalize(int n, int units, const float *z, float *dz) {
    for (; n > 0; n -= PASS, z += PASS * LANES, dz += PASS * LANES) ONE_OF_EIGHT(n, denormalize_of, units, z, dz)
}

/* Lambert's continued fraction of tanh at half the argument, then tanh 2t = 2 tanh t / (1 + tanh^2 t): within 2e-7. */
INLINE vec tanh_of(vec x) {
    const vec limit = 9.1f + (vec){0};
    x = (vec)(((bits)x & ~(bits)(x > limit)) | ((bits)limit & (bits)(x > limit)));
    x = (vec)(((bits)x & ~(bits)(x < -limit)) | ((bits)-limit & (bits)(x < -limit)));
    const vec y = 0.5f * x, s = y * y;
    const vec a = y * (34459425.f + s * (4729725.f + s * (135135.f + s * (990.f + s))));
    const vec b = 34459425.f + s * (16216200.f + s * (945945.f + s * (13860.f + s * 45.f)));
    return 2.f * a * b / (b * b + a * a);
}

/* ---- the network ---- */

static int whole(int count) { return (count + 7) / 8 * 8; } /* lanes in use; those past the batch hold zeros */

/* `count` rows of a batch -> the columns of a tile, zeros in the lanes past them; and back. */
static void tile_from(const float *from, int64_t row, int size, int count, float *tile) {
    for (int b = 0; b < count; b++)
        for (int c = 0; c < size; c++) tile[c * TILE + b] = from[b * row + c];
    for (int b = count; b < whole(count); b++)
        for (int c = 0; c < size; c++) tile[c * TILE + b] = 0;
}

static void batch_from(const float *tile, int64_t row, int size, int count, float *to) {
    for (int b = 0; b < count; b++)
        for (int c = 0; c < size; c++) to[b * row + c] = tile[c * TILE + b];
}

typedef struct { /* one member's part of a Network */
    const Layer *layers;
    const int32_t *column, *trow, *tvalue;
} Member;

static Member member(const Network *net, int k) {
    const int64_t at = (int64_t)k * net->values;
    return (Member){net->layers + k * net->heads * net->depth, net->column + at, net->trow + at, net->tvalue + at};
}

/* What the products multiply, for the heads [first, last): `values`, or in `room` these with each gain and shift in the next layer. */
static const float *folded(const Network *net, Member m, int first, int last, const float *values, float *room) {
    if (!net->norm) return values;
    memcpy(room, values, sizeof(float) * net->values);
    for (int l = first * net->depth; l < last * net->depth; l++) {
        if (l % net->depth == 0) continue;
        const Layer *layer = m.layers + l, *below = layer - 1;
        const float *gain = values + below->start[below->outputs] - 1, *shift = gain + below->outputs; /* input c is in row c + 1 */
        for (int r = 0; r < layer->outputs; r++) {
            float bias = values[layer->start[r]];
            for (int p = layer->start[r] + 1; p < layer->start[r + 1]; p++) {
                bias += values[p] * shift[m.column[p] / TILE];
                room[p] += values[p] * gain[m.column[p] / TILE];
            }
            room[layer->start[r]] = bias;
        }
    }
    return room;
}

/* The gradient at what `folded` returned -> at the values, in its place. */
static void unfold(const Network *net, Member m, int first, int last, const float *values, float *gradient) {
    for (int l = first * net->depth; l < last * net->depth; l++) {
        if (l % net->depth == 0) continue;
        const Layer *layer = m.layers + l, *below = layer - 1;
        const int gain = below->start[below->outputs] - 1, shift = gain + below->outputs;
        for (int r = 0; r < layer->outputs; r++) {
            const float bias = gradient[layer->start[r]];
            for (int p = layer->start[r] + 1; p < layer->start[r + 1]; p++) {
                const int c = m.column[p] / TILE;
                gradient[gain + c] += gradient[p] * values[p];
                gradient[shift + c] += bias * values[p];
                gradient[p] += gradient[p] * values[gain + c] + bias * values[shift + c];
            }
        }
    }
}

/* The values in the order in which backward visits them. */
static void transpose(const Network *net, Member m, int first, int last, const float *values, float *transposed) {
    const Layer *end = m.layers + last * net->depth - 1;
    for (int p = m.layers[first * net->depth].tstart[0]; p < end->tstart[end->inputs]; p++) transposed[p] = values[m.tvalue[p]];
}

/* `tiles`: activations, kept for backward when `save`, else one tile is used again and again. `head` < 0: all heads.
   `scratch`: (1 + features + 2 x widest layer) x TILE + 2 x values + 8 floats, here and below. */
void winnow_forward(const Network *net, const float *values, int parts, const Part *inputs, int batch, int head, int save, float *tiles, float *out,
                    float *scratch) {
    const int first = head < 0 ? 0 : head, last = head < 0 ? net->heads : head + 1;
    for (int k = 0; k < net->members; k++, values += net->values) {
        const Member m = member(net, k);
        const float *weights = folded(net, m, first, last, values, scratch);
        for (int b = 0; b < batch; b += TILE) {
            const int count = batch - b < TILE ? batch - b : TILE, lanes = whole(count), n = lanes / LANES;
            float *row = tiles;
            for (int i = 0; i < TILE; i++) *row++ = 1;
            for (const Part *part = inputs; part < inputs + parts; row += part++->size * TILE)
                tile_from(part->data + k * part->member + b * part->row, part->row, part->size, count, row);
            for (int h = first; h < last; h++) {
                float *x = tiles;
                for (int l = 0; l < net->depth; l++) {
                    const Layer *layer = m.layers + h * net->depth + l;
                    float *y = tiles + net->offset[h * net->depth + l];
                    for (int i = 0; i < TILE; i++) y[i] = 1;
                    const int hidden = l + 1 < net->depth;
                    rows(n, layer, weights, m.column, x, y + TILE, hidden, NULL);
                    if (hidden && net->norm) normalize(n, layer->outputs, net->norm, y + TILE);
                    x = y;
                }
                if (net->tanh)
                    for (int i = 0; i < net->outputs * TILE / LANES; i++) ((vec *)(x + TILE))[i] = tanh_of(((vec *)(x + TILE))[i]);
                batch_from(x + TILE, net->outputs, net->outputs, count, out + (((int64_t)k * (last - first) + h - first) * batch + b) * net->outputs);
            }
            if (save) tiles += net->tile;
        }
    }
}

/* `gradient` [members, values] or NULL. */
void winnow_backward(const Network *net, const float *values, int parts, const Part *dinputs, int batch, int head, const float *tiles,
                     const float *dout, float *gradient, float *scratch) {
    const int first = head < 0 ? 0 : head, last = head < 0 ? net->heads : head + 1;
    float *dx0 = scratch, *ping = dx0 + net->features * TILE, *pong = ping + net->widest * TILE, *transposed = pong + net->widest * TILE,
          *fresh = transposed + net->values;
    if (gradient) memset(gradient, 0, sizeof(float) * net->members * net->values);
    for (int k = 0; k < net->members; k++, values += net->values) {
        const Member m = member(net, k);
        transpose(net, m, first, last, folded(net, m, first, last, values, fresh), transposed);
        for (int b = 0; b < batch; b += TILE, tiles += net->tile) {
            const int count = batch - b < TILE ? batch - b : TILE, lanes = whole(count), n = lanes / LANES;
            for (int h = first; h < last; h++) {
                float *dy = ping, *dx = pong;
                tile_from(dout + (((int64_t)k * (last - first) + h - first) * batch + b) * net->outputs, net->outputs, net->outputs, count, dy);
                if (net->tanh) {
                    const float *y = tiles + net->offset[(h + 1) * net->depth - 1] + TILE;
                    for (int i = 0; i < net->outputs * TILE; i++) dy[i] *= 1 - y[i] * y[i];
                }
                for (int l = net->depth - 1; l >= 0; l--) {
                    const Layer *layer = m.layers + h * net->depth + l;
                    const float *x = l ? tiles + net->offset[h * net->depth + l - 1] : tiles;
                    if (gradient) dots(lanes, layer, m.column, dy, x, fresh, gradient);
                    if (l) {
                        columns(n, layer, 0, layer->inputs, transposed, m.trow, dy, net->norm ? NULL : x + TILE, dx, 0);
                        if (net->norm) denormalize(n, layer->inputs, x + TILE, dx);
                        float *swap = dy;
                        dy = dx, dx = swap;
                    } else
                        for (int part = 0, from = 0; part < parts; from += dinputs[part++].size)
                            if (dinputs[part].data) columns(n, layer, from, from + dinputs[part].size, transposed, m.trow, dy, NULL, dx0, h > first);
                }
            }
            const float *row = dx0;
            for (const Part *part = dinputs; part < dinputs + parts; row += part++->size * TILE)
                if (part->data) batch_from(row, part->row, part->size, count, part->data + k * part->member + b * part->row);
        }
        if (gradient) {
            if (net->norm) unfold(net, m, first, last, values, gradient);
            gradient += net->values;
        }
    }
}

/* ---- the gradient by the inputs [from, to), for networks of one linear output without normalization ---- */

/* After a forward of all heads: out [members, heads, batch, to - from]; `adjoints`, laid out as `tiles`: dq/dy of every layer. */
void winnow_input_gradient(const Network *net, const float *values, int from, int to, int batch, const float *tiles, float *adjoints, float *out,
                           float *scratch) {
    float *dx0 = scratch, *transposed = dx0 + net->features * TILE;
    for (int k = 0; k < net->members; k++, values += net->values) {
        const Member m = member(net, k);
        transpose(net, m, 0, net->heads, values, transposed);
        for (int b = 0; b < batch; b += TILE, tiles += net->tile, adjoints += net->tile) {
            const int count = batch - b < TILE ? batch - b : TILE, n = whole(count) / LANES;
            for (int h = 0; h < net->heads; h++) {
                const int32_t *offset = net->offset + h * net->depth;
                const Layer *layer = m.layers + (h + 1) * net->depth - 1;
                float *dy = adjoints + offset[net->depth - 1] + TILE;
                for (int i = 0; i < TILE; i++) dy[i] = 1;
                for (int l = net->depth - 1; l > 0; l--, layer--) {
                    float *dx = adjoints + offset[l - 1] + TILE;
                    columns(n, layer, 0, layer->inputs, transposed, m.trow, dy, tiles + offset[l - 1] + TILE, dx, 0);
                    dy = dx;
                }
                columns(n, layer, from, to, transposed, m.trow, dy, NULL, dx0, 0);
                batch_from(dx0 + from * TILE, to - from, to - from, count, out + (((int64_t)k * net->heads + h) * batch + b) * (to - from));
            }
        }
    }
}

/* The gradient [members, values] of <dvalue, q> + <dout, dq/dinputs>. Gates stay, so <dout, dq/dinputs> is how q changes as the inputs
   move along `dout`: forward without biases. Then m = dvalue x activation + that change goes through the very products of forward, with
   dvalue for the constant 1, and a weight's gradient is <dq/dy, m>. */
void winnow_input_gradient_backward(const Network *net, const float *values, int from, int to, int batch, const float *tiles, const float *adjoints,
                                    const float *dvalue, const float *dout, float *gradient, float *scratch) {
    float *m0 = scratch, *ping = m0 + (1 + net->features) * TILE, *pong = ping + net->widest * TILE, *fresh = pong + net->widest * TILE;
    memset(gradient, 0, sizeof(float) * net->members * net->values);
    for (int k = 0; k < net->members; k++, values += net->values, gradient += net->values) {
        const Member m = member(net, k);
        for (int b = 0; b < batch; b += TILE, tiles += net->tile, adjoints += net->tile) {
            const int count = batch - b < TILE ? batch - b : TILE, lanes = whole(count), n = lanes / LANES;
            for (int h = 0; h < net->heads; h++) {
                const int64_t at = ((int64_t)k * net->heads + h) * batch + b;
                memset(m0, 0, sizeof(float) * (1 + net->features) * TILE);
                tile_from(dvalue + at, 1, 1, count, m0);
                tile_from(dout + at * (to - from), to - from, to - from, count, m0 + (1 + from) * TILE);
                for (int c = 1; c <= net->features; c++)
                    for (int i = 0; i < lanes; i++) m0[c * TILE + i] += m0[i] * tiles[c * TILE + i];
                const float *x = m0;
                float *y = ping, *swap = pong;
                for (int l = 0;; l++) {
                    const Layer *layer = m.layers + h * net->depth + l;
                    const int32_t offset = net->offset[h * net->depth + l] + TILE;
                    dots(lanes, layer, m.column, adjoints + offset, x, fresh, gradient);
                    if (l + 1 == net->depth) break;
                    memcpy(y, m0, sizeof(float) * TILE);
                    rows(n, layer, values, m.column, x, y + TILE, 1, tiles + offset);
                    x = y, y = swap, swap = (float *)x;
                }
            }
        }
    }
}
