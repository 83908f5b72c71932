/* Calls on fixed memory, one after the other without Python between them: operations on single elements, and the project's other C.

   An operation sees up to three dimensions; its operands step through memory each by itself, a number stands still. Every operation is
   one of IEEE's, as torch computes it, so that the result has the same bits, or a function of functions.h. */

#include "functions.h"

typedef struct {
    void (*function)(const void *arguments);
    const void *arguments;
} Call;

void winnow_replay(int64_t count, const Call *calls) {
    for (const Call *call = calls; call < calls + count; call++) call->function(call->arguments);
}

typedef struct { /* what makes one update */
    int64_t count;
    const Call *calls;
} Recorded;

/* The updates [*update, stop): `recorded` holds what makes those whose numbers are 0, 1, ... modulo `period`. Stops early, but not before
   the first, once another thread has set `leave`. */
void winnow_repeat(int64_t *update, int64_t stop, int64_t period, const Recorded *recorded, const volatile int64_t *leave) {
    do {
        const Recorded *made = recorded + *update % period;
        winnow_replay(made->count, made->calls);
        ++*update;
    } while (*update < stop && !*leave);
}

typedef struct { /* as in trainables/tensors/operations.py */
    int64_t operation;
    int64_t size[3];
    int64_t step[4][3]; /* of the result and the operands, in elements */
    void *data[4];
    float number[3]; /* operands that are no tensors */
} Elementwise;

enum { COPY, NEG, ABS, SQUARE, RECIPROCAL, RELU, EXP, LOG, TANH, SIGMOID, SOFTPLUS, /* of one operand */
       ADD, SUB, MUL, DIV, MINIMUM, MAXIMUM, CLAMP, GATE, WHERE, GE, GT, LE, LT, EQ, AND };

/* As torch's: a NaN passes. */
INLINE float smaller(float x, float y) { return x < y || x != x ? x : y; }
INLINE float larger(float x, float y) { return x > y || x != x ? x : y; }

INLINE void floats(const int operation, int64_t size, float *to, int64_t step, const float *a, int64_t by_a, const float *b, int64_t by_b,
                   const float *c, int64_t by_c) {
#pragma GCC ivdep /* a result lies where an operand does, or apart from it */
    for (int64_t i = 0; i < size; i++) {
        const float x = a[i * by_a], y = operation >= ADD ? b[i * by_b] : 0;
        to[i * step] = operation == NEG          ? -x
                       : operation == ABS        ? fabsf(x)
                       : operation == SQUARE     ? x * x
                       : operation == RECIPROCAL ? 1 / x
                       : operation == RELU       ? (x < 0 ? 0 : x)
                       : operation == EXP        ? exp_of(x)
                       : operation == LOG        ? log_of(x)
                       : operation == TANH       ? tanh_of(x)
                       : operation == SIGMOID    ? sigmoid_of(x)
                       : operation == SOFTPLUS   ? softplus_of(x)
                       : operation == ADD        ? x + y
                       : operation == SUB        ? x - y
                       : operation == MUL        ? x * y
                       : operation == DIV        ? x / y
                       : operation == MINIMUM    ? smaller(x, y)
                       : operation == MAXIMUM    ? larger(x, y)
                       : operation == CLAMP      ? smaller(larger(x, y), c[i * by_c])
                       : operation == GATE       ? (y <= c[i * by_c] ? 0 : x)
                                                 : x;
    }
}

INLINE void bools(const int operation, int64_t size, uint8_t *to, int64_t step, const float *a, int64_t by_a, const float *b, int64_t by_b) {
    for (int64_t i = 0; i < size; i++) {
        const float x = a[i * by_a], y = b[i * by_b];
        to[i * step] = operation == GE ? x >= y : operation == GT ? x > y : operation == LE ? x <= y : operation == LT ? x < y : x == y;
    }
}

/* One line of `size` elements. Where the operands lie close together, or are one number, the compiler makes vectors of it. */
INLINE void line(const int operation, const Elementwise *e, char *const data[4]) {
    const int64_t n = e->size[2], to = e->step[0][2], a = e->step[1][2], b = e->step[2][2], c = e->step[3][2];
    float *y = (float *)data[0], *x = (float *)data[1], *z = (float *)data[2], *w = (float *)data[3];
    if (operation == WHERE)
        for (int64_t i = 0; i < n; i++) y[i * to] = ((uint8_t *)data[1])[i * a] ? z[i * b] : w[i * c];
    else if (operation == AND)
        for (int64_t i = 0; i < n; i++) ((uint8_t *)data[0])[i * to] = ((uint8_t *)data[1])[i * a] & ((uint8_t *)data[2])[i * b];
    else if (operation >= GE) {
        if (to == 1 && a == 1 && b == 1) bools(operation, n, (uint8_t *)y, 1, x, 1, z, 1);
        else if (to == 1 && a == 1 && b == 0) bools(operation, n, (uint8_t *)y, 1, x, 1, z, 0);
        else bools(operation, n, (uint8_t *)y, to, x, a, z, b);
    } else if (to == 1 && a == 1 && b == 0 && c == 0) floats(operation, n, y, 1, x, 1, z, 0, w, 0);
    else if (to == 1 && a == 1 && b == 1 && c == 0) floats(operation, n, y, 1, x, 1, z, 1, w, 0);
    else if (to == 1 && a == 0 && b == 1 && c == 0) floats(operation, n, y, 1, x, 0, z, 1, w, 0);
    else floats(operation, n, y, to, x, a, z, b, w, c);
}

