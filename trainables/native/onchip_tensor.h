/* What an update does beside its networks: operations on single elements, sums, draws, the minibatch, the optimizer, the targets. */

#pragma once

#include "onchip.h"

enum {
    COPY, NEG, ABS, SQUARE, RECIPROCAL, RELU, ADD, SUB, MUL, DIV, MINIMUM, MAXIMUM, CLAMP, GATE, WHERE, GE, GT, LE, LT, EQ, AND,
    EXP, LOG, TANH, SQRT, SIGMOID, SOFTPLUS, TANH_SLOPE, SIGMOID_SLOPE, SOFTPLUS_SLOPE
};

/* As torch's: a NaN passes. */
INLINE float smaller(float x, float y) { return x < y || x != x ? x : y; }
INLINE float larger(float x, float y) { return x > y || x != x ? x : y; }

INLINE float computed(int operation, float x, float y, float z) {
    switch (operation) {
        case NEG: return -x;
        case ABS: return fabsf(x);
        case SQUARE: return x * x;
        case RECIPROCAL: return 1 / x;
        case RELU: return x < 0 ? 0 : x;
        case ADD: return x + y;
        case SUB: return x - y;
        case MUL: return x * y;
        case DIV: return x / y;
        case MINIMUM: return smaller(x, y);
        case MAXIMUM: return larger(x, y);
        case CLAMP: return smaller(larger(x, y), z);
        case GATE: return y <= z ? 0 : x;
        case WHERE: return x != 0 ? y : z;
        case GE: return x >= y;
        case GT: return x > y;
        case LE: return x <= y;
        case LT: return x < y;
        case EQ: return x == y;
        case AND: return x != 0 && y != 0;
        case EXP: return expf(x);
        case LOG: return logf(x);
        case TANH: return tanhf(x);
        case SQRT: return sqrtf(x);
        case SIGMOID: return 1 / (1 + expf(-x));
        case SOFTPLUS: return x > 20 ? x : log1pf(expf(x));
        case TANH_SLOPE: return x * (1 - y * y);
        case SIGMOID_SLOPE: return x * (y * (1 - y));
        case SOFTPLUS_SLOPE: return y > 20 ? x : x / (1 + expf(-y));
        default: return x;
    }
}

INLINE int place(int at, const int step[3], int i, int j, int k) { return at + i * step[0] + j * step[1] + k * step[2]; }

INLINE void elementwise(const Elementwise *e, float *arena) {
    const int rows = e->size[1], columns = e->size[2];
    EACH_THREAD(n, 0, e->size[0] * rows * columns) {
        const int i = n / (rows * columns), j = n / columns % rows, k = n % columns;
        float x[4];
        for (int o = 1; o < 4; o++) x[o] = e->at[o] == NONE ? e->number[o] : arena[place(e->at[o], e->step[o], i, j, k)];
        arena[place(e->at[0], e->step[0], i, j, k)] = computed(e->operation, x[1], x[2], x[3]);
    }
}

/* ---- sums: one of a long row is made of TILE sums, so that their order depends on its length alone ---- */

enum { LONG = 64 };

INLINE float part_of(const Sum *sum, const float *from, int first, int by) {
    const int rows = sum->inner[1], columns = sum->inner[2];
    float total = 0;
    for (int n = first; n < sum->inner[0] * rows * columns; n += by)
        total += from[place(0, sum->inner_step, n / (rows * columns), n / columns % rows, n % columns)];
    return total;
}

INLINE void summed_up(const Sum *sum, float *arena, char *shared) {
    const int rows = sum->size[1], columns = sum->size[2], outputs = sum->size[0] * rows * columns;
    const int inner = sum->inner[0] * sum->inner[1] * sum->inner[2], parts = inner < LONG ? 1 : TILE;
    float *part = (float *)shared;
    for (int first = 0; first < outputs; first += TILE) { /* so many at a time, as there is room for */
        const int count = outputs - first < TILE ? outputs - first : TILE;
        EACH_THREAD(n, 0, count * parts) {
            const int o = first + n / parts, i = o / (rows * columns), j = o / columns % rows, k = o % columns;
            part[n] = part_of(sum, arena + place(sum->from, sum->from_step, i, j, k), n % parts, parts);
        }
        SYNC
        EACH_THREAD(n, 0, count) {
            const int o = first + n, i = o / (rows * columns), j = o / columns % rows, k = o % columns;
            float total = 0;
            for (int p = 0; p < parts; p++) total += part[n * parts + p];
            arena[place(sum->to, sum->to_step, i, j, k)] = total / sum->divisor;
        }
        SYNC
    }
}

