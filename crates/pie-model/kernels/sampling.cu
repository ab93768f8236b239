// The most likely token of rows of logits that lie in parts by rank.

#include "../../pie-kv/kernels/device.cuh"

namespace pie {

constexpr uint32_t NO_TOKEN = 0xffffffffu;
// Loads of 16 bytes that each thread has in flight.
constexpr int LOADS = 4;

// The greatest of some logits, its token, and the sum of e^(logit - greatest).
struct Likely {
    float most = -INFINITY, sum = 0.0f;
    uint32_t token = NO_TOKEN;

    // e^(x - most); 0 if both are -infinity.
    PIE_DEVICE static float weight(float x, float most) {
        return power_of_two((x - (most == -INFINITY ? 0.0f : most)) * 1.44269504f);
    }

    // Tokens from `first` on, which are behind all that were added. A NaN is never the greatest, but its sum tells of it.
    template <int N>
    PIE_DEVICE void add(const float (&logits)[N], uint32_t first) {
        const float before = most;
#pragma unroll
        for (int i = 0; i < N; i++) {
            const bool better = logits[i] > most || (token == NO_TOKEN && logits[i] == logits[i]);
            most = better ? logits[i] : most;
            token = better ? first + i : token;
        }
        sum *= weight(before, most);
#pragma unroll
        for (int i = 0; i < N; i++) sum += weight(logits[i], most);
    }

    PIE_DEVICE void join(float other_most, float other_sum, uint32_t other_token) {
        const float greatest = fmaxf(most, other_most);
        sum = sum * weight(most, greatest) + other_sum * weight(other_most, greatest);
        // NO_TOKEN, as a number, comes last.
        if (other_most > most || (other_most == most && other_token < token)) token = other_token;
        most = greatest;
    }

    PIE_DEVICE void join_warp() {
#pragma unroll
        for (int lanes = 16; lanes > 0; lanes /= 2) {
            join(__shfl_xor_sync(0xffffffffu, most, lanes), __shfl_xor_sync(0xffffffffu, sum, lanes),
                 __shfl_xor_sync(0xffffffffu, token, lanes));
        }
    }
};

// The thread's share of a rank's logits.
PIE_DEVICE void add_share(Likely& likely, const float* logits, uint32_t count, bool wide, uint32_t first) {
    const uint32_t fours = wide ? count / 4 : 0;
    for (uint32_t i = threadIdx.x; i < fours; i += LOADS * blockDim.x) {
        float4 read[LOADS];
#pragma unroll
        for (int k = 0; k < LOADS; k++) {
            const uint32_t four = i + k * blockDim.x;
            if (four < fours) read[k] = __ldg(reinterpret_cast<const float4*>(logits) + four);
        }
#pragma unroll
        for (int k = 0; k < LOADS; k++) {
            const uint32_t four = i + k * blockDim.x;
            const float numbers[4] = {read[k].x, read[k].y, read[k].z, read[k].w};
            if (four < fours) likely.add(numbers, first + 4 * four);
        }
    }
    for (uint32_t i = 4 * fours + threadIdx.x; i < count; i += blockDim.x) {
        const float one[1] = {__ldg(logits + i)};
        likely.add(one, first + i);
    }
}

}  // namespace pie

// greedy: the first of the greatest of each row, and its log probability.
//   logits [rank][rows][part] f32, of which the first `vocabulary` of a row, over all ranks, count
//   grid rows, block 1024, 384 shared bytes
PIE_KERNEL_OF(1024, 1, greedy, const float* logits, uint32_t ranks, uint32_t rows, uint32_t part, uint32_t vocabulary,
              uint32_t* token, float* logprob) {
    PIE_SHARED(shared);
    float* mosts = reinterpret_cast<float*>(shared);
    float* sums = mosts + 32;
    uint32_t* tokens = reinterpret_cast<uint32_t*>(sums + 32);
    pie::Likely likely;
    for (uint32_t rank = 0; rank < ranks && rank * part < vocabulary; rank++) {
        const float* from = logits + (uint64_t(rank) * rows + blockIdx.x) * part;
        pie::add_share(likely, from, min(part, vocabulary - rank * part), part % 4 == 0, rank * part);
    }
    likely.join_warp();
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) {
        mosts[warp] = likely.most;
        sums[warp] = likely.sum;
        tokens[warp] = likely.token;
    }
    __syncthreads();
    if (warp > 0) return;
    likely = pie::Likely();
    if (lane < blockDim.x / 32) likely.join(mosts[lane], sums[lane], tokens[lane]);
    likely.join_warp();
    if (lane > 0) return;
    token[blockIdx.x] = likely.token;
    // The token's own weight is 1. If its logit is infinite, there are no probabilities: NaN.
    logprob[blockIdx.x] = (likely.most - likely.most) - logf(likely.sum);
}
