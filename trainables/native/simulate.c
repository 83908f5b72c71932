/* A time step of many states of one planar runner, with MuJoCo's own mj_step, whose address is given: no header of MuJoCo is needed.
   Rewards are added up in the order and precision in which gymnasium does it, so they are equal to the last bit. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#pragma GCC optimize("fp-contract=off") /* a fused multiply-add would round once less */

typedef void Advance(const void *model, void *state);

typedef struct { /* trainables/simulation/stepping.py, Planar; a missing bound is infinite */
    int32_t controls, positions, velocities, frames, terminates, padding;
    double seconds, healthy_reward, height[2], angle[2], state[2], velocity_limit;
    float control_cost, unused;
    const float *low, *high; /* [controls] */
} Runner;

static int inside(double value, const double bounds[2]) { return bounds[0] < value && value < bounds[1]; }

static int is_healthy(const Runner *runner, const double *now) {
    if (!inside(now[1], runner->height) || !inside(now[2], runner->angle)) return 0;
    for (int c = 2; c < runner->positions + runner->velocities; c++)
        if (!inside(now[c], runner->state)) return 0;
    return 1;
}

/* For each of `alive`: the action (clipped in place), `frames` steps, positions and velocities to its row of `now`, observation, reward and
   whether the episode ended. An action that is not finite is not taken: its reward is nan and its episode ends. */
void winnow_simulate(Advance *advance, const void *model, const Runner *runner, int count, const int64_t *alive, void *const *state,
                     double *const *control, double *const *position, double *const *velocity, float *actions, double *now, float *observations,
                     double *rewards, uint8_t *ended) {
    const int positions = runner->positions, velocities = runner->velocities, width = positions + velocities;
    for (int j = 0; j < count; j++) {
        const int64_t i = alive[j];
        float *action = actions + i * runner->controls, squares = 0;
        double *own = now + i * width;
        int finite = 1;
        for (int c = 0; c < runner->controls; c++) finite &= isfinite(action[c]) != 0;
        if (!finite) {
            rewards[i] = NAN, ended[i] = 1;
            continue;
        }
        for (int c = 0; c < runner->controls; c++) {
            action[c] = action[c] < runner->low[c] ? runner->low[c] : action[c] > runner->high[c] ? runner->high[c] : action[c];
            control[i][c] = action[c];
            const float square = action[c] * action[c];
            squares += square;
        }
        const double before = own[0];
        for (int f = 0; f < runner->frames; f++) advance(model, state[i]);
        memcpy(own, position[i], sizeof(double) * positions);
        memcpy(own + positions, velocity[i], sizeof(double) * velocities);
        for (int c = 1; c < width; c++) {
            const double limit = runner->velocity_limit, value = own[c];
            observations[i * (width - 1) + c - 1] = (float)(c < positions ? value : value < -limit ? -limit : value > limit ? limit : value);
        }
        const int healthy = is_healthy(runner, own);
        rewards[i] = (own[0] - before) / runner->seconds + runner->healthy_reward * healthy - (double)(runner->control_cost * squares);
        ended[i] = runner->terminates && !healthy;
    }
}