INLINE void all_lines(const int operation, const Elementwise *e) {
    static const int size_of[2] = {sizeof(float), 1};
    const int out = size_of[operation >= GE], first = size_of[operation == WHERE || operation == AND], others = size_of[operation == AND];
    for (int64_t i = 0; i < e->size[0]; i++)
        for (int64_t j = 0; j < e->size[1]; j++) {
            char *data[4];
            for (int k = 0; k < 4; k++)
                data[k] = (char *)e->data[k] + (i * e->step[k][0] + j * e->step[k][1]) * (k == 0 ? out : k == 1 ? first : others);
            line(operation, e, data);
        }
}

#define EACH(X) \
    X(COPY) X(NEG) X(ABS) X(SQUARE) X(RECIPROCAL) X(RELU) X(EXP) X(LOG) X(TANH) X(SIGMOID) X(SOFTPLUS) X(ADD) X(SUB) X(MUL) X(DIV) \
    X(MINIMUM) X(MAXIMUM) X(CLAMP) X(GATE) X(WHERE) X(GE) X(GT) X(LE) X(LT) X(EQ) X(AND)
/* A function for each: of one function with all of them the compiler takes three times as long. */
#define FUNCTION(operation) static __attribute__((noinline)) void lines_##operation(const Elementwise *e) { all_lines(operation, e); }
EACH(FUNCTION)

void winnow_elementwise(const void *arguments) {
    const Elementwise *e = arguments;
#define CASE(operation) case operation: lines_##operation(e); break;
    switch (e->operation) { EACH(CASE) }
}

/* ---- sums of neighbouring elements ---- */

typedef struct { /* as in operations.py: out[i] = sum of x[i * stride ... + count) / divisor */
    int64_t outputs, count, stride;
    float *to;
    const float *from;
    float divisor;
} Sum;

enum { ROWS = 4, LEVELS = 4 };

/* In torch's order of additions: `width` lanes, ROWS vectors side by side, and sums of 2^power vectors that are added up in LEVELS. */
INLINE float sum_of(const int width, const float *x, int64_t count) {
    float sum[LEVELS][ROWS][8] = {0}, total = 0;
    const int64_t vectors = count / width, steps = vectors / ROWS;
    int power = 0;
    while (((int64_t)1 << power) < steps) power++;
    power = power / LEVELS > 4 ? power / LEVELS : 4;
    for (int64_t i = 0; i < steps; i++) {
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < width; j++) sum[0][r][j] += x[(i * ROWS + r) * width + j];
        for (int level = 1; level < LEVELS && (i + 1) % ((int64_t)1 << level * power) == 0; level++)
            for (int r = 0; r < ROWS; r++)
                for (int j = 0; j < width; j++) sum[level][r][j] += sum[level - 1][r][j], sum[level - 1][r][j] = 0;
    }
    for (int level = 1; level < LEVELS; level++)
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < width; j++) sum[0][r][j] += sum[level][r][j];
    for (int64_t i = steps * ROWS; i < vectors; i++)
        for (int j = 0; j < width; j++) sum[0][0][j] += x[i * width + j];
    for (int r = 1; r < ROWS; r++)
        for (int j = 0; j < width; j++) sum[0][0][j] += sum[0][r][j];
    for (int64_t i = vectors * width; i < count; i++) total += x[i];
    for (int j = 0; j < width; j++) total += sum[0][0][j];
    return total;
}

void winnow_sum(const void *arguments) {
    const Sum *sum = arguments;
    for (int64_t i = 0; i < sum->outputs; i++) {
        const float *x = sum->from + i * sum->stride;
        sum->to[i] = (sum->count < 8 ? sum_of(1, x, sum->count) : sum_of(8, x, sum->count)) / sum->divisor;
    }
}

/* ---- the draws of the update ---- */

typedef struct { /* as in trainables/tensors/calls.py: row 0 is that of the update `first` */
    const char *rows;
    int64_t first;
} Block;

typedef struct {
    void *to;
    const Block *block;
    const int64_t *update;
    int64_t bytes;
} Row;

void winnow_row(const void *arguments) {
    const Row *row = arguments;
    memcpy(row->to, row->block->rows + (*row->update - row->block->first) * row->bytes, (size_t)row->bytes);
}

/* ---- the other functions, by their arguments in a row of 64-bit integers ---- */

#define P(i) ((void *)(intptr_t)a[i])
#define I(i) ((int)a[i])

void winnow_forward(const void *, const float *, int, const void *, int, int, int, float *, float *, float *);
void winnow_backward(const void *, const float *, int, const void *, int, int, const float *, const float *, float *, float *);
void winnow_input_gradient(const void *, const float *, int, int, int, const float *, float *, float *, float *);
void winnow_input_gradient_backward(const void *, const float *, int, int, int, const float *, const float *, const float *, const float *, float *, float *);
void winnow_adam(const void *);
void winnow_gather(int64_t, const int64_t *, int64_t, const float *, const float *, const float *, float *);
void winnow_track(int, int64_t, float *, const float *, const float *);

#define REPLAYED(name, ...)                                      \
    void winnow_replayed_##name(const void *arguments) {         \
        const int64_t *a = arguments;                            \
        winnow_##name(__VA_ARGS__);                              \
    }

REPLAYED(forward, P(0), P(1), I(2), P(3), I(4), I(5), I(6), P(7), P(8), P(9))
REPLAYED(backward, P(0), P(1), I(2), P(3), I(4), I(5), P(6), P(7), P(8), P(9))
REPLAYED(input_gradient, P(0), P(1), I(2), I(3), I(4), P(5), P(6), P(7), P(8))
REPLAYED(input_gradient_backward, P(0), P(1), I(2), I(3), I(4), P(5), P(6), P(7), P(8), P(9), P(10))
REPLAYED(gather, a[0], P(1), a[2], P(3), P(4), P(5), P(6))
REPLAYED(track, I(0), a[1], P(2), P(3), P(4))
