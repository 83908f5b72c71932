/* A pruned network, forward and backward, tile by tile. Its weights are brought onto the chip once for all tiles of the batch.

   A sum over kept weights costs one load of TILE activations per weight and half a load for the weight itself, two of which lie in 16
   bytes with the places of what they multiply. The gradient of such a pair is a thread's: it goes through the elements of the tile in an
   order that begins elsewhere for each of its neighbours, so that they read different banks of memory. All orders are fixed. */

#pragma once

#include "onchip.h"

typedef struct {
    float value;
    int place; /* in the tile, in floats */
} Factor;

typedef struct {
    Factor one, other;
} ALIGNED(16) Pair;

typedef struct { /* what lies on the chip */
    float *tile;
    Pair *forward, *backward;
    Row *units, *inputs;
} Staged;

INLINE Factor factor(const float *values, const Weight *weight, int backward) {
    const int none = weight->take == NONE;
    const Factor made = {none ? 0 : values[weight->take], none ? 0 : (backward ? weight->to : weight->from) * TILE};
    return made;
}

/* The copy's weights, and for `backward` also those of the way back; to be read after the next SYNC. _onchip_layout.py's `shared` counts
   what it takes. */
INLINE Staged staged(const Network *net, const Copy *copy, const float *values, char *shared, int backward) {
    const int forth = copy->weight[net->depth] / 2, back = backward ? copy->back / 2 : 0;
    const int units = copy->unit[net->depth], inputs = backward ? copy->input[net->depth] : 0;
    Staged on;
    on.tile = (float *)shared;
    on.forward = (Pair *)(on.tile + copy->height * TILE);
    on.backward = on.forward + forth;
    on.units = (Row *)(on.backward + back);
    on.inputs = on.units + units;
    EACH_THREAD(i, 0, forth) {
        on.forward[i].one = factor(values, copy->forward + 2 * i, 0);
        on.forward[i].other = factor(values, copy->forward + 2 * i + 1, 0);
    }
    EACH_THREAD(i, 0, back) {
        on.backward[i].one = factor(values, copy->backward + 2 * i, 1);
        on.backward[i].other = factor(values, copy->backward + 2 * i + 1, 1);
    }
    EACH_THREAD(i, 0, units) on.units[i] = copy->units[i];
    EACH_THREAD(i, 0, inputs) on.inputs[i] = copy->inputs[i];
    EACH_THREAD(i, 0, TILE) on.tile[i] = 1;
    return on;
}

INLINE lanes summed(Row row, const Pair *pairs, const float *tile) {
    lanes one = ZERO, other = ZERO;
    for (int i = row.first; i < row.first + row.pairs; i++) {
        const Pair pair = pairs[i];
        one += pair.one.value * LANES(tile + pair.one.place);
        other += pair.other.value * LANES(tile + pair.other.place);
    }
    return one + other;
}

/* The inputs of elements `start`, ... of the batch; zeros past its end. */
INLINE void inputs_to(const Pass *pass, const float *arena, int start, float *tile) {
    float *row = tile + TILE;
    for (int p = 0; p < pass->parts; p++) {
        const Part part = pass->part[p];
        EACH_THREAD(i, 0, part.size * TILE) {
            const int column = i / TILE, element = start + i % TILE;
            row[i] = element < pass->batch ? arena[part.at + element * part.row + column * part.step] : 0;
        }
        row += part.size * TILE;
    }
    SYNC
}

INLINE void forward_through(const Network *net, const Copy *copy, Staged on) {
    for (int layer = 0; layer < net->depth; layer++) {
        EACH_WARP(i, copy->unit[layer], copy->unit[layer + 1]) {
            const lanes sum = summed(on.units[i], on.forward, on.tile);
            LANES(on.tile + on.units[i].to * TILE) = layer + 1 < net->depth ? rectified(sum) : sum;
        }
        SYNC
    }
}

INLINE float output_of(const Network *net, float sum) { return net->tanh ? tanhf(sum) : sum; }

