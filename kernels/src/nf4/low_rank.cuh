// A low-rank update that is summed with a product before it is written: scale * left * right. Without one the rank is 0.

struct LowRank {
    const float* __restrict__ left;   // [n, rank]
    const float* __restrict__ right;  // [outputs, rank] in the forward, [rank, outputs] in the backward
    float scale;
    u32 rank;
};

// Four neighbouring terms of a row that has as many as the rank; those behind its end are zero.
__device__ __forceinline__ float4 four_terms(const float* __restrict__ row, u32 first, u32 rank) {
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (rank % 4 == 0) {
        if (first < rank) v = *reinterpret_cast<const float4*>(row + first);
        return v;
    }
    if (first < rank) v.x = row[first];
    if (first + 1 < rank) v.y = row[first + 1];
    if (first + 2 < rank) v.z = row[first + 2];
    if (first + 3 < rank) v.w = row[first + 3];
    return v;
}
