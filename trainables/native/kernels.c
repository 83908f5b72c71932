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

   Gain and shift enter the next layer's weights and biases, of which there are fewer than activations, once in a call.

   Where the normalization comes first and the ReLU behind it, that is not possible, and the tile holds both:

       tile     1 1 1 ... | x = max(z (1 + gain) + shift, 0) | z | inverse | zero

   In a residual network (SimBa), the sums of every other layer are added to a stream, [units] rows in `scratch`; the tile takes up what
   the stream is then, normalized. Backward goes the same way: the stream's gradient grows by what each block hands down. */

#include "tile.h"

typedef struct {
    int32_t members, copies, depth, features, outputs, widest, values, tanh;
    float norm;            /* added to the variance in layer normalization; 0: there is none */
    int32_t folding;       /* whether gains and shifts enter the layer that follows */
    int32_t residual;      /* whether layers 0, 2, 4, ... add to a stream, which is normalized, and others but the last have a ReLU */
    int32_t before;        /* whether normalization comes before the ReLU */
    int64_t tile;          /* floats of a tile's activations */
    const int32_t *column; /* [members, values] */
    const int32_t *trow;   /* [members, values] the row of dy each transposed value multiplies (times 64) ... */
    const int32_t *tvalue; /* ... and where that value stands in the member's values */
    const int32_t *offset; /* [copies, depth] where a layer's output begins in a tile */
    const Layer *layers;   /* [members, copies, depth] */
} Network;

typedef struct { /* one of the tensors [members, batch, size] that make up the input together */
    float *data;     /* NULL: its gradient is not wanted */
    int64_t member, row; /* floats from a member, a row to the next */
    int64_t size;
} Part;

typedef struct { /* one member's part of a Network */
    const Layer *layers;
    const int32_t *column, *trow, *tvalue;
} Member;

/* Whether the units that layer l makes are normalized, and whether they pass a ReLU. */
static int normal(const Network *net, int l) { return net->norm && l + 1 < net->depth && !(net->residual && l % 2); }
static int rectified(const Network *net, int l) { return l + 1 < net->depth && !(net->residual && l % 2 == 0); }

/* Where the gains of a normalized layer stand among the values: after its groups, and its shifts after them. */
static int gains(const Layer *layer) { return layer->start[layer->outputs]; }

static Member member(const Network *net, int k) {
    const int64_t at = (int64_t)k * net->values;
    return (Member){net->layers + k * net->copies * net->depth, net->column + at, net->trow + at, net->tvalue + at};
}

/* What the products multiply, for the copies [first, last): `values`, or in `room` these with each gain and shift in the next layer. */
static const float *folded(const Network *net, Member m, int first, int last, const float *values, float *room) {
    if (!net->folding) return values;
    memcpy(room, values, sizeof(float) * net->values);
    for (int l = first * net->depth; l < last * net->depth; l++) {
        if (l % net->depth == 0 || !normal(net, l % net->depth - 1)) continue; /* inputs have no gain */
        const Layer *layer = m.layers + l, *below = layer - 1;
        const float *gain = values + gains(below) - 1, *shift = gain + below->outputs; /* input c is in row c + 1 */
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
        if (l % net->depth == 0 || !normal(net, l % net->depth - 1)) continue; /* inputs have no gain */
        const Layer *layer = m.layers + l, *below = layer - 1;
        const int gain = gains(below) - 1, shift = gain + below->outputs;
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

/* `tiles`: activations, kept for backward when `save`, else one tile is used again and again. `copy` < 0: all copies.
   `scratch`: (1 + features + 3 x widest layer) x TILE + 2 x values + 8 floats, here and below. */
void winnow_forward(const Network *net, const float *values, int parts, const Part *inputs, int batch, int copy, int save, float *tiles, float *out,
                    float *scratch) {
    const int first = copy < 0 ? 0 : copy, last = copy < 0 ? net->copies : copy + 1;
    float *stream = scratch + (net->folding ? net->values : 0);
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
                    const int before = normal(net, l) && net->before;
                    float *z = y + (before ? 1 + layer->outputs : 1) * TILE;
                    rows(n, layer, weights, m.column, x, z, rectified(net, l) && !before, NULL);
                    if (normal(net, l)) {
                        if (net->residual) add_to(n, layer->outputs, stream, z, l == 0);
                        normalize(n, layer->outputs, net->norm, z);
                        if (before) rectify(n, layer->outputs, values + gains(layer), z, y + TILE);
                    }
                    x = y;
                }
                if (net->tanh)
                    for (int i = TILE; i < (1 + net->outputs) * TILE; i++) x[i] = tanh_of(x[i]);
                batch_from(x + TILE, net->outputs, net->outputs, count, out + (((int64_t)k * (last - first) + h - first) * batch + b) * net->outputs);
            }
            if (save) tiles += net->tile;
        }
    }
}

/* `gradient` [members, values] or NULL. */
void winnow_backward(const Network *net, const float *values, int parts, const Part *dinputs, int batch, int copy, const float *tiles,
                     const float *dout, float *gradient, float *scratch) {
    const int first = copy < 0 ? 0 : copy, last = copy < 0 ? net->copies : copy + 1;
    float *dx0 = scratch, *ping = dx0 + net->features * TILE, *pong = ping + net->widest * TILE, *transposed = pong + net->widest * TILE,
          *fresh = transposed + net->values, *stream = fresh + net->values + 8;
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
                        const int z = normal(net, l - 1), before = z && net->before;
                        columns(n, layer, 0, layer->inputs, transposed, m.trow, dy, z && !before ? NULL : x + TILE, dx, 0);
                        const float *normalized = x + (before ? 1 + layer->inputs : 1) * TILE;
                        if (before)
                            through_gain(lanes, layer->inputs, values + gains(layer - 1), normalized, dx,
                                         gradient ? gradient + gains(layer - 1) : NULL);
                        if (z) denormalize(n, layer->inputs, normalized, dx, rectified(net, l - 1) && !before);
                        if (z && net->residual) add_to(n, layer->inputs, stream, dx, l + 1 == net->depth);
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
            if (net->folding) unfold(net, m, first, last, values, gradient);
            gradient += net->values;
        }
    }
}

/* ---- the gradient by the inputs [from, to), for networks of one linear output without normalization ---- */

/* After a forward of all copies: out [members, copies, batch, to - from]; `adjoints`, laid out as `tiles`: dq/dy of every layer. */
void winnow_input_gradient(const Network *net, const float *values, int from, int to, int batch, const float *tiles, float *adjoints, float *out,
                           float *scratch) {
    float *dx0 = scratch, *transposed = dx0 + net->features * TILE;
    for (int k = 0; k < net->members; k++, values += net->values) {
        const Member m = member(net, k);
        transpose(net, m, 0, net->copies, values, transposed);
        for (int b = 0; b < batch; b += TILE, tiles += net->tile, adjoints += net->tile) {
            const int count = batch - b < TILE ? batch - b : TILE, n = whole(count) / LANES;
            for (int h = 0; h < net->copies; h++) {
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
                batch_from(dx0 + from * TILE, to - from, to - from, count, out + (((int64_t)k * net->copies + h) * batch + b) * (to - from));
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
            for (int h = 0; h < net->copies; h++) {
                const int64_t at = ((int64_t)k * net->copies + h) * batch + b;
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
