#![allow(clippy::unwrap_used)]
use half::{bf16, f16};

use super::signature::signatures;
use super::*;
use crate::testing::noise;

/// Launches the kernel `name` of a text.
fn launch(
    emulator: &Emulator,
    name: &'static str,
    text: &'static str,
    geometry: Geometry,
    arguments: &[Arg],
) -> Result<()> {
    // SAFETY: the tests give kernels the arguments that they take, and the emulator says if they do not.
    unsafe { emulator.launch(&Source { name, text }, name, geometry, arguments) }
}

/// One block of so many threads.
fn block(threads: u32) -> Geometry {
    Geometry::blocks(1, threads)
}

fn upload<const N: usize, T: Copy>(emulator: &Emulator, values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Address {
    let bytes: Vec<u8> = values.iter().flat_map(|&v| bytes(v)).collect();
    let address = emulator.allocate(bytes.len()).unwrap();
    emulator.write(address, &bytes).unwrap();
    address
}

fn floats(emulator: &Emulator, values: &[f32]) -> Address {
    upload(emulator, values, f32::to_ne_bytes)
}

fn words(emulator: &Emulator, address: Address, n: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * n];
    emulator.read(address, &mut bytes).unwrap();
    bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect()
}

fn read(emulator: &Emulator, address: Address, n: usize) -> Vec<f32> {
    words(emulator, address, n).into_iter().map(f32::from_bits).collect()
}

/// Asserts that something failed, and that the message has these parts.
fn refuses(result: Result<()>, parts: &[&str]) {
    let message = result.expect_err("the launch is refused").to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

const COUNT: &str = r#"
extern "C" __global__ void count(u32* __restrict__ counters) { counters[threadIdx.x] += 1; }
"#;

const ADD: &str = r#"
// A comment with an extern "C" __global__ void decoy(
extern "C" __global__ void __launch_bounds__(256) add(
    const float* __restrict__ a,
    const float* __restrict__ b, /* one */
    float* __restrict__ sum,
    u32 n,
    float scale)
{
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) sum[i] = scale * (a[i] + b[i]);
}"#;

#[test]
fn adds_vectors() {
    let emulator = Emulator::new();
    for n in [1, 255, 1000] {
        let (a, b) = (noise(1, n), noise(2, n));
        let sum = emulator.allocate(4 * n).unwrap();
        let arguments = [floats(&emulator, &a), floats(&emulator, &b), sum].map(Arg::Address);
        let arguments = [&arguments[..], &[Arg::U32(n as u32), Arg::F32(2.0)]].concat();
        let geometry = Geometry { grid: [n.div_ceil(256) as u32, 1, 1], ..block(256) };
        launch(&emulator, "add", ADD, geometry, &arguments).unwrap();
        let wanted: Vec<f32> = a.iter().zip(&b).map(|(a, b)| 2.0 * (a + b)).collect();
        assert_eq!(read(&emulator, sum, n), wanted);
    }
}

