/* Products of dense matrices: c = start + a b for each of some matrices, in the strides that torch's tensors have.

   An element of c is the sum over the depth in its order, whatever the sizes, the strides and the instruction set: it depends neither on
   where a matrix lies in memory, nor on its neighbours, nor, where multiply and add are one instruction, on the processor. A block of ROWS x
   2 registers of c is summed at once, over a part of the depth. What it needs of b is laid side by side first, as much as stays in the cache. */

#include <stdint.h>

#include "tile.h"

#if defined __AVX2__ && !defined __AVX512F__
enum { ROWS = 6 }; /* twelve of sixteen registers hold sums */
#else
enum { ROWS = 8 };
#endif
enum { WIDE = 2 * LANES, SIDE = 8 };
enum { DEPTH = 256, COLUMNS = 128, PANELS = 2 }; /* that are laid out at a time: of b, and blocks of rows of a */

typedef struct { /* as in trainables/tensors/product.py; strides in elements: of matrices, rows and columns */
    int64_t matrices, rows, columns, depth;
    const float *a, *b, *start; /* start: NULL for 0 */
    float *c;
    int64_t a_step[3], b_step[3], start_step, c_step; /* the columns of start, one for all rows, are neighbours; so are the numbers of a c */
    int64_t relu;      /* whether c is rectified; not for one column */
    const float *gate; /* [matrices, rows, columns]: c is 0 where it is not positive; NULL, and for one column */
} Product;

typedef struct { /* where a block is: rows of start and steps of b are so many elements apart */
    int64_t row, step, b_row, start_row, columns;
    int relu;
} Steps;

/* A block of c: rows x `wide` registers. */
INLINE void block(const int rows, const int wide, const int64_t row, const int64_t step, const Steps *s, int64_t depth, const float *a, const float *b,
                  const float *start, const float *positive, float *c) {
    vec sum[ROWS][2];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < wide; j++) sum[i][j] = start ? ((const vec *)(start + i * s->start_row))[j] : (vec){0};
    for (int64_t p = 0; p < depth; p++, a += step, b += s->b_row) {
        vec right[2];
        UNROLL for (int j = 0; j < wide; j++) right[j] = ((const vec *)b)[j];
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < wide; j++) sum[i][j] += a[i * row] * right[j];
    }
    if (s->relu)
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < wide; j++) sum[i][j] = (vec)((bits)sum[i][j] & ~(bits)(sum[i][j] < 0));
    if (positive)
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < wide; j++) sum[i][j] = gate(sum[i][j], ((const vec *)(positive + i * s->columns))[j]);
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < wide; j++) ((vec *)(c + i * s->columns))[j] = sum[i][j];
}

/* Some rows, at most ROWS, of two registers or of one; few of them in turn, by fours, twos and ones. */
static void blocks(int rows, int wide, const Steps *s, int64_t depth, const float *a, const float *b, const float *start, const float *positive, float *c) {
#define BLOCK(n, wide, row, step) block(n, wide, row, step, s, depth, a, b, start, positive, c)
    if (rows == ROWS) {
        if (wide == 1) BLOCK(ROWS, 1, s->row, s->step);
        else if (s->row == 1 && s->step == ROWS) BLOCK(ROWS, 2, 1, ROWS);
        else if (s->step == 1) BLOCK(ROWS, 2, s->row, 1);
        else BLOCK(ROWS, 2, s->row, s->step);
        return;
    }
    while (rows) {
        const int n = rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
        if (n == 4) BLOCK(4, 2, s->row, s->step);
        else if (n == 2) BLOCK(2, 2, s->row, s->step);
        else BLOCK(1, 2, s->row, s->step);
        rows -= n, a += n * s->row, c += n * s->columns;
        if (start) start += n * s->start_row;
        if (positive) positive += n * s->columns;
    }
}