INLINE void forward(const Machine *machine, int member, const Pass *pass, float *arena, char *shared) {
    const Network *net = machine->networks + pass->network;
    const float *values = net->values + (long long)member * net->width;
    const int only = pass->copy, each = pass->batch * net->outputs;
    for (int c = only == NONE ? 0 : only; c < (only == NONE ? net->count : only + 1); c++) {
        const Copy *copy = net->copies + member * net->count + c;
        const Staged on = staged(net, copy, values, shared, 0);
        const float *last = on.tile + (copy->height - net->outputs) * TILE;
        float *out = arena + pass->out + (only == NONE ? c * each : 0);
        for (int start = 0; start < pass->batch; start += TILE) {
            inputs_to(pass, arena, start, on.tile);
            forward_through(net, copy, on);
            EACH_THREAD(i, 0, net->outputs * TILE) {
                const int element = start + i % TILE;
                if (element < pass->batch) out[element * net->outputs + i / TILE] = output_of(net, last[i]);
            }
            SYNC
        }
    }
}

/* Adds the gradient of the tile to that of the weights [first, last), two of a unit at a time. */
INLINE void weights_gradient(const Copy *copy, int first, int last, const float *tile, float *gradient) {
    EACH_THREAD(i, first / 2, last / 2) {
        const Weight one = copy->forward[2 * i], other = copy->forward[2 * i + 1];
        const float *x = tile + one.from * TILE, *z = tile + other.from * TILE, *dy = tile + one.to * TILE;
        float by_one = 0, by_other = 0;
        for (int j = 0; j < TILE; j++) {
            const int at = (i + j) % TILE;
            by_one += x[at] * dy[at];
            by_other += z[at] * dy[at];
        }
        gradient[one.take] += by_one;
        if (other.take != NONE) gradient[other.take] += by_other;
    }
}

/* Down from the outputs' gradient in the tile; what each layer is given takes the place of what it computed. */
INLINE void backward_through(const Network *net, const Copy *copy, Staged on, float *gradient, int wanted) {
    for (int layer = net->depth - 1; layer >= 0; layer--) {
        if (gradient) weights_gradient(copy, copy->weight[layer], copy->weight[layer + 1], on.tile, gradient);
        SYNC
        if (layer == 0 && !wanted) return;
        EACH_WARP(i, copy->input[layer], copy->input[layer + 1]) {
            float *unit = on.tile + on.inputs[i].to * TILE;
            const lanes sum = summed(on.inputs[i], on.backward, on.tile);
            LANES(unit) = layer ? gated(sum, LANES(unit)) : sum;
        }
        SYNC
    }
}

/* The gradients by the inputs, from the tile to the batch; those of several copies add up. */
INLINE void inputs_from(const Pass *pass, float *arena, int start, const float *tile, int add) {
    const float *row = tile + TILE;
    for (int p = 0; p < pass->parts; p++) {
        const int size = pass->part[p].size, at = pass->input[p];
        EACH_THREAD(i, 0, at == NONE ? 0 : size * TILE) {
            const int element = start + i % TILE, place = at + element * size + i / TILE;
            if (element < pass->batch) arena[place] = add ? arena[place] + row[i] : row[i];
        }
        row += size * TILE;
    }
    SYNC
}

/* From the gradient by the output at `out`. Activations are computed anew: keeping them would take a thousand times the room. */
INLINE void backward(const Machine *machine, int member, const Pass *pass, float *arena, char *shared) {
    const Network *net = machine->networks + pass->network;
    const float *values = net->values + (long long)member * net->width;
    float *gradient = pass->gradient == NONE ? 0 : arena + pass->gradient;
    const int only = pass->copy, first = only == NONE ? 0 : only, each = pass->batch * net->outputs;
    int wanted = 0;
    for (int p = 0; p < pass->parts; p++) wanted |= pass->input[p] != NONE;
    EACH_THREAD(i, 0, gradient ? net->width : 0) gradient[i] = 0;
    for (int c = first; c < (only == NONE ? net->count : only + 1); c++) {
        const Copy *copy = net->copies + member * net->count + c;
        const Staged on = staged(net, copy, values, shared, 1);
        float *last = on.tile + (copy->height - net->outputs) * TILE;
        const float *given = arena + pass->out + (only == NONE ? c * each : 0);
        for (int start = 0; start < pass->batch; start += TILE) {
            inputs_to(pass, arena, start, on.tile);
            forward_through(net, copy, on);
            EACH_THREAD(i, 0, net->outputs * TILE) {
                const int element = start + i % TILE;
                const float y = output_of(net, last[i]), slope = net->tanh ? 1 - y * y : 1;
                last[i] = element < pass->batch ? given[element * net->outputs + i / TILE] * slope : 0;
            }
            SYNC
            backward_through(net, copy, on, gradient, wanted);
            if (wanted) inputs_from(pass, arena, start, on.tile, c > first);
        }
    }
}
