// A 4-bit matrix in Marlin's layout, times a few rows or unpacked; marlin_gemv.py has the layout.
//
// gemv: ROWS rows, PARTS blocks share a tile's 64 columns, WARPS warps of a block share its inputs.
// BFLOAT16 is 1 if activations and scales are bfloat16, and 0 if they are float16.
//
// A warp reads PARTS tiles of 16 inputs at a time, 16 bytes a lane: four words, which hold for four
// inputs the lane's eight columns. A 4-bit value is put into a float's mantissa where it stands, so
// that it needs no shift: it comes out times a power of sixteen, by which the activation is divided.

#define UNROLL 4
constexpr unsigned MANTISSA = 0x4B000000u;  // 2^23

__device__ __forceinline__ float value(unsigned word, int place) {
    unsigned bits = (word & (0xFu << (4 * place))) | MANTISSA;
    return __uint_as_float(bits) - (8388608.0f + 8.0f * (1 << (4 * place)));
}

__device__ __forceinline__ float wide(unsigned half) {
#if BFLOAT16
    return __uint_as_float(half << 16);
#else
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"((unsigned short)half));
    return result;
#endif
}

__device__ __forceinline__ unsigned short narrow(float number) {
    unsigned short result;
#if BFLOAT16
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result) : "f"(number));
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(number));
#endif
    return result;
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
gemv(const unsigned *__restrict__ hidden, const uint4 *__restrict__ weight,
     const unsigned short *__restrict__ scales, unsigned short *__restrict__ out,
     int inputs, int columns, int group_tiles) {
    constexpr int LANES = 32 / PARTS;
    constexpr int OWN = 64 / PARTS;
    __shared__ float partial[WARPS][ROWS][OWN];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int tile = blockIdx.x / PARTS;
    const int place = (blockIdx.x % PARTS) * LANES + lane % LANES;  // lane of a whole tile
    const int pair = place % 4, column = place / 4;
    const int tiles = inputs / 16;
    float sum[ROWS][8] = {};

#pragma unroll UNROLL
    for (int at = warp * PARTS + lane / LANES; at < tiles; at += WARPS * PARTS) {
        const uint4 words = __ldg(weight + (size_t)at * (columns / 2) + tile * 32 + place);
        const uint4 scale = __ldg((const uint4 *)(
            scales + (size_t)(at / group_tiles) * columns + tile * 64 + column * 8));
        const unsigned quad[4] = {words.x, words.y, words.z, words.w};
        const unsigned two[4] = {scale.x, scale.y, scale.z, scale.w};
        float x[ROWS][8];
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
            const unsigned *here = hidden + (size_t)row * (inputs / 2) + at * 8 + pair;
            const unsigned low = __ldg(here), high = __ldg(here + 4);
            x[row][0] = wide(low & 0xFFFF);
            x[row][1] = wide(low >> 16);
            x[row][2] = wide(high & 0xFFFF) / 16;
            x[row][3] = wide(high >> 16) / 16;
#pragma unroll
            for (int i = 0; i < 4; i++) x[row][4 + i] = x[row][i] / 256;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const unsigned low = quad[j], high = quad[j] >> 16;
            const float one[4] = {value(low, 0), value(high, 0), value(low, 1), value(high, 1)};
            const float other[4] = {value(low, 2), value(high, 2), value(low, 3), value(high, 3)};
            const float first = wide(two[j] & 0xFFFF), second = wide(two[j] >> 16);
#pragma unroll
            for (int row = 0; row < ROWS; row++) {
                float a = 0, b = 0;
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    a += one[i] * x[row][i];
                    b += other[i] * x[row][4 + i];
                }
                sum[row][2 * j] += a * first;
                sum[row][2 * j + 1] += b * second;
            }
        }
    }

#pragma unroll
    for (int row = 0; row < ROWS; row++) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float total = sum[row][i];
            total += __shfl_xor_sync(0xFFFFFFFFu, total, 1);
            total += __shfl_xor_sync(0xFFFFFFFFu, total, 2);
#pragma unroll
            for (int step = LANES; step < 32; step *= 2)
                total += __shfl_xor_sync(0xFFFFFFFFu, total, step);
            if (lane < LANES && pair == 0) partial[warp][row][(lane / 4) * 8 + i] = total;
        }
    }
    __syncthreads();
    for (int slot = threadIdx.x; slot < ROWS * OWN; slot += 32 * WARPS) {
        const int row = slot / OWN, i = slot % OWN;
        float total = 0;
#pragma unroll
        for (int other = 0; other < WARPS; other++) total += partial[other][row][i];
        const int own = (blockIdx.x % PARTS) * (LANES / 4) + i / 8;
        const int at = tile * 64 + 16 * ((i % 8) / 2) + 8 * (i % 2) + own;
        out[(size_t)row * columns + at] = narrow(total);
    }
}

// Each warp unpacks 16 inputs of 64 columns; out is (columns, inputs).
extern "C" __global__ void unpack(const uint4 *__restrict__ weight,
                                  const unsigned short *__restrict__ scales,
                                  unsigned *__restrict__ out,
                                  int inputs, int columns, int group_tiles) {
    const int lane = threadIdx.x % 32, pair = lane % 4, column = lane / 4;
    const int at = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, tile = blockIdx.y;
    if (at >= inputs / 16) return;
    const uint4 words = __ldg(weight + (size_t)at * (columns / 2) + tile * 32 + lane);
    const uint4 scale = __ldg((const uint4 *)(
        scales + (size_t)(at / group_tiles) * columns + tile * 64 + column * 8));
    const unsigned quad[4] = {words.x, words.y, words.z, words.w};
    const unsigned two[4] = {scale.x, scale.y, scale.z, scale.w};
#pragma unroll
    for (int j = 0; j < 4; j++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float by = wide(half ? two[j] >> 16 : two[j] & 0xFFFF);
            const unsigned bits = quad[j] >> (8 * half);
            unsigned *to = out + ((size_t)(tile * 64 + 16 * j + 8 * half + column) * inputs
                                  + at * 16) / 2 + pair;
#pragma unroll
            for (int row = 0; row < 2; row++) {  // inputs 2 * pair + 8 * row and the next
                const int first = (bits >> (4 * row)) & 0xF, second = (bits >> (4 * row + 16)) & 0xF;
                to[4 * row] = narrow((first - 8) * by) | (unsigned)narrow((second - 8) * by) << 16;
            }
        }
    }
}
