// What CUDA C++ and the prelude offer to kernels, for the host's C++ compiler. Only what kernels here may use: no atomics
// on floats, whose sums depend on the order of threads.

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define __shared__ static_assert(false, "shared memory is declared with SHARED_ARRAY or SHARED_MEMORY");

#define threadIdx (static_cast<const emulator::Index&>(emulator::fiber->thread))
#define blockIdx (static_cast<const emulator::Index&>(emulator::machine->block))
#define blockDim (emulator::index_of(emulator::machine->launch->block))
#define gridDim (emulator::index_of(emulator::machine->launch->grid))
constexpr int warpSize = 32;

#define __syncthreads() emulator::sync_block(__LINE__)

#define SHARED_ARRAY(type, name, ...)                                 \
    static char name##_site;                                          \
    type(&name) __VA_ARGS__ = *reinterpret_cast<type(*) __VA_ARGS__>( \
        emulator::shared_array(&name##_site, sizeof(type __VA_ARGS__)))
#define SHARED_MEMORY(type, name) type* const name = reinterpret_cast<type*>(emulator::machine->shared.arrays[0].begin)

// ---- Vectors ----

#define MLLM4REC_VECTORS(T, name)                                                                                   \
    struct alignas(2 * sizeof(T)) name##2 {                                                                         \
        T x, y;                                                                                                     \
    };                                                                                                              \
    struct name##3 {                                                                                                \
        T x, y, z;                                                                                                  \
    };                                                                                                              \
    struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 {                                               \
        T x, y, z, w;                                                                                               \
    };                                                                                                              \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                      \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                              \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
MLLM4REC_VECTORS(float, float)
MLLM4REC_VECTORS(int, int)
MLLM4REC_VECTORS(unsigned, uint)
MLLM4REC_VECTORS(unsigned short, ushort)
MLLM4REC_VECTORS(unsigned char, uchar)
#undef MLLM4REC_VECTORS

namespace emulator {

inline Index index_of(const unsigned (&extents)[3]) {
    return {extents[0], extents[1], extents[2]};
}

inline void* shared_array(const void* site, size_t bytes) {
    uint8_t* begin = machine->shared.array(site, bytes);
    if (!begin) fail("declares more shared memory than the %zu bytes of arrays, or %zu bytes in all, of a block",
                     Shared::most_static_bytes, Shared::most_bytes);
    return begin;
}

template <typename To, typename From>
inline To bits_as(From v) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &v, sizeof to);
    return to;
}

// ---- Warps ----

struct Shuffled {
    uint64_t bits, result;
    unsigned source;
};

// Moves values between lanes; what a lane outside of the mask would give is poison.
template <typename T>
T shuffle(unsigned mask, const char* operation, T value, unsigned source) {
    static_assert(std::is_arithmetic<T>::value && (sizeof(T) == 4 || sizeof(T) == 8));
    Shuffled mine = {0, ~0ull, source};
    memcpy(&mine.bits, &value, sizeof value);
    collective<Shuffled>(mask, operation, mine, [](Shuffled* const(&lanes)[32], unsigned mask) {
        for (unsigned i = 0; i < 32; i++) {
            if (mask >> i & 1 && mask >> lanes[i]->source & 1) lanes[i]->result = lanes[lanes[i]->source]->bits;
        }
    });
    memcpy(&value, &mine.result, sizeof value);
    return value;
}

struct Vote {
    bool mine;
    unsigned all;
};

inline unsigned ballot(unsigned mask, const char* operation, bool mine) {
    Vote vote = {mine, 0};
    collective<Vote>(mask, operation, vote, [](Vote* const(&lanes)[32], unsigned mask) {
        unsigned all = 0;
        for (unsigned i = 0; i < 32; i++) {
            if (mask >> i & 1 && lanes[i]->mine) all |= 1u << i;
        }
        for (unsigned i = 0; i < 32; i++) {
            if (mask >> i & 1) lanes[i]->all = all;
        }
    });
    return vote.all;
}

}  // namespace emulator

template <typename T>
inline T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
    unsigned lane = emulator::fiber->lane();
    return emulator::shuffle(mask, "__shfl_sync", v, (lane & ~(width - 1)) | (source & (width - 1)));
}

template <typename T>
inline T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
    unsigned lane = emulator::fiber->lane();
    return emulator::shuffle(mask, "__shfl_up_sync", v, lane % width >= delta ? lane - delta : lane);
}

template <typename T>
inline T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
    unsigned lane = emulator::fiber->lane();
    return emulator::shuffle(mask, "__shfl_down_sync", v, lane % width + delta < (unsigned)width ? lane + delta : lane);
}

