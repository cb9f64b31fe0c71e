// Runs the blocks of a launch one after another, and the threads of a block as fibers: a fiber runs until it waits for
// its block or its warp, then the scheduler resumes another.
//
// Warps are resumed in an order that the seed shuffles, each until all of its lanes wait for the block or have ended; so
// are the lanes of a warp. A reversed launch takes blocks, warps and lanes in the opposite order: of two threads that no
// barrier keeps apart each runs first once.

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

namespace emulator {

struct Machine;
struct Fiber;
static Machine* machine = nullptr;
static Fiber* fiber = nullptr;

// ---- Contexts: a stack, and where to go on ----

#if defined(__x86_64__) && !defined(MLLM4REC_UCONTEXT)

// Where a suspended context's stack ends; the registers that a call preserves lie there.
using Context = void*;

extern "C" __attribute__((visibility("hidden"))) void mllm4rec_switch(Context* from, Context to);

asm(R"(
    .pushsection .text
    .globl mllm4rec_switch
    .hidden mllm4rec_switch
mllm4rec_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .popsection
)");

inline void start(Context& context, uint8_t*, uint8_t* top, void (*entry)()) {
    // `ret` finds the entry below an address divisible by 16, as a call would have left it.
    void** place = reinterpret_cast<void**>(top) - 2;
    *place = reinterpret_cast<void*>(entry);
    memset(place - 6, 0, 6 * sizeof(void*));
    context = place - 6;
}

inline void switch_to(Context& from, Context& to) {
    mllm4rec_switch(&from, to);
}

#else

}  // namespace emulator
#include <ucontext.h>
namespace emulator {

using Context = ucontext_t;

inline void start(Context& context, uint8_t* stack, uint8_t* top, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = top - stack;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}

inline void switch_to(Context& from, Context& to) {
    swapcontext(&from, &to);
}

#endif

// The stacks of the fibers, used again by every block.
struct Stacks {
    static constexpr size_t bytes = 64 * 1024;
    // Lies at the end that a stack grows to.
    static constexpr uint64_t mark = 0x5ca1ab1e0ddba11ull;
    uint8_t* memory = nullptr;
    size_t count = 0;

    ~Stacks() {
        if (memory) munmap(memory, count * bytes);
    }

    bool reserve(size_t wanted) {
        if (wanted <= count) return true;
        if (memory) munmap(memory, count * bytes);
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* mapped = mmap(nullptr, wanted * bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
        memory = mapped == MAP_FAILED ? nullptr : static_cast<uint8_t*>(mapped);
        count = memory ? wanted : 0;
        for (size_t i = 0; i < count; i++) memcpy(at(i), &mark, sizeof mark);
        return memory != nullptr;
    }

    uint8_t* at(size_t index) const { return memory + index * bytes; }

    // Where a stack begins; not all in the same set of the processor's cache.
    uint8_t* top(size_t index) const { return at(index) + bytes - index * 576 % 8192; }

    bool overflowed(size_t index) const { return memcmp(at(index), &mark, sizeof mark) != 0; }
};

// ---- Memory ----

constexpr uint8_t poison = 0xff;

// What lies around arrays; as floats of either size no number.
inline uint8_t red(const uint8_t* place) {
    return reinterpret_cast<uintptr_t>(place) % 2 ? 0xff : 0xfe;
}

// The memory that the threads of a block share: first what the launch asks for, then the arrays of the kernel, each
// where the first thread comes upon its declaration. Red zones lie between.
struct Shared {
    static constexpr size_t most_bytes = 227 * 1024, most_static_bytes = 48 * 1024, red_bytes = 512;

    struct Array {
        const void* site;
        uint8_t* begin;
        size_t bytes;
    };

    std::vector<uint8_t> memory = std::vector<uint8_t>(2 * most_bytes);
    std::vector<Array> arrays;
    size_t static_bytes;
    uint8_t* end;

    void clear(size_t dynamic_bytes) {
        arrays.clear();
        static_bytes = 0;
        end = memory.data();
        redden(red_bytes + 127);
        end -= reinterpret_cast<uintptr_t>(end) % 128;
        add(nullptr, dynamic_bytes);
    }

    // Null if there is no place.
    uint8_t* array(const void* site, size_t bytes) {
        for (const Array& a : arrays) {
            if (a.site == site) return a.begin;
        }
        static_bytes += bytes;
        if (static_bytes > most_static_bytes || static_bytes + arrays[0].bytes > most_bytes) return nullptr;
        return add(site, bytes);
    }

    bool holds(const void* place, size_t bytes) const {
        const uint8_t* p = static_cast<const uint8_t*>(place);
        return std::any_of(arrays.begin(), arrays.end(),
                           [&](const Array& a) { return p >= a.begin && p + bytes <= a.begin + a.bytes; });
    }

    // The array around which something was written.
    const Array* overrun() const {
        for (const Array& a : arrays) {
            const uint8_t* past = a.begin + a.bytes;
            for (size_t i = 0; i < red_bytes; i++) {
                if (past[i] != red(past + i) || a.begin[-1 - std::ptrdiff_t(i)] != red(a.begin - 1 - i)) return &a;
            }
        }
        return nullptr;
    }

