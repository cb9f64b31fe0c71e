// What every kernel begins with. No header of CUDA is included: NVRTC needs no include path then, and the emulator puts
// its own primitives in the place of those behind MLLM4REC_EMULATED.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef MLLM4REC_EMULATED

#define INFINITY __int_as_float(0x7f800000)

// An array of constant extents that the threads of a block share: SHARED_ARRAY(float, tile, [32][33]);
#define SHARED_ARRAY(type, name, ...) __shared__ __align__(16) type name __VA_ARGS__

// The shared memory that the launch asks for, as a pointer: SHARED_MEMORY(float, partial);
#define SHARED_MEMORY(type, name)                               \
    extern __shared__ __align__(128) u8 shared_memory_bytes[]; \
    type* const name = reinterpret_cast<type*>(shared_memory_bytes)

__device__ __forceinline__ u32 shared_address(const void* shared) {
    return (u32)__cvta_generic_to_shared(shared);
}

// d += a * b on the tensor cores, by a whole warp: a is 16x16, b is 16x8, d is 16x8. With g = lane / 4 and
// t = lane % 4, and the earlier element in the lower half of a register, a lane holds
//   a: rows g, g + 8, g, g + 8 at columns 2t and 2t + 1, for the last two at columns 2t + 8 and 2t + 9
//   b: column g at rows 2t and 2t + 1, then 2t + 8 and 2t + 9
//   d: row g at columns 2t and 2t + 1, then row g + 8 at the same
__device__ __forceinline__ void mma_bf16_16x8x16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same of half-precision numbers.
__device__ __forceinline__ void mma_f16_16x8x16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Loads four 8x8 matrices of 16-bit elements from shared memory, by a whole warp: lane 8 i + j points at row j of
// matrix i, aligned to 16 bytes. With g = lane / 4 and t = lane % 4, register i gets row g at columns 2t and 2t + 1.
__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], const void* shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(shared))
                 : "memory");
}

// The same of the transposed matrices: register i gets rows 2t and 2t + 1 at column g.
__device__ __forceinline__ void ldmatrix_x4_trans(u32 (&r)[4], const void* shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(shared))
                 : "memory");
}

// Two matrices, at which lanes 0 to 15 point; what the others point at does not matter.
__device__ __forceinline__ void ldmatrix_x2(u32 (&r)[2], const void* shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(shared))
                 : "memory");
}

// Begins to copy 16 bytes to shared memory, both ends aligned to 16. They are there for the thread that asked once
// cp_async_wait returns, for others after a barrier behind that.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}

// The same of the first `bytes` of the 16; the rest becomes zeros. For 0 bytes the source is not read.
__device__ __forceinline__ void cp_async_16_zfill(void* shared, const void* global, u32 bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
}

// Makes one group of the thread's copies since the last commit.
__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until no more than the last N groups of the thread are under way.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// 2 to the power of v in one instruction, to about the last two bits; 0 below 2^-126.
__device__ __forceinline__ float exp2_approx(float v) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(v));
    return power;
}

// Two values rounded to 16 bits, to the nearest and of two equally near ones to the even one; the earlier in the lower
// half. Of NaN only that it is one is kept.
__device__ __forceinline__ u32 bf16_pair(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ u32 f16_pair(float low, float high) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// The values of a pair of half precision.
__device__ __forceinline__ float2 f16_values(u32 pair) {
    float2 values;
    asm("{ .reg .b16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high; }"
        : "=f"(values.x), "=f"(values.y)
        : "r"(pair));
    return values;
}

// The value of half precision that has these bits.
__device__ __forceinline__ float f16_value(u16 bits) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}

#endif

// A value of bfloat16, by its bits.
struct bf16 {
    u16 bits;
};

__device__ __forceinline__ float to_float(bf16 v) {
    return __uint_as_float((u32)v.bits << 16);
}

// To the nearest, of two equally near ones to the even one; NaN stays NaN.
__device__ __forceinline__ bf16 to_bf16(float v) {
    u32 bits = __float_as_uint(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return bf16{(u16)((bits >> 16) | 0x40u)};
    }
    return bf16{(u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// The sum over the lanes of a warp, the same in every lane and in the same order.
__device__ __forceinline__ float warp_sum(float v) {
    for (int offset = 16; offset > 0; offset >>= 1) {
        v += __shfl_xor_sync(0xffffffffu, v, offset);
    }
    return v;
}

__device__ __forceinline__ float warp_max(float v) {
    for (int offset = 16; offset > 0; offset >>= 1) {
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, offset));
    }
    return v;
}

// Four neighbours of an array, which a thread reads or writes at once.
template <typename T>
struct alignas(4 * sizeof(T)) Four {
    T at[4];
};

// The first of the four elements of a thread, where `Geometry::fours` cuts an array.
__device__ __forceinline__ u64 first_of_four() {
    return 4 * ((u64)blockIdx.x * blockDim.x + threadIdx.x);
}

// Elements i to i + 3 of an array of n, zeros behind its end. The array is aligned as a Four is, and i a multiple of four.
template <typename T>
__device__ __forceinline__ Four<T> read4(const T* x, u64 i, u64 n) {
    Four<T> v = {};
    if (i + 4 <= n) {
        v = *reinterpret_cast<const Four<T>*>(x + i);
    } else {
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            if (i + k < n) v.at[k] = x[i + k];
        }
    }
    return v;
}

// Writes those of the four that the array has.
template <typename T>
__device__ __forceinline__ void write4(T* x, u64 i, u64 n, const Four<T>& v) {
    if (i + 4 <= n) {
        *reinterpret_cast<Four<T>*>(x + i) = v;
    } else {
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            if (i + k < n) x[i + k] = v.at[k];
        }
    }
}

// Elements i to i + 3 as floats, of an array of floats or of bfloat16.
__device__ __forceinline__ Four<float> read4_float(const float* x, u64 i, u64 n) {
    return read4(x, i, n);
}

__device__ __forceinline__ Four<float> read4_float(const bf16* x, u64 i, u64 n) {
    Four<bf16> narrow = read4(x, i, n);
    Four<float> wide;
#pragma unroll
    for (u32 k = 0; k < 4; k++) wide.at[k] = to_float(narrow.at[k]);
    return wide;
}

// Writes floats as what the array holds: as they are, or rounded.
__device__ __forceinline__ void write4_float(float* x, u64 i, u64 n, const Four<float>& v) {
    write4(x, i, n, v);
}

__device__ __forceinline__ void write4_float(bf16* x, u64 i, u64 n, const Four<float>& v) {
    Four<bf16> narrow;
#pragma unroll
    for (u32 k = 0; k < 4; k++) narrow.at[k] = to_bf16(v.at[k]);
    write4(x, i, n, narrow);
}

// Where a chunk belongs that a block works on, if the chunks of several tensors are counted through: the last of the parts
// whose `first` is not behind it. There is one, and parts without chunks lie where the next begins.
template <typename Part>
__device__ __forceinline__ const Part& part_of(const Part* parts, u32 count, u32 chunk) {
    u32 low = 0, high = count;
    while (high - low > 1) {
        u32 middle = (low + high) / 2;
        if (parts[middle].first <= chunk) low = middle;
        else high = middle;
    }
    return parts[low];
}

// The same number, of which the compiler knows nothing: what follows from it is computed where it is asked for, and
// takes no registers across the loop around that.
__device__ __forceinline__ u32 opaque(u32 v) {
    asm volatile("" : "+r"(v));
    return v;
}