template <typename T>
inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
    unsigned lane = emulator::fiber->lane(), source = lane ^ bits;
    return emulator::shuffle(mask, "__shfl_xor_sync", v, source <= (lane | (width - 1)) ? source : lane);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
    return emulator::ballot(mask, "__ballot_sync", predicate);
}
inline int __any_sync(unsigned mask, int predicate) {
    return emulator::ballot(mask, "__any_sync", predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
    return emulator::ballot(mask, "__all_sync", predicate) == mask;
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emulator::ballot(mask, "__syncwarp", false);
}

// ---- Memory ----

#define MLLM4REC_ATOMICS(T)                                                                                  \
    inline T atomicAdd(T* place, T v) { return std::exchange(*place, *place + v); }                          \
    inline T atomicMin(T* place, T v) { return std::exchange(*place, std::min(*place, v)); }                 \
    inline T atomicMax(T* place, T v) { return std::exchange(*place, std::max(*place, v)); }                 \
    inline T atomicAnd(T* place, T v) { return std::exchange(*place, *place & v); }                          \
    inline T atomicOr(T* place, T v) { return std::exchange(*place, *place | v); }                           \
    inline T atomicExch(T* place, T v) { return std::exchange(*place, v); }                                  \
    inline T atomicCAS(T* place, T old, T v) { return std::exchange(*place, *place == old ? v : *place); }
MLLM4REC_ATOMICS(int)
MLLM4REC_ATOMICS(unsigned)
MLLM4REC_ATOMICS(unsigned long long)
#undef MLLM4REC_ATOMICS

inline void __threadfence() {}
inline void __threadfence_block() {}
template <typename T>
inline T __ldg(const T* place) {
    return *place;
}
[[noreturn]] inline void __trap() {
    emulator::fail("gave up by __trap");
}

// ---- Numbers ----

inline float __uint_as_float(unsigned v) { return emulator::bits_as<float>(v); }
inline float __int_as_float(int v) { return emulator::bits_as<float>(v); }
inline unsigned __float_as_uint(float v) { return emulator::bits_as<unsigned>(v); }
inline int __float_as_int(float v) { return emulator::bits_as<int>(v); }
inline double __longlong_as_double(long long v) { return emulator::bits_as<double>(v); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __frcp_rn(float v) { return 1.0f / v; }
inline float __fsqrt_rn(float v) { return sqrtf(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
inline int __float2int_rn(float v) { return (int)rintf(v); }
// The host's library keeps these names to itself.
#define __expf expf
#define __logf logf
#define __log2f log2f
#define __powf powf
#define __sinf sinf
#define __cosf cosf

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll(v) : 64; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }

#define MLLM4REC_EXTREMES(T)                           \
    inline T min(T a, T b) { return b < a ? b : a; }   \
    inline T max(T a, T b) { return a < b ? b : a; }
MLLM4REC_EXTREMES(int)
MLLM4REC_EXTREMES(unsigned)
MLLM4REC_EXTREMES(long long)
MLLM4REC_EXTREMES(unsigned long long)
#undef MLLM4REC_EXTREMES
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

namespace emulator {

// To the nearest, of two equally near ones to the even one; NaN as a card writes it.
inline unsigned bf16_bits(float v) {
    unsigned bits = bits_as<unsigned>(v);
    return std::isnan(v) ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline unsigned f16_bits(float v) {
    unsigned bits = bits_as<unsigned>(fabsf(v)), sign = std::signbit(v) ? 0x8000 : 0;
    if (std::isnan(v)) return 0x7fff;
    if (fabsf(v) >= 65520.0f) return sign | 0x7c00;
    if (fabsf(v) < 0x1p-14f) return sign | unsigned(rintf(fabsf(v) * 0x1p24f));
    return sign | ((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10);
}

}  // namespace emulator

inline float exp2_approx(float v) {
    return exp2f(v);
}
inline unsigned bf16_pair(float low, float high) {
    return emulator::bf16_bits(low) | emulator::bf16_bits(high) << 16;
}
inline unsigned f16_pair(float low, float high) {
    return emulator::f16_bits(low) | emulator::f16_bits(high) << 16;
}

// ---- Tensor cores, after the PTX ISA's pictures of fragments ----

namespace emulator {

// Element 0 or 1 of a register that holds two of 16 bits; the earlier lies in the lower half.
inline uint16_t half_of(unsigned pair, unsigned index) {
    return uint16_t(pair >> 16 * index);
}

inline double bf16_value(uint16_t bits) {
    return bits_as<float>(uint32_t(bits) << 16);
}

inline double f16_value(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                                 : ldexp(exponent ? 1024 + fraction : fraction, (exponent ? exponent : 1) - 25);
    return bits >> 15 ? -size : size;
}

template <double (*Value)(uint16_t)>
struct Product {
    float (&d)[4];
    const unsigned (&a)[4];
    const unsigned (&b)[2];

    // Element (row, column) of the 16x16 matrix a.
    static double a_at(Product* const (&lanes)[32], unsigned row, unsigned column) {
        unsigned lane = row % 8 * 4 + column % 8 / 2;
        return Value(half_of(lanes[lane]->a[row / 8 + column / 8 * 2], column % 2));
    }

    // Element (row, column) of the 16x8 matrix b.
    static double b_at(Product* const (&lanes)[32], unsigned row, unsigned column) {
        unsigned lane = column * 4 + row % 8 / 2;
        return Value(half_of(lanes[lane]->b[row / 8], row % 2));
    }

    // Element (row, column) of the 16x8 matrix d.
    static float& d_at(Product* const (&lanes)[32], unsigned row, unsigned column) {
        return lanes[row % 8 * 4 + column / 2]->d[row / 8 * 2 + column % 2];
    }

    // Sums exactly enough and rounds once.
    static void run(Product* const (&lanes)[32], unsigned) {
        double a[16][16], b[16][8];
        for (unsigned i = 0; i < 16; i++) {
            for (unsigned k = 0; k < 16; k++) a[i][k] = a_at(lanes, i, k);
            for (unsigned j = 0; j < 8; j++) b[i][j] = b_at(lanes, i, j);
        }
        for (unsigned i = 0; i < 16; i++) {
            for (unsigned j = 0; j < 8; j++) {
                double sum = d_at(lanes, i, j);
                for (unsigned k = 0; k < 16; k++) sum += a[i][k] * b[k][j];
                d_at(lanes, i, j) = float(sum);
            }
        }
    }
};

template <double (*Value)(uint16_t)>
void multiply(const char* operation, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    Product<Value> mine = {d, a, b};
    collective<Product<Value>>(0xffffffffu, operation, mine, Product<Value>::run);
}

template <unsigned Count, bool Transposed>
struct Load {
    unsigned (&r)[Count];
    const void* shared;

    static uint16_t at(Load* const (&lanes)[32], unsigned matrix, unsigned row, unsigned column) {
        uint16_t bits;
        memcpy(&bits, static_cast<const uint8_t*>(lanes[8 * matrix + row]->shared) + 2 * column, sizeof bits);
        return bits;
    }

    static void run(Load* const (&lanes)[32], unsigned) {
        for (unsigned lane = 0; lane < 32; lane++) {
            unsigned g = lane / 4, t = lane % 4;
            for (unsigned i = 0; i < Count; i++) {
                unsigned low = Transposed ? at(lanes, i, 2 * t, g) : at(lanes, i, g, 2 * t);
                unsigned high = Transposed ? at(lanes, i, 2 * t + 1, g) : at(lanes, i, g, 2 * t + 1);
                lanes[lane]->r[i] = low | high << 16;
            }
        }
    }
};

inline void check_shared(const char* operation, const void* shared) {
    if (!machine->shared.holds(shared, 16)) fail("gives %s a place outside of shared memory", operation);
    if (reinterpret_cast<uintptr_t>(shared) % 16) fail("gives %s a place not aligned to 16 bytes", operation);
}

template <unsigned Count, bool Transposed>
void ldmatrix(const char* operation, unsigned (&r)[Count], const void* shared) {
    if (fiber->lane() < 8 * Count) check_shared(operation, shared);
    Load<Count, Transposed> mine = {r, shared};
    collective<Load<Count, Transposed>>(0xffffffffu, operation, mine, Load<Count, Transposed>::run);
}

}  // namespace emulator

inline void mma_bf16_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::multiply<emulator::bf16_value>("mma_bf16_16x8x16", d, a, b);
}
inline void mma_f16_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulator::multiply<emulator::f16_value>("mma_f16_16x8x16", d, a, b);
}
inline float f16_value(unsigned short bits) {
    return (float)emulator::f16_value(bits);
}
inline float2 f16_values(unsigned pair) {
    return {(float)emulator::f16_value(pair & 0xffff), (float)emulator::f16_value(pair >> 16)};
}

inline void ldmatrix_x4(unsigned (&r)[4], const void* shared) {
    emulator::ldmatrix<4, false>("ldmatrix_x4", r, shared);
}
inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* shared) {
    emulator::ldmatrix<4, true>("ldmatrix_x4_trans", r, shared);
}
inline void ldmatrix_x2(unsigned (&r)[2], const void* shared) {
    emulator::ldmatrix<2, false>("ldmatrix_x2", r, shared);
}

// ---- Copies to shared memory: nothing arrives before it is waited for, and what was there is lost at once ----

inline void cp_async_16_zfill(void* shared, const void* global, unsigned bytes) {
    emulator::check_shared("cp_async_16", shared);
    if (bytes > 16) emulator::fail("asks cp_async_16_zfill for %u bytes of 16", bytes);
    if (reinterpret_cast<uintptr_t>(global) % 16) emulator::fail("gives cp_async_16 a source not aligned to 16 bytes");
    memset(shared, emulator::poison, 16);
    emulator::fiber->copies.push_back({shared, global, bytes});
}

inline void cp_async_16(void* shared, const void* global) {
    cp_async_16_zfill(shared, global, 16);
}

inline void cp_async_commit() {
    emulator::Fiber& fiber = *emulator::fiber;
    fiber.groups.push_back(fiber.copies.size() - fiber.committed);
    fiber.committed = fiber.copies.size();
}

template <int N>
inline void cp_async_wait() {
    emulator::Fiber& fiber = *emulator::fiber;
    while (fiber.groups.size() > N) {
        size_t count = fiber.groups.front();
        for (size_t i = 0; i < count; i++) {
            const emulator::Copy& copy = fiber.copies[i];
            memset(copy.to, 0, 16);
            memcpy(copy.to, copy.from, copy.bytes);
        }
        fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + count);
        fiber.groups.erase(fiber.groups.begin());
        fiber.committed -= count;
    }
}