/* The same for the last columns, which fill no two registers: by way of memory in which they do. */
static void edge(int rows, int64_t width, const Steps *s, int64_t depth, const float *a, const float *b, const float *start, const float *positive,
                 float *c) {
    float begin[ROWS * WIDE] = {0}, open[ROWS * WIDE] = {0}, made[ROWS * WIDE];
    const size_t bytes = (size_t)width * sizeof(float);
    for (int i = 0; i < rows; i++) {
        if (start) memcpy(begin + i * WIDE, start + i * s->start_row, bytes);
        if (positive) memcpy(open + i * WIDE, positive + i * s->columns, bytes);
    }
    Steps steps = *s;
    steps.start_row = steps.columns = WIDE;
    blocks(rows, rows == ROWS && width <= LANES ? 1 : 2, &steps, depth, a, b, begin, positive ? open : NULL, made);
    for (int i = 0; i < rows; i++) memcpy(c + i * s->columns, made + i * WIDE, bytes);
}

/* Lane i of the results: element i of x[0], x[1], ... */
INLINE void transposed(vec8 x[8]) {
#define LOW_HALVES (vec8bits){0, 8, 1, 9, 4, 12, 5, 13}
#define HIGH_HALVES (vec8bits){2, 10, 3, 11, 6, 14, 7, 15}
    typedef int32_t vec8bits __attribute__((vector_size(32)));
    vec8 y[8], z[8];
    for (int i = 0; i < 8; i += 2)
        y[i] = __builtin_shuffle(x[i], x[i + 1], LOW_HALVES), y[i + 1] = __builtin_shuffle(x[i], x[i + 1], HIGH_HALVES);
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            z[i + 2 * j] = __builtin_shuffle(y[i + j], y[i + j + 2], (vec8bits){0, 1, 8, 9, 4, 5, 12, 13});
            z[i + 2 * j + 1] = __builtin_shuffle(y[i + j], y[i + j + 2], (vec8bits){2, 3, 10, 11, 6, 7, 14, 15});
        }
    for (int i = 0; i < 4; i++) {
        x[i] = __builtin_shuffle(z[i], z[i + 4], (vec8bits){0, 1, 2, 3, 8, 9, 10, 11});
        x[i + 4] = __builtin_shuffle(z[i], z[i + 4], (vec8bits){4, 5, 6, 7, 12, 13, 14, 15});
    }
}

/* to[p, j] = from[p, j] for `width` columns, of which there are WIDE in `to`; the others are 0. */
static void lay_out(int64_t depth, int64_t width, const float *from, int64_t row, int64_t column, float *to) {
    int64_t done = 0;
    if (row == 1) /* squares of SIDE x SIDE */
        for (; done + SIDE <= width; done += SIDE) {
            int64_t p = 0;
            for (; p + SIDE <= depth; p += SIDE) {
                vec8 x[SIDE];
                UNROLL for (int j = 0; j < SIDE; j++) x[j] = *(const vec8 *)(from + (done + j) * column + p);
                transposed(x);
                UNROLL for (int i = 0; i < SIDE; i++) *(vec8 *)(to + (p + i) * WIDE + done) = x[i];
            }
            for (; p < depth; p++)
                for (int64_t j = done; j < done + SIDE; j++) to[p * WIDE + j] = from[p + j * column];
        }
    else if (column == 1 && width == WIDE) {
        for (int64_t p = 0; p < depth; p++)
            UNROLL for (int j = 0; j < 2; j++) ((vec *)(to + p * WIDE))[j] = ((const vec *)(from + p * row))[j];
        return;
    }
    for (int64_t p = 0; p < depth; p++) {
        for (int64_t j = done; j < width; j++) to[p * WIDE + j] = from[p * row + j * column];
        for (int64_t j = width; j < WIDE; j++) to[p * WIDE + j] = 0;
    }
}

