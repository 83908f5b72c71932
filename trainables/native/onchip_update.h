/* A member's updates, one after the other: for each, the instructions of the program that it is of. */

#pragma once

#include "onchip_network.h"
#include "onchip_tensor.h"

enum { ELEMENTWISE, SUM, DRAW, GATHER, FORWARD, BACKWARD, ADAM, TRACK, EXTRAS };

INLINE void made(const Machine *machine, int member, const Instruction *instruction, unsigned long long update, const float *numbers, char *shared) {
    float *arena = machine->arena + member * machine->room;
    switch (instruction->code) {
        case ELEMENTWISE: elementwise(&instruction->as.elementwise, arena); break;
        case SUM: summed_up(&instruction->as.sum, arena, shared); break;
        case DRAW: draw(&instruction->as.draw, update, arena); break;
        case GATHER: gather(machine, &instruction->as.gather, arena); break;
        case FORWARD: forward(machine, member, &instruction->as.pass, arena, shared); break;
        case BACKWARD: backward(machine, member, &instruction->as.pass, arena, shared); break;
        case ADAM: adam(machine, member, &instruction->as.adam, numbers, arena); break;
        case TRACK: track(machine, member, &instruction->as.track, arena); break;
        case EXTRAS: extras(machine, member, &instruction->as.extras, arena); break;
    }
    SYNC
}

/* `program` [updates]: which program each update is of; `numbers` [updates, 2 x ordinals]: what its optimizers are given. */
INLINE void updates_of(const Machine *machine, int member, unsigned long long first, int updates, const int *program, const float *numbers, char *shared) {
    for (int u = 0; u < updates; u++, numbers += 2 * machine->ordinals)
        for (int i = machine->starts[program[u]]; i < machine->starts[program[u] + 1]; i++)
            made(machine, member, machine->instructions + i, first + u, numbers, shared);
}
