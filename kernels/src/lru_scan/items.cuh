// What the list of work says, which `plan.rs` writes, and the table of coefficients.

// Some rows that one block works on in their order: whole sequences, or a chunk of a long one.
struct Item {
    u32 first, rows;
    // Where its states are kept: those at its begin, and those at every further tile in the next slots.
    u32 slot;
    // Whether it begins in the midst of a sequence, and how many items of its sequence are behind it.
    bool goes_on;
    u32 behind;
};

__device__ __forceinline__ u32 count_of(const uint4* work) {
    return work[0].x;
}

__device__ __forceinline__ Item item_at(const uint4* work, u32 number) {
    uint4 words = work[1 + number];
    return Item{words.x, words.y, words.z, (words.w & 1) != 0, words.w >> 1};
}

// Whether a sequence begins at a row, for 32 rows: the first in the lowest bit. The row behind the last one counts as a
// begin, and the marks go on for some words behind that.
__device__ __forceinline__ u32 starts_at(const u32* starts, u32 row) {
    u64 words = (u64)starts[row / 32 + 1] << 32 | starts[row / 32];
    return (u32)(words >> row % 32);
}

// Rows of the table: [13, state]. Of powers of λ, the real part; the imaginary one is in the next row.
#define LAMBDA 0
#define GAMMA 2
#define POWER_8 3
#define POWER_16 5
#define POWER_24 7
#define POWER_32 9
#define POWER_CHUNK 11