/* c[i] = start + a[i] . b for one column: two sums of eight side by side, whatever the registers. */
static void one_column(const Product *p, const float *a, const float *b, float start, float *c) {
    for (int64_t i = 0; i < p->rows; i++, a += p->a_step[1]) {
        vec8 sum[2] = {{0}, {0}};
        int64_t k = 0;
        for (; k + 16 <= p->depth; k += 16)
            UNROLL for (int j = 0; j < 2; j++) sum[j] += ((const vec8 *)(a + k))[j] * ((const vec8 *)(b + k))[j];
        if (k < p->depth) {
            float rest[2][16] = {{0}, {0}};
            memcpy(rest[0], a + k, (size_t)(p->depth - k) * sizeof(float)), memcpy(rest[1], b + k, (size_t)(p->depth - k) * sizeof(float));
            UNROLL for (int j = 0; j < 2; j++) sum[j] += ((const vec8 *)rest[0])[j] * ((const vec8 *)rest[1])[j];
        }
        sum[0] += sum[1];
        const float *s = (const float *)sum;
        c[i] = start + (((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])));
    }
}

static int64_t smaller(int64_t x, int64_t y) { return x < y ? x : y; }

/* c = start + a b over a part of the depth; rows of `start` are start_row apart. */
static void part(const Product *p, int64_t depth, const float *a, const float *b, const float *start, int64_t start_row, const float *gate, int relu,
                 float *c) {
    float right[COLUMNS * DEPTH] __attribute__((aligned(64))), left[PANELS * ROWS * DEPTH] __attribute__((aligned(64)));
    const int64_t rows = p->rows, columns = p->columns, row = p->a_step[1], step = p->a_step[2], b_row = p->b_step[1], b_column = p->b_step[2];
    const int direct = rows < 2 * ROWS && b_column == 1; /* b is read too seldom to be laid out, but for its last columns */
    for (int64_t first = 0; first < columns; first += COLUMNS) {
        const int64_t end = smaller(first + COLUMNS, columns), in_place = direct ? first + (end - first) / WIDE * WIDE : first;
        for (int64_t j = in_place; j < end; j += WIDE)
            lay_out(depth, smaller(WIDE, end - j), b + j * b_column, b_row, b_column, right + (j - first) * depth);
        for (int64_t i = 0; i < rows; i += ROWS) {
            const int n = (int)smaller(ROWS, rows - i), neighbours = row == 1 && n == ROWS;
            const int64_t panel = i / ROWS % PANELS;
            if (neighbours && !panel) /* at each step of the depth, steps that are far apart: side by side */
                for (int64_t k = 0; k < depth; k++)
                    for (int64_t q = 0; q < PANELS && i + (q + 1) * ROWS <= rows; q++)
                        memcpy(left + (q * depth + k) * ROWS, a + i + q * ROWS + k * step, sizeof(float[ROWS]));
            const float *from = neighbours ? left + panel * depth * ROWS : a + i * row;
            for (int64_t j = first; j < end; j += WIDE) {
                const Steps steps = {row, neighbours ? ROWS : step, j < in_place ? b_row : WIDE, start_row, columns, relu};
                const int64_t width = smaller(WIDE, end - j), at = i * columns + j;
                const float *by = j < in_place ? b + j : right + (j - first) * depth, *begin = start ? start + i * start_row + j : NULL;
                const float *positive = gate ? gate + at : NULL;
                if (width == WIDE) blocks(n, 2, &steps, depth, from, by, begin, positive, c + at);
                else edge(n, width, &steps, depth, from, by, begin, positive, c + at);
            }
        }
    }
}

void winnow_product(const Product *p) {
    const int column = p->columns == 1 && p->a_step[2] == 1 && p->b_step[1] == 1;
    for (int64_t m = 0; m < p->matrices; m++) {
        const float *a = p->a + m * p->a_step[0], *b = p->b + m * p->b_step[0], *start = p->start ? p->start + m * p->start_step : NULL;
        const float *gate = p->gate ? p->gate + m * p->c_step : NULL;
        float *c = p->c + m * p->c_step;
        if (column) one_column(p, a, b, start ? *start : 0, c);
        else
            for (int64_t k = 0; k < p->depth || !k; k += DEPTH) {
                const int last = k + DEPTH >= p->depth;
                part(p, smaller(DEPTH, p->depth - k), a + k * p->a_step[2], b + k * p->b_step[1], k ? c : start, k ? p->columns : 0,
                     last ? gate : NULL, last && p->relu, c);
            }
    }
}
