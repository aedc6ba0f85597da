/* The element-wise parts of a decoder in bfloat16, each in one pass over memory.
 *
 * Torch makes each of them of several operations, and every one of those reads and writes the whole tensor. Here a row is
 * read once, computed in float32 and rounded exactly where torch rounds, so results are torch's bits but for sums taken
 * in another order and the last bits of exp.
 *
 * Plain C, without headers of torch or Python: `compiled.py` calls it with addresses. The loops over a row have no
 * branches and no carried sums, so that a compiler makes vector code of them without being allowed to change arithmetic.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16; /* the upper half of a float */

/* Sums are kept in this many lanes: the order of additions is then the same for every compiler and vector width. */
#define LANES 16

static inline float widened(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* To the nearest, ties to even, as torch does. A NaN stays one: rounding its bits could make a number of it. */
static inline bf16 rounded(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t near = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (bf16)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : near);
}

/* e^x within two units in the last place of a float. libm's is a call for each number, which no loop can be made of. */
static inline float exponential(float x) {
    /* Above, n is 128 and its power of two the bits of infinity. */
    float bounded = x < -87.0f ? -87.0f : (x > 89.0f ? 89.0f : x);
    /* x = n ln 2 + r; adding and taking away 1.5 * 2^23 rounds to a whole number. */
    float n = (bounded * 1.44269504088896341f + 12582912.0f) - 12582912.0f;
    float r = bounded - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t power = (uint32_t)((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &power, sizeof scale);
    float value = p * scale;
    return x != x ? x : value;
}

/* Each row of x divided by its root mean square, times `weight` (float32).
 * round_first: the normalised row is rounded before it is multiplied (Llama), else once at the end (Gemma). */
void rms_norm(const bf16 *x, const float *weight, bf16 *out, int64_t n_rows, int64_t size, float eps, int round_first) {
    for (int64_t row = 0; row < n_rows; row++) {
        const bf16 *in = x + row * size;
        bf16 *to = out + row * size;
        float sums[LANES] = {0};
        int64_t j = 0;
        for (; j + LANES <= size; j += LANES)
            for (int lane = 0; lane < LANES; lane++) {
                float value = widened(in[j + lane]);
                sums[lane] += value * value;
            }
        for (int lane = 0; j < size; j++, lane++) {
            float value = widened(in[j]);
            sums[lane] += value * value;
        }
        float sum = 0.0f;
        for (int lane = 0; lane < LANES; lane++) sum += sums[lane];
        float scale = 1.0f / sqrtf(sum / (float)size + eps);
        if (round_first)
            for (j = 0; j < size; j++) to[j] = rounded(weight[j] * widened(rounded(widened(in[j]) * scale)));
        else
            for (j = 0; j < size; j++) to[j] = rounded(widened(in[j]) * scale * weight[j]);
    }
}

/* silu(gate) * up, into gate. */
void silu_times(bf16 *gate, const bf16 *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float x = widened(gate[i]);
        float activated = x / (1.0f + exponential(-x));
        gate[i] = rounded(widened(rounded(activated)) * widened(up[i]));
    }
}

/* gelu(gate) * up, into gate; gelu by its formula with tanh. */
void gelu_tanh_times(bf16 *gate, const bf16 *up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float x = widened(gate[i]);
        float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
        /* 0.5 (1 + tanh y) = 1 / (1 + e^-2y) */
        float activated = x / (1.0f + exponential(-2.0f * inner));
        gate[i] = rounded(widened(rounded(activated)) * widened(up[i]));
    }
}

/* x cos + partner sin, where the partner's sign is turned first if asked: one half of a head. */
static inline void turned(const bf16 *restrict x, const bf16 *restrict partner, const bf16 *restrict cosines,
                          const bf16 *restrict sines, bf16 *restrict out, int64_t n, float sign) {
    for (int64_t j = 0; j < n; j++) {
        float own = widened(rounded(widened(x[j]) * widened(cosines[j])));
        float other = widened(rounded(sign * widened(partner[j]) * widened(sines[j])));
        out[j] = rounded(own + other);
    }
}

/* Rotary positions: x cos + rotate_half(x) sin, of [heads, tokens, size] into [tokens, heads, size].
 * One call does one batch; steps between tokens and heads are in elements, cos and sin are [tokens, size]. */
void rotary(const bf16 *x, const bf16 *cosines, const bf16 *sines, bf16 *out, int64_t n_tokens, int64_t n_heads,
            int64_t size, int64_t token_step, int64_t head_step) {
    int64_t half = size / 2;
    for (int64_t token = 0; token < n_tokens; token++) {
        const bf16 *c = cosines + token * size, *s = sines + token * size;
        for (int64_t head = 0; head < n_heads; head++) {
            const bf16 *in = x + token * token_step + head * head_step;
            bf16 *to = out + (token * n_heads + head) * size;
            turned(in, in + half, c, s, to, half, -1.0f);
            turned(in + half, in, c + half, s + half, to + half, half, 1.0f);
        }
    }
}