  private:
    uint8_t* add(const void* site, size_t bytes) {
        end += -reinterpret_cast<uintptr_t>(end) % 16;
        if (end + bytes + red_bytes + 16 > memory.data() + memory.size()) return nullptr;
        uint8_t* begin = end;
        memset(begin, poison, bytes);
        arrays.push_back({site, begin, bytes});
        end += bytes;
        redden(red_bytes + 15);
        end -= 15;
        return begin;
    }

    void redden(size_t bytes) {
        for (size_t i = 0; i < bytes; i++) end[i] = red(end + i);
        end += bytes;
    }
};

// ---- Threads ----

struct Index {
    unsigned x, y, z;
};

// What Rust asks for: `Launch` of compile.rs.
struct Launch {
    unsigned grid[3], block[3];
    unsigned shared_bytes, reversed;
    uint64_t seed;
    void (*kernel)(void** arguments);
    void** arguments;
    char* message;
    uint64_t message_bytes;
};

enum class State : uint8_t { Runs, WaitsForBlock, WaitsForWarp, Ended };

// A copy to shared memory that was begun.
struct Copy {
    void* to;
    const void* from;
    unsigned bytes;
};

struct Fiber {
    Context context;
    Index thread;
    unsigned number;
    State state;
    // What it waits in, and the line where that is known.
    const char* operation;
    int line;
    // Begun copies in their order, and how many belong to each committed group.
    std::vector<Copy> copies;
    std::vector<size_t> groups;
    size_t committed;

    unsigned lane() const { return number % 32; }
};

// An operation of several lanes that some of them have reached.
struct Collective {
    unsigned mask, arrived;
    const char* operation;
    void* operands[32];
};

struct Warp {
    // The lanes that can go on.
    unsigned ready;
    std::vector<Collective> collectives;
};

struct Machine {
    const Launch* launch;
    Index block;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    Stacks stacks;
    Shared shared;
    Context scheduler;
    uint64_t random;
    unsigned ended, waiting;
    bool failed;
    char failure[768];

    uint64_t next_random() {
        uint64_t v = random += 0x9e3779b97f4a7c15ull;
        v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9ull;
        v = (v ^ (v >> 27)) * 0x94d049bb133111ebull;
        return v ^ (v >> 31);
    }

    void shuffle(unsigned* order, unsigned n) {
        for (unsigned i = n; i > 1; i--) {
            std::swap(order[i - 1], order[(next_random() >> 32) * i >> 32]);
        }
        if (launch->reversed) std::reverse(order, order + n);
    }