/// Sums 256 values by halves; the barrier between the halves is `BARRIER`.
macro_rules! reduction {
    ($barrier:literal) => {
        concat!(
            r#"
extern "C" __global__ void reduce(
    const float* x,
    float* sums)
{
    SHARED_MEMORY(float, partial);
    partial[threadIdx.x] = x[256 * blockIdx.x + threadIdx.x];
    __syncthreads();
    for (u32 half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
        "#,
            $barrier,
            r#"
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}"#
        )
    };
}

fn reduce(seed: u64, text: &'static str) -> Result<()> {
    let emulator = Emulator::new().seeded(seed);
    let x: Vec<f32> = (0..3 * 256).map(|i| (i % 61) as f32).collect();
    let sums = emulator.allocate(12).unwrap();
    let geometry = Geometry::blocks(3, 256).with_shared(1024);
    launch(&emulator, "reduce", text, geometry, &[Arg::Address(floats(&emulator, &x)), Arg::Address(sums)])?;
    let wanted: Vec<f32> = x.chunks(256).map(|chunk| chunk.iter().sum()).collect();
    assert_eq!(read(&emulator, sums, 3), wanted);
    Ok(())
}

#[test]
fn reduces_a_block() {
    for seed in 0..5 {
        reduce(seed, reduction!("__syncthreads();")).unwrap();
    }
}

#[test]
fn a_missing_barrier_shows_whatever_the_seed() {
    for seed in 0..20 {
        refuses(reduce(seed, reduction!("")), &["reduce", "depends on the order of threads", "of 12 bytes"]);
    }
}

/// Asserts that a kernel of 64 threads that writes 64 floats is found to depend on their order, whatever the seed.
fn depends_on_order(name: &'static str, text: &'static str) {
    for seed in 0..10 {
        let emulator = Emulator::new().seeded(seed);
        let y = emulator.allocate(256).unwrap();
        refuses(launch(&emulator, name, text, block(64), &[Arg::Address(y)]), &["depends on the order"]);
    }
}

#[test]
fn a_missing_barrier_between_warps_shows_behind_shuffles() {
    let text = r#"
extern "C" __global__ void sums(float* y)
{
    SHARED_ARRAY(float, partial, [2]);
    float sum = warp_sum(threadIdx.x);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    y[threadIdx.x] = warp_sum(threadIdx.x % 32 < 2 ? partial[threadIdx.x % 32] : 0.0f);
}"#;
    depends_on_order("sums", text);
}

#[test]
fn a_missing_barrier_before_the_next_write_shows() {
    let text = r#"
extern "C" __global__ void ahead(float* y)
{
    SHARED_ARRAY(float, stage, [64]);
    float sum = 0.0f;
    for (u32 i = 0; i < 2; i++) {
        stage[threadIdx.x] = threadIdx.x + 100.0f * i;
        __syncthreads();
        sum += stage[63 - threadIdx.x];
    }
    y[threadIdx.x] = sum;
}"#;
    depends_on_order("ahead", text);
}

#[test]
fn lanes_are_not_in_step() {
    let text = r#"
extern "C" __global__ void neighbours(float* y)
{
    SHARED_ARRAY(float, stage, [64]);
    stage[threadIdx.x] = threadIdx.x;
    y[threadIdx.x] = stage[threadIdx.x ^ 1];
}"#;
    depends_on_order("neighbours", text);
}

#[test]
fn the_order_of_blocks_does_not_go_unnoticed() {
    let text = r#"
extern "C" __global__ void places(u32* count, u32* y)
{
    y[blockIdx.x] = atomicAdd(count, 1u);
}"#;
    let emulator = Emulator::new();
    let (count, y) = (emulator.allocate(4).unwrap(), emulator.allocate(20).unwrap());
    let geometry = Geometry { grid: [5, 1, 1], ..block(1) };
    let places = |emulator: &Emulator| {
        emulator.fill(count, 0, 4).unwrap();
        launch(emulator, "places", text, geometry, &[Arg::Address(count), Arg::Address(y)])
    };
    refuses(places(&emulator), &["depends on the order", "buffer of 20 bytes"]);
    let emulator = emulator.in_one_order();
    places(&emulator).unwrap();
    assert_eq!(words(&emulator, count, 1), [5]);
}

#[test]
fn lanes_shuffle_and_vote() {
    let text = r#"
extern "C" __global__ void lanes(u32* y)
{
    u32 lane = threadIdx.x % 32, all = 0xffffffffu;
    u32* row = y + 12 * threadIdx.x;
    row[0] = __shfl_sync(all, threadIdx.x, 5);
    row[1] = __shfl_sync(all, threadIdx.x, lane + 1, 8);
    row[2] = __shfl_up_sync(all, threadIdx.x, 3);
    row[3] = __shfl_up_sync(all, (int)threadIdx.x, 3u, 16);
    row[4] = __shfl_down_sync(all, threadIdx.x, 3);
    row[5] = __shfl_down_sync(all, threadIdx.x, 3, 4);
    row[6] = __shfl_xor_sync(all, threadIdx.x, 9);
    row[7] = __shfl_xor_sync(all, (float)threadIdx.x, 4, 4);
    row[8] = __ballot_sync(all, lane % 3 == 0);
    row[9] = __any_sync(all, lane == 31) + 2 * __any_sync(all, lane > 31);
    row[10] = __all_sync(all, lane < 32) + 2 * __all_sync(all, lane < 31);
    row[11] = lane < 16 ? __ballot_sync(0x0000ffffu, lane < 2) : __popc(__ballot_sync(0xffff0000u, lane != 20));
    __syncwarp();
}"#;
    let emulator = Emulator::new();
    let y = emulator.allocate(4 * 12 * 64).unwrap();
    launch(&emulator, "lanes", text, block(64), &[Arg::Address(y)]).unwrap();
    let y = words(&emulator, y, 12 * 64);
    for thread in 0..64 {
        let (lane, warp) = (thread % 32, thread / 32 * 32);
        let wanted = [
            warp + 5,
            warp + lane / 8 * 8 + (lane + 1) % 8,
            if lane < 3 { thread } else { thread - 3 },
            if lane % 16 < 3 { thread } else { thread - 3 },
            if lane > 28 { thread } else { thread + 3 },
            if lane % 4 > 0 { thread } else { thread + 3 },
            thread ^ 9,
            // To a group of lanes behind nothing is moved, to one before it is.
            if lane & 4 == 0 { thread } else { thread ^ 4 },
            0b0100_1001_0010_0100_1001_0010_0100_1001,
            1,
            1,
            if lane < 16 { 3 } else { 15 },
        ];
        assert_eq!(y[12 * thread as usize..][..12], wanted, "thread {thread}");
    }
}

/// Values of bfloat16, and the same as `f64`.
fn random_bf16(seed: u64, n: usize) -> (Vec<bf16>, Vec<f64>) {
    let values: Vec<bf16> = noise(seed, n).into_iter().map(bf16::from_f32).collect();
    let wide = values.iter().map(|v| v.to_f64()).collect();
    (values, wide)
}

/// Asserts that d is c + a b, rounded once; the columns of b lie one after another.
fn is_product(d: &[f32], a: &[f64], b: &[f64], c: &[f32]) {
    for i in 0..16 {
        for j in 0..8 {
            let sum: f64 = (0..16).map(|k| a[16 * i + k] * b[16 * j + k]).sum();
            let wanted = (f64::from(c[8 * i + j]) + sum) as f32;
            let found = d[8 * i + j];
            assert!((found - wanted).abs() <= 1e-6, "row {i}, column {j}: {found}, wanted {wanted}");
        }
    }
}

#[test]
fn tensor_cores_multiply_fragments_read_by_their_definition() {
    let text = r#"
__device__ u32 pair(const u16* x, u32 row, u32 column) { return x[16 * row + column] | (u32)x[16 * row + column + 1] << 16; }

extern "C" __global__ void mma(
    const u16* a,
    const u16* b,
    float* d)
{
    u32 g = threadIdx.x / 4, t = threadIdx.x % 4;
    u32 fa[4] = {pair(a, g, 2 * t), pair(a, g + 8, 2 * t), pair(a, g, 2 * t + 8), pair(a, g + 8, 2 * t + 8)};
    u32 fb[2] = {pair(b, g, 2 * t), pair(b, g, 2 * t + 8)};
    float* places[4] = {d + 8 * g + 2 * t, d + 8 * g + 2 * t + 1, d + 8 * (g + 8) + 2 * t, d + 8 * (g + 8) + 2 * t + 1};
    float fd[4];
    for (int i = 0; i < 4; i++) fd[i] = *places[i];
    mma_bf16_16x8x16(fd, fa, fb);
    for (int i = 0; i < 4; i++) *places[i] = fd[i];
}"#;
    let emulator = Emulator::new();
    for seed in 0..5 {
        let ((a, wide_a), (b, wide_b)) = (random_bf16(3 * seed, 256), random_bf16(3 * seed + 1, 128));
        let c = noise(3 * seed + 2, 128);
        let [a, b] = [a, b].map(|x| upload(&emulator, &x, bf16::to_ne_bytes));
        let d = floats(&emulator, &c);
        launch(&emulator, "mma", text, block(32), &[a, b, d].map(Arg::Address)).unwrap();
        is_product(&read(&emulator, d, 128), &wide_a, &wide_b, &c);
    }
}

#[test]
fn half_precision_is_rounded_to_and_multiplied() {
    let text = r#"
extern "C" __global__ void halves(
    const float* a,
    const float* b,
    float* d,
    float* rounded)
{
    u32 g = threadIdx.x / 4, t = threadIdx.x % 4;
    auto pair = [](const float* x, u32 row, u32 column) { return f16_pair(x[16 * row + column], x[16 * row + column + 1]); };
    u32 fa[4] = {pair(a, g, 2 * t), pair(a, g + 8, 2 * t), pair(a, g, 2 * t + 8), pair(a, g + 8, 2 * t + 8)};
    u32 fb[2] = {pair(b, g, 2 * t), pair(b, g, 2 * t + 8)};
    float fd[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma_f16_16x8x16(fd, fa, fb);
    for (int i = 0; i < 4; i++) d[8 * (g + i / 2 * 8) + 2 * t + i % 2] = fd[i];
    for (u32 i = threadIdx.x; i < 128; i += 32) {
        float2 both = f16_values(f16_pair(a[2 * i], a[2 * i + 1]));
        rounded[2 * i] = both.x;
        rounded[2 * i + 1] = both.y;
    }
}"#;
    let emulator = Emulator::new();
    let run = |a: &[f32], b: &[f32]| {
        let [a, b] = [a, b].map(|x| floats(&emulator, x));
        let [d, rounded] = [128, 256].map(|n| floats(&emulator, &vec![0.0; n]));
        launch(&emulator, "halves", text, block(32), &[a, b, d, rounded].map(Arg::Address)).unwrap();
        (read(&emulator, d, 128), read(&emulator, rounded, 256))
    };
    let halves = |x: &[f32]| x.iter().map(|&v| f16::from_f32(v).to_f64()).collect::<Vec<_>>();
    let (a, b) = (noise(1, 256), noise(2, 128));
    let (d, rounded) = run(&a, &b);
    is_product(&d, &halves(&a), &halves(&b), &[0.0; 128]);
    assert!(rounded.iter().zip(halves(&a)).all(|(&found, wanted)| f64::from(found) == wanted));
    // Every exponent, ties between neighbours, and what has no neighbours.
    let scaled = (0..256).map(|i| a[i] * 2.0f32.powi(i as i32 / 4 - 34));
    let ties = (0..256).map(|i| (2049 + 2 * i) as f32 * 2.0f32.powi(i / 10 - 26));
    let special = [0.0, -0.0, 65_504.0, 65_519.99, 65_520.0, -1e9, f32::INFINITY, f32::NAN, 3e-8, 2.0f32.powi(-25)];
    for values in [scaled.collect(), ties.collect(), special.repeat(26)] {
        let values: Vec<f32> = values;
        let (_, rounded) = run(&values[..256], &b);
        for (&found, &given) in rounded.iter().zip(&values) {
            let wanted = f16::from_f32(given).to_f32();
            assert!(found.to_bits() == wanted.to_bits() || (found.is_nan() && wanted.is_nan()), "{given}: {found}");
        }
    }
}

/// b comes as its columns (8x16), once more as its rows (16x8).
const PIPELINE: &str = r#"
extern "C" __global__ void pipeline(
    const bf16* a,
    const bf16* columns,
    const bf16* rows,
    float* d)
{
    SHARED_ARRAY(bf16, sa, [16][24]);
    SHARED_ARRAY(bf16, sc, [8][24]);
    SHARED_ARRAY(bf16, sr, [16][8]);
    u32 lane = threadIdx.x;
    cp_async_16(&sa[lane / 2][lane % 2 * 8], a + 8 * lane);
    if (lane < 16) cp_async_16(&sc[lane / 2][lane % 2 * 8], columns + 8 * lane);
    cp_async_commit();
    if (lane < 16) cp_async_16(sr[lane], rows + 8 * lane);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();

    u32 fa[4], fc[2], fr[4];
    ldmatrix_x4(fa, &sa[lane % 16][lane / 16 * 8]);
    ldmatrix_x2(fc, &sc[lane % 8][lane / 8 % 2 * 8]);
    ldmatrix_x4_trans(fr, sr[lane % 16]);
    u32 first[2] = {fr[0], fr[1]};
    float by_columns[4] = {0.0f, 0.0f, 0.0f, 0.0f}, by_rows[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    mma_bf16_16x8x16(by_columns, fa, fc);
    mma_bf16_16x8x16(by_rows, fa, first);
    for (u32 i = 0; i < 4; i++) {
        u32 place = 8 * (lane / 4 + i / 2 * 8) + lane % 4 * 2 + i % 2;
        d[place] = by_columns[i];
        d[128 + place] = by_rows[i];
    }
}"#;

#[test]
fn matrices_are_loaded_for_tensor_cores() {
    let emulator = Emulator::new();
    let ((a, wide_a), (columns, wide_b)) = (random_bf16(7, 256), random_bf16(8, 128));
    let rows: Vec<bf16> = (0..128).map(|i| columns[i % 8 * 16 + i / 8]).collect();
    let [a, columns, rows] = [a, columns, rows].map(|x| upload(&emulator, &x, bf16::to_ne_bytes));
    let d = emulator.allocate(1024).unwrap();
    launch(&emulator, "pipeline", PIPELINE, block(32), &[a, columns, rows, d].map(Arg::Address)).unwrap();
    let d = read(&emulator, d, 256);
    is_product(&d[..128], &wide_a, &wide_b, &[0.0; 128]);
    assert_eq!(d[..128], d[128..]);
}

/// Copies two groups, then waits for as many as the macro is told.
macro_rules! staged {
    ($wait:literal) => {
        concat!(
            r#"
extern "C" __global__ void staged(
    const float* x,
    float* y)
{
    SHARED_MEMORY(float, stage);
    float* mine = stage + 8 * threadIdx.x;
    cp_async_16(mine, x);
    cp_async_commit();
    cp_async_16_zfill(mine + 4, x + 4, 4);
    cp_async_commit();
    "#,
            $wait,
            r#"
    for (u32 i = 0; i < 8; i++) y[8 * threadIdx.x + i] = mine[i];
}"#
        )
    };
}

#[test]
fn copies_arrive_when_they_are_waited_for() {
    let staged = |text| {
        let emulator = Emulator::new();
        let (x, y) = (floats(&emulator, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), emulator.allocate(64).unwrap());
        launch(&emulator, "staged", text, Geometry { shared: 64, ..block(2) }, &[x, y].map(Arg::Address)).unwrap();
        read(&emulator, y, 16)[8..].iter().map(|v| if v.is_nan() { -1.0 } else { *v }).collect::<Vec<f32>>()
    };
    assert_eq!(staged(staged!("")), [-1.0; 8]);
    assert_eq!(staged(staged!("cp_async_wait<2>();")), [-1.0; 8]);
    assert_eq!(staged(staged!("cp_async_wait<1>();")), [1.0, 2.0, 3.0, 4.0, -1.0, -1.0, -1.0, -1.0]);
    assert_eq!(staged(staged!("cp_async_wait<0>();")), [1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0]);
}

#[test]
fn shared_memory_begins_as_garbage_in_every_block() {
    let text = r#"
extern "C" __global__ void garbage(float* y)
{
    SHARED_MEMORY(float, asked);
    SHARED_ARRAY(float, fixed, [2]);
    y[2 * blockIdx.x] = asked[3];
    y[2 * blockIdx.x + 1] = fixed[1];
    asked[3] = fixed[1] = 1.0f;
}"#;
    let emulator = Emulator::new();
    let y = emulator.allocate(24).unwrap();
    let geometry = Geometry { grid: [3, 1, 1], shared: 16, ..block(1) };
    launch(&emulator, "garbage", text, geometry, &[Arg::Address(y)]).unwrap();
    assert!(read(&emulator, y, 6).iter().all(|v| v.is_nan()));
}

#[test]
fn threads_that_wait_for_ever_are_reported() {
    let early = r#"
extern "C" __global__ void early()
{
    if (threadIdx.x < 20) return;
    __syncthreads();
}"#;
    let emulator = Emulator::new();
    let geometry = Geometry { grid: [2, 1, 1], ..block(64) };
    let parts = ["early: kernel early: block (0, 0, 0)", "of 64 20 have ended, 44 wait in __syncthreads of line 5"];
    refuses(launch(&emulator, "early", early, geometry, &[]), &parts);

    let apart = r#"
extern "C" __global__ void apart()
{
    if (threadIdx.x < 40) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}"#;
    let parts = ["40 wait in __syncthreads of line 5", "24 wait in __syncthreads of line 7"];
    refuses(launch(&emulator, "apart", apart, block(64), &[]), &parts);

    let lanes = r#"
extern "C" __global__ void lanes()
{
    if (threadIdx.x != 7) warp_sum(1.0f);
}"#;
    refuses(launch(&emulator, "lanes", lanes, block(32), &[]), &["1 have ended, 31 wait in __shfl_xor_sync"]);
    refuses(launch(&emulator, "lanes", lanes, block(4), &[]), &["4 wait in __shfl_xor_sync"]);

    let other = r#"
extern "C" __global__ void other()
{
    if (threadIdx.x < 5) __shfl_sync(0xffffffffu, 1, 0);
    else __any_sync(0xffffffffu, 1);
}"#;
    refuses(launch(&emulator, "other", other, block(32), &[]), &["while others of its warp are in"]);
    let mask = r#"extern "C" __global__ void mask() { __syncwarp(6); }"#;
    refuses(
        launch(&emulator, "mask", mask, block(3), &[]),
        &["thread (0, 0, 0) is not in the mask 0x6 of its __syncwarp"],
    );
}

#[test]
fn writing_outside_of_memory_is_reported() {
    let text = r#"
extern "C" __global__ void put(
    u8* y,
    u64 i)
{
    y[i] = 0;
}"#;
    let emulator = Emulator::new();
    let y = emulator.allocate(101).unwrap();
    let put = |i: i64| launch(&emulator, "put", text, block(1), &[Arg::Address(y), Arg::U64(i as u64)]);
    refuses(put(101), &["kernel put", "wrote 0 bytes behind the end of a buffer of 101 bytes"]);
    refuses(put(300), &["wrote 199 bytes behind the end"]);
    refuses(put(-1), &["wrote 1 bytes before the begin of a buffer of 101 bytes"]);
    put(100).unwrap();

    let shared = r#"
extern "C" __global__ void shared(u32 i)
{
    SHARED_MEMORY(float, asked);
    SHARED_ARRAY(u8, fixed, [5]);
    if (i < 5) asked[i] = 0.0f; else fixed[i] = 0;
}"#;
    let put = |i: u32| launch(&emulator, "shared", shared, Geometry { shared: 16, ..block(1) }, &[Arg::U32(i)]);
    put(3).unwrap();
    refuses(put(4), &["wrote outside of 16 bytes of shared memory"]);
    refuses(put(5), &["wrote outside of 5 bytes of shared memory"]);
}

#[test]
fn wrong_arguments_are_reported() {
    let emulator = Emulator::new();
    let a = emulator.allocate(4).unwrap();
    let add = |arguments: &[Arg]| launch(&emulator, "add", ADD, block(1), arguments);
    let (at, n, scale) = (Arg::Address(a), Arg::U32(1), Arg::F32(1.0));
    add(&[at, at, at, n, scale]).unwrap();
    refuses(add(&[at, at, at, n]), &["kernel add: takes 5 arguments, got 4"]);
    refuses(add(&[at, at, at, Arg::U64(1), scale]), &["kernel add: argument `n` is `u32`, got U64(1)"]);
    refuses(add(&[at, scale, at, n, scale]), &["argument `b` is `const float *`, got F32(1.0)"]);
    emulator.free(a);
    refuses(add(&[at, at, at, n, scale]), &["argument `a`", "where no buffer is"]);
    // SAFETY: nothing is launched.
    refuses(
        unsafe { emulator.launch(&Source { name: "add", text: ADD }, "sub", block(1), &[]) },
        &["kernel sub: is not in"],
    );
}

#[test]
fn geometry_that_no_card_has_is_reported() {
    let emulator = Emulator::new();
    let text = r#"extern "C" __global__ void nothing() { SHARED_ARRAY(u8, big, [40000]); big[0] = 1; }"#;
    let nothing = |geometry| launch(&emulator, "nothing", text, geometry, &[]);
    nothing(Geometry { shared: 60_000, ..block(1) }).unwrap();
    refuses(nothing(Geometry { shared: 102_000, ..block(1) }), &["more than every card has"]);
    // Who has asked for what the card has may use it.
    let chosen = |bytes| nothing(block(1).with_shared_of_this_card(bytes));
    chosen(180_000).unwrap();
    refuses(chosen(200_000), &["more shared memory"]);
    refuses(chosen(240_000), &["240000 bytes of shared memory"]);
    refuses(nothing(block(1025)), &["[1025, 1, 1] threads"]);
    refuses(nothing(Geometry { block: [64, 32, 1], ..block(1) }), &["1024 in all"]);
    refuses(nothing(Geometry { grid: [1, 65_536, 1], ..block(1) }), &["[1, 65536, 1] blocks"]);
    refuses(nothing(Geometry { grid: [0, 1, 1], ..block(1) }), &["[0, 1, 1] blocks"]);
}

#[test]
fn memory_ends() {
    let emulator = Emulator::with_memory(3 << 20);
    let a = emulator.allocate(2 << 20).unwrap();
    let refused = emulator.allocate(1_700_000).unwrap_err();
    assert!(matches!(refused, Error::Memory { asked: 1_700_000, free: 1_048_576, budget: 3_145_728 }));
    assert_eq!(refused.to_string(), "the device cannot hold 1.6 MiB more: 1.0 MiB of 3.0 MiB are free");
    emulator.free(a);
    let b = emulator.allocate(1_700_000).unwrap();
    assert_eq!(b.0 % 256, 0);
}

#[test]
fn a_mortal_device_is_lost_behind_a_launch_that_says_nothing() {
    let device = Mortal::new(Emulator::new(), 1);
    let sum = device.allocate(4 * 64).unwrap();
    device.fill(sum, 0, 4 * 64).unwrap();
    let source = Source { name: "count", text: COUNT };
    // SAFETY: the kernel writes 64 words of `sum`.
    let launch = || unsafe { device.launch(&source, "count", block(64), &[Arg::Address(sum)]) };
    launch().unwrap();
    let mut bytes = [0; 4 * 64];
    device.read(sum, &mut bytes).unwrap();
    assert_eq!(bytes[4 * 63..], 1_u32.to_ne_bytes());
    launch().unwrap();
    let says =
        [device.wait(), device.read(sum, &mut bytes), device.write(sum, &bytes), device.fill(sum, 0, 4), launch()];
    for said in says.into_iter().chain([device.allocate(4).map(drop)]) {
        let lost = said.unwrap_err();
        assert!(lost.is_lost() && lost.to_string().contains("launch 2"), "{lost}");
    }
    device.free(sum);
}

#[test]
fn memory_is_copied_and_filled() {
    let emulator = Emulator::new();
    let (a, b) = (emulator.allocate(8).unwrap(), emulator.allocate(8).unwrap());
    assert!(read(&emulator, a, 2).iter().all(|v| v.is_nan()), "new memory is garbage");
    emulator.write(a, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    emulator.fill(b, 9, 8).unwrap();
    emulator.copy(a.offset(2), b.offset(1), 4).unwrap();
    let mut found = [0; 8];
    emulator.read(b, &mut found).unwrap();
    assert_eq!(found, [9, 3, 4, 5, 6, 9, 9, 9]);
    refuses(emulator.copy(a, a.offset(1), 2), &["overlaps"]);
    refuses(emulator.write(a.offset(1), &[0; 8]), &["8 bytes at", "outside of every buffer"]);
    refuses(emulator.fill(Address(16), 0, 1), &["outside of every buffer"]);
    emulator.wait().unwrap();
}

#[test]
fn a_text_that_is_no_kernel_is_reported() {
    let emulator = Emulator::new();
    let wrong = r#"extern "C" __global__ void wrong() { undeclared = 1; }"#;
    refuses(
        launch(&emulator, "wrong", wrong, block(1), &[]),
        &["wrong: kernel wrong: does not compile", "wrong:1:", "undeclared"],
    );
    let int = r#"extern "C" __global__ void int_(const float* x, int n) {}"#;
    refuses(launch(&emulator, "int_", int, block(1), &[]), &["parameter `n` of kernel `int_` is `int`", "u32"]);
    assert!(signatures("__global__ void f() {}").is_err());
    let plain = r#"extern "C" __global__ void plain() { __shared__ float x[2]; }"#;
    refuses(launch(&emulator, "plain", plain, block(1), &[]), &["declared with SHARED_ARRAY or SHARED_MEMORY"]);
}

#[test]
fn a_missing_compiler_is_named() {
    let missing = ["no-such-compiler".to_owned()];
    let refused = compile::compile("never", "", &missing).unwrap_err();
    assert!(refused.contains("no no-such-compiler: install g++ or clang++"), "{refused}");
}

#[test]
fn large_blocks_take_little_time() {
    let text = r#"
extern "C" __global__ void busy(float* y)
{
    SHARED_ARRAY(float, partial, [32]);
    float sum = 0.0f;
    for (u32 i = 0; i < 20; i++) {
        float warp = warp_sum(threadIdx.x + i);
        if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = warp;
        __syncthreads();
        sum += warp_sum(partial[threadIdx.x % 32]);
        __syncthreads();
    }
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
}"#;
    let emulator = Emulator::new();
    let y = emulator.allocate(12).unwrap();
    let run =
        || launch(&emulator, "busy", text, Geometry { grid: [3, 1, 1], ..block(1024) }, &[Arg::Address(y)]).unwrap();
    run(); // compiles
    let begin = std::time::Instant::now();
    run();
    assert!(begin.elapsed().as_secs_f64() < 2.0, "{:?}", begin.elapsed());
    let wanted = (0..20).map(|i| (0..1024).map(|t| (t + i) as f32).sum::<f32>()).sum::<f32>();
    assert_eq!(read(&emulator, y, 3), [wanted; 3]);
}

#[test]
fn pairs_are_rounded_as_the_host_rounds() {
    let text = "extern \"C\" __global__ void pairs(const float* x, u32* bf16s, u32* f16s, float* wide, u32 n) {\n\
                u32 i = threadIdx.x;\nif (i >= n) return;\nbf16s[i] = bf16_pair(x[i], -x[i]);\n\
                f16s[i] = f16_pair(x[i], -x[i]);\nwide[i] = f16_value((u16)f16s[i]);\n}";
    let emulator = Emulator::new();
    let edges =
        [0.0, 1.0, 65_504.0, 65_519.9, 65_520.0, f32::INFINITY, 6.0e-8, 2.9e-8, 6.1e-5, 6.1035e-5, 1e-40, 1.003_906_3];
    let values =
        [&edges[..], &noise(1, 500), &noise(2, 400).iter().map(|v| v * v * v * 1e-3).collect::<Vec<_>>()].concat();
    let n = values.len();
    let places: [Address; 3] = std::array::from_fn(|_| emulator.allocate(4 * n).unwrap());
    let arguments = [floats(&emulator, &values), places[0], places[1], places[2]].map(Arg::Address);
    launch(&emulator, "pairs", text, block(1024), &[&arguments[..], &[Arg::U32(n as u32)]].concat()).unwrap();
    let pair = |bits: fn(f32) -> u16| values.iter().map(move |&v| u32::from(bits(v)) | u32::from(bits(-v)) << 16);
    assert!(words(&emulator, places[0], n).into_iter().eq(pair(|v| bf16::from_f32(v).to_bits())));
    assert!(words(&emulator, places[1], n).into_iter().eq(pair(|v| half::f16::from_f32(v).to_bits())));
    let wide: Vec<f32> = values.iter().map(|&v| half::f16::from_f32(v).to_f32()).collect();
    assert_eq!(read(&emulator, places[2], n), wide);
}
