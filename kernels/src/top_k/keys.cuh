// What all searches for the best classes share: classes with scores as numbers that can be compared, exact scores, and
// classes that are excluded.

// A class with its score. Of two the better one is the larger number: the one with the higher score or, of equal scores,
// with the smaller id. Nothing is 0, which is less than all.
typedef u64 Key;

// A score that is not a number counts as minus infinity, and minus zero as zero.
__device__ __forceinline__ float comparable(float score) {
    return fmaxf(score, -INFINITY) + 0.0f;
}

// Of a score that is comparable.
__device__ __forceinline__ Key key_of(float score, u32 id) {
    u32 bits = __float_as_uint(score);
    u32 ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (Key)ordered << 32 | (u32)~id;
}

__device__ __forceinline__ float score_of(Key key) {
    u32 ordered = (u32)(key >> 32);
    return __uint_as_float(ordered & 0x80000000u ? ordered ^ 0x80000000u : ~ordered);
}

__device__ __forceinline__ u32 id_of(Key key) {
    return ~(u32)key;
}

__device__ __forceinline__ Key better_of(Key a, Key b) {
    return a > b ? a : b;
}

__device__ __forceinline__ Key worse_of(Key a, Key b) {
    return a > b ? b : a;
}

// The exact score of a class: x . w + b as a chain of fused multiply-adds over blocks of 256, which are added in order.
// The host has the same order, so the bits are the same.
#define DEPTH_BLOCK 256

__device__ __forceinline__ float exact_score(const float* x, const float* w, const float* bias, u32 d) {
    float total = 0.0f;
    for (u32 begin = 0; begin < d; begin += DEPTH_BLOCK) {
        float sum = 0.0f;
        for (u32 i = begin; i < min(begin + DEPTH_BLOCK, d); i++) sum = fmaf(x[i], w[i], sum);
        if (begin > 0) {
            total = sum + total;
        } else {
            total = bias ? sum + *bias : sum;
        }
    }
    return total;
}

// For every row the classes that are left out, sorted: those of row i are ids[offsets[i]] to ids[offsets[i + 1] - 1].
struct Excluded {
    const u32* offsets;
    const u32* ids;

    __device__ __forceinline__ bool holds(u32 row, u32 id) const {
        u32 begin = offsets[row], end = offsets[row + 1];
        while (begin < end) {
            u32 middle = begin + (end - begin) / 2;
            if (ids[middle] < id) {
                begin = middle + 1;
            } else {
                end = middle;
            }
        }
        return begin < offsets[row + 1] && ids[begin] == id;
    }
};

// Sorts the keys of a warp, 32 N of them with N a power of two, best
// first: key i is keys[i / 32] of lane i % 32. A bitonic network.
template <u32 N>
__device__ __forceinline__ void sort_keys(Key (&keys)[N]) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (u32 size = 2; size <= 32 * N; size *= 2) {
#pragma unroll
        for (u32 stride = size / 2; stride > 0; stride /= 2) {
#pragma unroll
            for (u32 i = 0; i < N; i++) {
                bool falling = ((32 * i + lane) & size) == 0;
                if (stride < 32) {
                    Key other = __shfl_xor_sync(0xffffffffu, keys[i], stride);
                    bool first = (lane & stride) == 0;
                    keys[i] = first == falling ? better_of(keys[i], other) : worse_of(keys[i], other);
                } else if ((32 * i & stride) == 0) {
                    u32 other = i + stride / 32;
                    Key a = better_of(keys[i], keys[other]), b = worse_of(keys[i], keys[other]);
                    keys[i] = falling ? a : b;
                    keys[other] = falling ? b : a;
                }
            }
        }
    }
}

// Keys that a row has collected, the best `kept` of them first and known to be allowed, and the score that others must
// beat, which is as it was at first while there are fewer than are wanted.
struct Collected {
    Key* keys;
    u32* count;
    u32* kept;
    float* bar;
};

// Sorts what a row has collected, leaves out what is excluded or not below `bound`, and keeps the best `wanted`. By a whole
// warp; N times 32 are at least as many as there can be.
template <u32 N>
__device__ __forceinline__ void keep_best(
    const Collected& row, u32 number, u32 capacity, u32 wanted, Key bound, const Excluded& excluded)
{
    u32 lane = threadIdx.x % 32, count = min(*row.count, capacity), kept = *row.kept;
    Key keys[N];
    u32 left = 0;
#pragma unroll
    for (u32 i = 0; i < N; i++) {
        u32 at = 32 * i + lane;
        keys[i] = at < count ? row.keys[at] : 0;
        bool is_new = at >= kept && at < count;
        if (is_new && (keys[i] >= bound || excluded.holds(number, id_of(keys[i])))) keys[i] = 0;
        left += __popc(__ballot_sync(0xffffffffu, keys[i] > 0));
    }
    sort_keys(keys);
    left = min(left, wanted);
#pragma unroll
    for (u32 i = 0; i < N; i++) {
        u32 at = 32 * i + lane;
        if (at < left) row.keys[at] = keys[i];
        if (at + 1 == wanted && left == wanted) *row.bar = score_of(keys[i]);
    }
    if (lane == 0) {
        *row.count = left;
        *row.kept = left;
    }
    __syncwarp();
}
