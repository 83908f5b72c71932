/* exp, log, tanh and the like, with the same bits on every processor, alone or in vectors: nothing but IEEE's operations in a fixed order,
   each multiply-add rounded once. (Where a product is only added to something, write fmaf: the compiler may do either. It takes no product
   apart that is used for something else, too.)

   The coefficients are least maximal errors; tests/trainables/tensors/test_functions.py holds all functions against float64. */

#pragma once

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifndef INLINE
#define INLINE static inline __attribute__((always_inline))
#endif

INLINE uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE float of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#define LOG_2_HIGH 0.693359375f /* of few bits, so that a whole multiple is exact; with what is left it is log 2 */
#define LOG_2_LOW -2.12194440e-4f

INLINE float exp_of(float x) {
    const float whole = 0x1.8p23f; /* added to a number, what is left of it is whole; in the last bits */
    const float bound = x > 89.f ? 89.f : x < -105.f ? -105.f : x; /* exp is infinite, or 0, there; a NaN passes */
    const float places = fmaf(bound, 1.44269504f, whole), n = places - whole;
    const float r = fmaf(n, -LOG_2_LOW, fmaf(n, -LOG_2_HIGH, bound));
    const float p = fmaf(r, fmaf(r, fmaf(r, fmaf(r, fmaf(r, 1.9790346e-4f, 1.394466e-3f), 8.333497e-3f), 4.1666295e-2f), 0.16666666f), 0.5f);
    const int32_t power = (int32_t)(bits_of(places) - bits_of(whole)), half = power >> 1;
    return (1 + fmaf(r * r, p, r)) * of_bits((uint32_t)(half + 127) << 23) * of_bits((uint32_t)(power - half + 127) << 23);
}

INLINE float log_of(float x) {
    const float least = FLT_MIN, scaled = x < least ? x * 0x1p23f : x;
    const uint32_t bits = bits_of(scaled), exponent = (bits - 0x3f3504f3) & 0xff800000; /* of the root of 1/2 */
    const float f = of_bits(bits - exponent) - 1, n = (float)((int32_t)exponent >> 23) - (x < least ? 23.f : 0.f), square = f * f;
    const float low = fmaf(f, fmaf(f, fmaf(f, fmaf(f, 0.06746601f, -0.11675641f), 0.11888175f), -0.124055915f), 0.14219551f);
    const float p = fmaf(f, fmaf(f, fmaf(f, fmaf(f, low, -0.16667996f), 0.20002119f), -0.2500001f), 0.33333313f);
    const float rest = fmaf(-0.5f, square, fmaf(square * f, p, n * LOG_2_LOW));
    const float y = fmaf(n, LOG_2_HIGH, f + rest);
    return x > 0 ? (x <= FLT_MAX ? y : x) : x == 0 ? -INFINITY : NAN;
}

/* Lambert's continued fraction of tanh at half the argument, then tanh 2t = 2 tanh t / (1 + tanh^2 t): within 2e-7. */
INLINE float tanh_of(float x) {
    const float limit = 9.1f, y = 0.5f * (x > limit ? limit : x < -limit ? -limit : x), s = y * y;
    const float a = y * fmaf(s, fmaf(s, fmaf(s, s + 990.f, 135135.f), 4729725.f), 34459425.f);
    const float b = fmaf(s, fmaf(s, fmaf(s, fmaf(s, 45.f, 13860.f), 945945.f), 16216200.f), 34459425.f);
    return 2 * a * b / fmaf(b, b, a * a);
}

INLINE float sigmoid_of(float x) { return 1 / (1 + exp_of(-x)); }

/* log(1 + exp(x)). */
INLINE float softplus_of(float x) {
    const float e = exp_of(x > 0 ? -x : x), one = 1 + e;
    return (x > 0 ? x : x == x ? 0 : x) + (log_of(one) + (e - (one - 1)) / one);
}

/* The cosine and the sine of a part of a turn, in [0, 1]. */
INLINE void turn_of(float part, float *cosine, float *sine) {
    const float whole = 0x1.8p23f, places = fmaf(part, 4, whole);
    const float angle = fmaf(places - whole, -0.25f, part) * 6.2831853f, s = angle * angle;
    const float c = fmaf(s * s, fmaf(s, fmaf(s, 2.4438414e-5f, -1.3887368e-3f), 4.1666646e-2f), fmaf(s, -0.5f, 1));
    const float d = fmaf(angle * s, fmaf(s, fmaf(s, -1.9517266e-4f, 8.332178e-3f), -0.16666655f), angle);
    const uint32_t quarters = bits_of(places); /* one turn of a quarter: (c, d) -> (-d, c) */
    const float across = quarters & 1 ? -d : c, up = quarters & 1 ? c : d;
    *cosine = quarters & 2 ? -across : across, *sine = quarters & 2 ? -up : up;
}
