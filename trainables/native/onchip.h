/* Whole updates of one pruned member on one multiprocessor: what a block of threads reads. onchip.cu compiles this for a GPU, onchip.c for a CPU.

   An update is a program: a list of instructions that work on a member's own row of `arena` and on its networks' rows. Each of a block's
   phases is a loop over what its threads share, and SYNC ends it:

       EACH_THREAD(i, from, to) { ... }    on a GPU each thread takes every THREADS-th i, on a CPU it is a loop
       EACH_WARP(i, from, to) { ... }      the same for warps; inside, `lanes` holds a number for each batch element of a tile
       SYNC                                what was written can be read by all

   A network is computed for a tile of TILE elements of the batch at a time, whose activations never leave the chip: a unit is a row of
   TILE floats. Row 0 is the constant 1, so a bias is the weight of row 0; then come the inputs, each layer's live units, the outputs. */

#pragma once

enum { TILE = 32, DEPTH = 8, PARTS = 4 };
enum { NONE = -1 }; /* a number that is not there */

/* ---- a pruned network, as trainables/execution/onchip.py lays it out ---- */

typedef struct { /* value `take` of the member's row multiplies tile row `from` and adds to tile row `to`; NONE: only fills up a pair */
    int take;
    unsigned short from, to;
} Weight;

typedef struct { /* the pairs of weights that make up a sum, and the tile row that it goes to */
    int first;
    unsigned short pairs, to;
} Row;

typedef struct { /* one copy of a network in one member; forward a row is a unit, backward what a unit reads */
    const Weight *forward, *backward;
    const Row *units, *inputs;
    int unit[DEPTH + 1], input[DEPTH + 1]; /* where each layer's rows begin */
    int weight[DEPTH + 1];                 /* and its weights in `forward` */
    int back, height;                      /* weights in `backward`; rows of the tile */
} Copy;

typedef struct { /* rows [members, width] of values and of Adam's moments */
    float *values, *first, *second;
    const Copy *copies; /* [members, count] */
    int width, count, depth, features, outputs, tanh;
} Network;

/* ---- a program, as trainables/native/onchip.py writes it; `at`, `to`, ... are places in the arena, in floats ---- */

typedef struct { /* up to three dimensions, of which each operand has its own steps; an operand whose place is NONE is a number */
    int operation, size[3], step[4][3], at[4];
    float number[4];
} Elementwise;

typedef struct { /* to[o] = sum over `inner` of x / divisor */
    int size[3], to_step[3], from_step[3], inner[3], inner_step[3], to, from;
    float divisor;
} Sum;

typedef struct { /* numbers of a stream whose key lies at `key` */
    int kind, count, below, key, to;
} Draw;

typedef struct { /* to[i] = shift + scale x table[index[i]] */
    int count, index, to;
} Gather;

typedef struct { /* a tensor [batch, size] */
    int at, row, step, size;
} Part;

typedef struct { /* a network, forward to `out` or backward from it; `copy` NONE: all of them. */
    int network, copy, batch, parts, out, gradient;
    Part part[PARTS]; /* the inputs */
    int input[PARTS]; /* where the gradient by each goes, [batch, size] without gaps, or NONE */
} Pass;

typedef struct { /* rate: per member; numbers[2 x ordinal]: the factor of the rate, and what is added to the root, in this update */
    int network, gradient, rate, ordinal;
} Adam;

typedef struct {
    int target, online, tau;
} Track;

typedef struct { /* a network's first values, which are its extras */
    int network, count, to;
} Extras;

typedef struct {
    int code;
    union {
        Elementwise elementwise;
        Sum sum;
        Draw draw;
        Gather gather;
        Pass pass;
        Adam adam;
        Track track;
        Extras extras;
    } as;
} Instruction;

typedef struct {
    float *arena;            /* [members, room] */
    const Network *networks;
    const Instruction *instructions;
    const int *starts;       /* of each program, and the end of the last */
    const float *table, *shift, *scale; /* of the dataset, and what normalizes its columns */
    long long room;
    int columns, ordinals;   /* of the table; optimizers */
} Machine;