/* ---- Philox4x32-10 as in update.c and trainables/tensors/streams.py ---- */

typedef struct {
    unsigned word[4];
} Words;

INLINE Words philox(unsigned lane, unsigned long long update, unsigned k0, unsigned k1) {
    unsigned c0 = lane, c1 = (unsigned)update, c2 = (unsigned)(update >> 32), c3 = 0;
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        const unsigned long long a = c0 * 0xD2511F53ull, b = c2 * 0xCD9E8D57ull;
        c0 = (unsigned)(b >> 32) ^ c1 ^ k0, c1 = (unsigned)b;
        c2 = (unsigned)(a >> 32) ^ c3 ^ k1, c3 = (unsigned)a;
    }
    const Words drawn = {{c0, c1, c2, c3}};
    return drawn;
}

enum { INTEGERS, UNIFORM, NORMAL };

INLINE float uniform(unsigned word) { return ((float)(word >> 9) + 0.5f) * 0x1p-23f; }

INLINE void draw(const Draw *draw, unsigned long long update, float *arena) {
    const unsigned *key = (const unsigned *)arena + draw->key;
    EACH_THREAD(i, 0, (draw->count + 3) / 4) {
        const Words drawn = philox((unsigned)i, update, key[0], key[1]);
        for (int w = 0; w < 4 && 4 * i + w < draw->count; w++) {
            float *to = arena + draw->to + 4 * i + w;
            if (draw->kind == INTEGERS) *(int *)to = (int)((drawn.word[w] * (unsigned long long)(unsigned)draw->below) >> 32);
            else if (draw->kind == UNIFORM) *to = uniform(drawn.word[w]);
            else {
                const float radius = sqrtf(-2 * logf(uniform(drawn.word[w & ~1]))), turn = uniform(drawn.word[w | 1]);
                *to = radius * (w & 1 ? sine(turn) : cosine(turn)); /* Box-Muller */
            }
        }
    }
}

/* ---- the minibatch, the optimizer, the targets ---- */

INLINE void gather(const Machine *machine, const Gather *gather, float *arena) {
    const int columns = machine->columns;
    const int *index = (const int *)arena + gather->index;
    EACH_THREAD(i, 0, gather->count * columns) {
        const int column = i % columns;
        const float x = machine->table[(long long)index[i / columns] * columns + column];
        arena[gather->to + i] = machine->shift[column] + machine->scale[column] * x;
    }
}

/* As in update.c: the factor of the learning rate and what is added to the root are computed for each update beforehand. */
INLINE void adam(const Machine *machine, int member, const Adam *adam, const float *numbers, const float *arena) {
    const Network *net = machine->networks + adam->network;
    const long long row = (long long)member * net->width;
    float *value = net->values + row, *first = net->first + row, *second = net->second + row;
    const float *gradient = arena + adam->gradient, rate = arena[adam->rate] * numbers[2 * adam->ordinal], small = numbers[2 * adam->ordinal + 1];
    EACH_THREAD(i, 0, net->width) {
        const float g = gradient[i], m = first[i] + 0.1f * (g - first[i]), v = 0.999f * second[i] + 0.001f * g * g;
        first[i] = m, second[i] = v;
        value[i] -= rate * m / (sqrtf(v) + small);
    }
}

INLINE void track(const Machine *machine, int member, const Track *track, const float *arena) {
    const Network *online = machine->networks + track->online;
    const long long row = (long long)member * online->width;
    float *target = machine->networks[track->target].values + row;
    const float tau = arena[track->tau];
    EACH_THREAD(i, 0, online->width) target[i] += tau * (online->values[row + i] - target[i]);
}

INLINE void extras(const Machine *machine, int member, const Extras *extras, float *arena) {
    const Network *net = machine->networks + extras->network;
    EACH_THREAD(i, 0, extras->count) arena[extras->to + i] = net->values[(long long)member * net->width + i];
}
