/* The products of a behaviour policy that records data: y = x w for each of some rows x. A recording is a long chaotic run, so the last bit of
   every product counts: here it is the same on every processor.

   The order of additions is that of OpenBLAS 0.3.31's sgemv on AVX-512, with which the datasets were first recorded (docs/decisions/022): up
   to 48 inputs in their order; more in parts of eight, of which the sums are added in their order. In the first 4 and 8 columns that do not
   fill 16, even and odd inputs of a part are summed apart; in the last columns that do not fill four there are no parts. Each multiply-add
   rounds once. */

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { SHORT = 48, PART = 8, WIDEST = 16 };

/* Columns of one row, in parts of `part` inputs; each part's even and odd inputs are summed apart where `sums` is 2. */
static void columns(int wide, int sums, int64_t part, int64_t inputs, int64_t outputs, const float *x, const float *w, float *y) {
    float total[WIDEST] = {0};
    for (int64_t first = 0; first < inputs; first += part) {
        float sum[2][WIDEST] = {{0}, {0}};
        for (int64_t i = first; i < inputs && i < first + part; i++) {
            float *into = sum[(i - first) % sums];
            for (int c = 0; c < wide; c++) into[c] = fmaf(w[i * outputs + c], x[i], into[c]);
        }
        for (int c = 0; c < wide; c++) total[c] += sum[0][c] + sum[1][c];
    }
    memcpy(y, total, (size_t)wide * sizeof(float));
}

/* All three columns of three: pairs of inputs, of which the second product is rounded by itself. */
static void three(int64_t inputs, const float *x, const float *w, float *y) {
    for (int c = 0; c < 3; c++) {
        float sum = 0;
        int64_t i = 0;
        for (const int64_t fours = inputs - inputs % 4; i < fours; i += 2) {
            const float second = w[3 * (i + 1) + c] * x[i + 1];
            sum += fmaf(w[3 * i + c], x[i], second);
        }
        for (; i < inputs; i++) sum = fmaf(w[3 * i + c], x[i], sum);
        y[c] = sum;
    }
}

/* x [rows, inputs], w [inputs, outputs], y [rows, outputs]. */
void winnow_rows(int64_t rows, int64_t inputs, int64_t outputs, const float *x, const float *w, float *y) {
    for (int64_t row = 0; row < rows; row++, x += inputs, y += outputs) {
        int64_t c = 0;
        const int64_t body = outputs - outputs % 4;
        if (inputs > SHORT) {
            if (outputs == 3) {
                three(inputs, x, w, y);
                continue;
            }
            if (body % 8) columns(4, 2, PART, inputs, outputs, x, w, y), c = 4;
            if (body % 16 >= 8) columns(8, 2, PART, inputs, outputs, x, w + c, y + c), c += 8;
            for (; c < body; c += 16) columns(16, 1, PART, inputs, outputs, x, w + c, y + c);
        }
        for (; c < outputs; c += WIDEST) {
            const int wide = outputs - c < WIDEST ? (int)(outputs - c) : WIDEST;
            columns(wide, 1, inputs, inputs, outputs, x, w + c, y + c);
        }
    }
}
