/* onchip.h on a CPU: blocks one after the other. */

#include "onchip_cpu.h"
#include "onchip_update.h"

void winnow_onchip(const Machine *machine, int members, int64_t first, int updates, const int *program, const float *numbers, void *shared) {
    for (int member = 0; member < members; member++) updates_of(machine, member, (unsigned long long)first, updates, program, numbers, shared);
}