    void begin_block(uint64_t number);
    void drain(unsigned warp);
    bool release_block();
    void describe_deadlock();
    void check_block();
    void run_block(uint64_t number);
};

// ---- What a running fiber does ----

inline void suspend(State state, const char* operation, int line = 0) {
    fiber->state = state;
    fiber->operation = operation;
    fiber->line = line;
    switch_to(fiber->context, machine->scheduler);
}

// Ends the launch; the fibers are left where they are.
[[noreturn]] __attribute__((format(printf, 1, 2))) inline void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char* text = machine->failure;
    Index thread = fiber->thread;
    int begun = snprintf(text, sizeof machine->failure, "thread (%u, %u, %u) ", thread.x, thread.y, thread.z);
    vsnprintf(text + begun, sizeof machine->failure - begun, format, arguments);
    va_end(arguments);
    machine->failed = true;
    suspend(State::Ended, "");
    __builtin_unreachable();
}

inline void run_fiber() {
    machine->launch->kernel(machine->launch->arguments);
    if (machine->stacks.overflowed(fiber->number)) fail("needs more than %zu bytes of stack", Stacks::bytes);
    machine->ended++;
    suspend(State::Ended, "");
}

inline void sync_block(int line) {
    machine->waiting++;
    suspend(State::WaitsForBlock, "__syncthreads", line);
}

// Waits for the lanes of the mask, each of which brings an operand; the last runs the operation over all of them.
template <typename T>
void collective(unsigned mask, const char* operation, T& mine, void (*run)(T* const (&lanes)[32], unsigned mask)) {
    Warp& warp = machine->warps[fiber->number / 32];
    unsigned bit = 1u << fiber->lane();
    if (!(mask & bit)) fail("is not in the mask %#x of its %s", mask, operation);
    auto same = [&](const Collective& c) { return c.mask == mask; };
    auto found = std::find_if(warp.collectives.begin(), warp.collectives.end(), same);
    if (found == warp.collectives.end()) found = warp.collectives.insert(found, Collective{mask, 0, operation, {}});
    if (found->operation != operation && strcmp(found->operation, operation)) {
        fail("is in %s while others of its warp are in %s", operation, found->operation);
    }
    found->arrived |= bit;
    found->operands[fiber->lane()] = &mine;
    if (found->arrived == mask) {
        T* lanes[32];
        for (unsigned i = 0; i < 32; i++) lanes[i] = static_cast<T*>(found->operands[i]);
        run(lanes, mask);
        warp.collectives.erase(found);
        warp.ready |= mask;
    }
    suspend(State::WaitsForWarp, operation);
}

// ---- The scheduler ----

inline void Machine::begin_block(uint64_t number) {
    random = launch->seed ^ (number * 0xd1342543de82ef95ull);
    ended = waiting = 0;
    failed = false;
    shared.clear(launch->shared_bytes);
    const unsigned* extent = launch->block;
    for (unsigned i = 0; i < fibers.size(); i++) {
        Fiber& f = fibers[i];
        f.thread = {i % extent[0], i / extent[0] % extent[1], i / extent[0] / extent[1]};
        f.number = i;
        f.state = State::Runs;
        f.copies.clear();
        f.groups.clear();
        f.committed = 0;
        start(f.context, stacks.at(i), stacks.top(i), run_fiber);
    }
    for (unsigned w = 0; w < warps.size(); w++) {
        unsigned lanes = std::min<unsigned>(fibers.size() - 32 * w, 32);
        warps[w].ready = lanes == 32 ? ~0u : (1u << lanes) - 1;
        warps[w].collectives.clear();
    }
}

// Resumes the lanes of a warp until all wait for the block or have ended.
inline void Machine::drain(unsigned warp) {
    while (unsigned ready = warps[warp].ready) {
        warps[warp].ready = 0;
        unsigned order[32], n = 0;
        for (; ready; ready &= ready - 1) order[n++] = __builtin_ctz(ready);
        shuffle(order, n);
        for (unsigned i = 0; i < n; i++) {
            fiber = &fibers[32 * warp + order[i]];
            fiber->state = State::Runs;
            switch_to(scheduler, fiber->context);
            if (failed) return;
        }
    }
}

// Lets all go on if all wait at the same barrier.
inline bool Machine::release_block() {
    if (waiting != fibers.size()) return false;
    for (const Fiber& f : fibers) {
        if (f.line != fibers[0].line) return false;
    }
    waiting = 0;
    for (unsigned i = 0; i < fibers.size(); i++) warps[i / 32].ready |= 1u << i % 32;
    return true;
}

inline void Machine::describe_deadlock() {
    struct Group {
        const Fiber* first;
        unsigned count;
    };
    std::vector<Group> groups;
    for (const Fiber& f : fibers) {
        if (f.state == State::Ended) continue;
        auto same = [&](const Group& g) { return g.first->line == f.line && !strcmp(g.first->operation, f.operation); };
        auto found = std::find_if(groups.begin(), groups.end(), same);
        if (found == groups.end()) found = groups.insert(found, Group{&f, 0});
        found->count++;
    }
    failed = true;
    size_t n = snprintf(failure, sizeof failure, "threads wait for ever: of %zu %u have ended", fibers.size(), ended);
    for (const Group& g : groups) {
        if (n >= sizeof failure) return;
        n += snprintf(failure + n, sizeof failure - n, ", %u wait in %s", g.count, g.first->operation);
        if (!g.first->line || n >= sizeof failure) continue;
        n += snprintf(failure + n, sizeof failure - n, " of line %d", g.first->line);
    }
}

// Looks for damage once all threads have ended.
inline void Machine::check_block() {
    if (const Shared::Array* array = shared.overrun()) {
        failed = true;
        snprintf(failure, sizeof failure, "wrote outside of %zu bytes of shared memory", array->bytes);
    }
}

inline void Machine::run_block(uint64_t number) {
    begin_block(number);
    std::vector<unsigned> order(warps.size());
    do {
        for (unsigned w = 0; w < order.size(); w++) order[w] = w;
        shuffle(order.data(), order.size());
        for (unsigned w : order) {
            drain(w);
            if (failed) return;
        }
    } while (release_block());
    if (ended == fibers.size()) {
        check_block();
    } else {
        describe_deadlock();
    }
}

}  // namespace emulator

// Runs a launch, one at a time; if something is wrong, says what and returns 1.
extern "C" __attribute__((visibility("default"))) int mllm4rec_run(const emulator::Launch* launch) {
    using namespace emulator;
    static Machine own;
    machine = &own;
    own.launch = launch;
    unsigned threads = launch->block[0] * launch->block[1] * launch->block[2];
    own.fibers.resize(threads);
    own.warps.resize((threads + 31) / 32);
    if (!own.stacks.reserve(threads)) {
        snprintf(launch->message, launch->message_bytes, "no memory for the stacks of %u threads", threads);
        return 1;
    }
    uint64_t x = launch->grid[0], y = launch->grid[1], blocks = x * y * launch->grid[2];
    for (uint64_t i = 0; i < blocks; i++) {
        uint64_t number = launch->reversed ? blocks - 1 - i : i;
        own.block = {(unsigned)(number % x), (unsigned)(number / x % y), (unsigned)(number / x / y)};
        own.run_block(number);
        if (own.failed) {
            Index at = own.block;
            snprintf(launch->message, launch->message_bytes, "block (%u, %u, %u): %s", at.x, at.y, at.z, own.failure);
            return 1;
        }
    }
    return 0;
}
