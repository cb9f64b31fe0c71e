// Stands in for NCCL between threads of one process whose devices have memory of the host: the functions that a gang uses, with
// the meaning that nccl.h of 2.17 gives them. It is stricter than NCCL: what must not be done is counted.
//
// A group of calls is done step by step whenever somebody asks how it went, so everything can be seen in progress. Settings and
// counters have names; every copy of the library has its own.

#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

enum Code { Success = 0, SystemError = 2, InternalError = 3, InvalidArgument = 4, InvalidUsage = 5, InProgress = 7 };
enum Kind { Send, Recv, BroadcastOut, BroadcastIn };

struct UniqueId { char bytes[128]; };
struct Config { size_t size; unsigned magic, version; int blocking, cga, min_ctas, max_ctas; const char* net; };
using Bytes = std::vector<char>;

// The members that share an id, and what is on its way between two of them.
struct World {
    int joined = 0;
    std::map<std::pair<int, int>, std::deque<Bytes>> mail;
};

struct Step { Kind kind; const char* from; char* to; size_t bytes; int peer; bool done; };

struct Comm {
    std::shared_ptr<World> world;
    int rank, size, lag = 0, groups = 0;
    bool initialised = false, finalized = false;
    Code state = InProgress;
    std::vector<Step> pending;
};

static std::mutex turn;
static std::condition_variable changed;
static std::map<std::string, long> settings, counters;
static std::map<std::string, std::shared_ptr<World>> worlds;
static std::set<Comm*> alive;
static std::string said;
static thread_local int depth = 0;
static thread_local std::vector<std::pair<Comm*, Step>> asked;

static Code fail(const char* what, Code code) {
    said = what;
    return code;
}

// The communicator, if it is one still.
static Comm* known(void* handle) {
    Comm* comm = static_cast<Comm*>(handle);
    if (alive.count(comm)) return comm;
    counters["calls_of_the_dead"]++;
    return nullptr;
}

static bool is_for(const char* setting, int rank) {
    auto found = settings.find(setting);
    return found != settings.end() && found->second == rank;
}

static void take(Comm* comm, Step& step) {
    auto& mail = comm->world->mail;
    if (step.kind == Send || step.kind == BroadcastOut) {
        if (step.peer != comm->rank) mail[{comm->rank, step.peer}].push_back(Bytes(step.from, step.from + step.bytes));
        else if (step.from != step.to) memcpy(step.to, step.from, step.bytes);
        if (settings["spoil"] && step.peer == comm->rank) step.to[2] ^= 1;
        step.done = true;
        return;
    }
    auto& box = mail[{step.peer, comm->rank}];
    if (box.empty()) return;
    if (box.front().size() != step.bytes) comm->state = fail("sizes differ", InternalError);
    else memcpy(step.to, box.front().data(), step.bytes);
    box.pop_front();
    step.done = true;
}

static void go_on(Comm* comm) {
    if (comm->state != InProgress) return;
    if (!comm->initialised) {
        if (settings["nobody_joins"] || comm->world->joined < comm->size) return;
        comm->initialised = true;
    }
    if (comm->groups > 0 && is_for("hang_in_group", comm->groups)) return;
    if (comm->groups > 0 && is_for("fail_in_group", comm->groups)) {
        comm->state = fail("failed to extend /dev/shm/nccl-test to 4194660 bytes", SystemError);
        return;
    }
    bool done = true;
    for (Step& step : comm->pending) {
        if (!step.done) take(comm, step);
        done = done && step.done;
        if (comm->state != InProgress) return;
    }
    if (!done || comm->lag-- > 0) return;
    comm->pending.clear();
    comm->state = Success;
}

API void fake_set(const char* name, long value) {
    std::lock_guard<std::mutex> lock(turn);
    settings[name] = value;
    changed.notify_all();
}

API long fake_get(const char* name) {
    std::lock_guard<std::mutex> lock(turn);
    if (!strcmp(name, "alive")) return alive.size();
    return counters[name];
}

API Code ncclGetVersion(int* version) {
    std::lock_guard<std::mutex> lock(turn);
    *version = FAKE_VERSION;
    return Success;
}

API Code ncclGetUniqueId(UniqueId* id) {
    std::lock_guard<std::mutex> lock(turn);
    if (settings.count("no_id")) return fail("no socket interface found", SystemError);
    memset(id, 0, sizeof *id);
    long number = ++counters["ids"];
    memcpy(id->bytes + 8, &number, sizeof number);
    return Success;
}

API Code ncclCommInitRankConfig(void** handle, int size, UniqueId id, int rank, Config* config) {
    std::lock_guard<std::mutex> lock(turn);
    *handle = nullptr;
    bool good = config->size >= 40 && config->magic == 0xcafebeef && config->version == 21700 && config->blocking == 0;
    if (!good || config->min_ctas != INT32_MIN || config->net) return fail("bad configuration", InvalidArgument);
    if (is_for("fail_in_init", rank)) return fail("connect to the root failed: connection refused", SystemError);
    auto& world = worlds[std::string(id.bytes, sizeof id.bytes)];
    if (!world) world = std::make_shared<World>();
    Comm* comm = new Comm{world, rank, size};
    comm->lag = settings["lag"];
    world->joined++;
    alive.insert(comm);
    counters["inits"]++;
    *handle = comm;
    return InProgress;
}

API Code ncclCommGetAsyncError(void* handle, Code* state) {
    std::lock_guard<std::mutex> lock(turn);
    Comm* comm = known(handle);
    if (!comm) return InvalidArgument;
    go_on(comm);
    *state = comm->state;
    return Success;
}

static void bury(Comm* comm) {
    alive.erase(comm);
    delete comm;
}

API Code ncclCommAbort(void* handle) {
    std::unique_lock<std::mutex> lock(turn);
    Comm* comm = known(handle);
    if (!comm) return InvalidArgument;
    counters["aborts"]++;
    changed.wait(lock, [] { return !settings["hang_in_abort"]; });
    bury(comm);
    return Success;
}

API Code ncclCommFinalize(void* handle) {
    std::lock_guard<std::mutex> lock(turn);
    Comm* comm = known(handle);
    if (!comm || comm->state != Success || comm->finalized) return fail("not to be finalized", InvalidUsage);
    comm->finalized = true;
    comm->state = InProgress;
    comm->lag = settings["lag"];
    return InProgress;
}

API Code ncclCommDestroy(void* handle) {
    std::lock_guard<std::mutex> lock(turn);
    Comm* comm = known(handle);
    if (!comm) return InvalidArgument;
    if (!comm->finalized || comm->state != Success) counters["bad_destroys"]++;
    counters["destroys"]++;
    bury(comm);
    return Success;
}

static Code ask(void* handle, Step step) {
    std::lock_guard<std::mutex> lock(turn);
    Comm* comm = known(handle);
    if (!comm || depth == 0) return fail("no group was begun", InvalidUsage);
    if (comm->state != Success) return fail("the communicator is not ready", InvalidArgument);
    if (step.peer < 0 || step.peer >= comm->size) return fail("there is no such rank", InvalidArgument);
    asked.push_back({comm, step});
    return Success;
}

API Code ncclSend(const char* from, size_t count, int, int peer, void* handle, void*) {
    return ask(handle, {Send, from, nullptr, 4 * count, peer, false});
}

API Code ncclRecv(char* to, size_t count, int, int peer, void* handle, void*) {
    return ask(handle, {Recv, nullptr, to, 4 * count, peer, false});
}

static int size_of(void* handle) {
    std::lock_guard<std::mutex> lock(turn);
    Comm* comm = known(handle);
    return comm ? comm->size : 0;
}

static int rank_of(void* handle) {
    std::lock_guard<std::mutex> lock(turn);
    Comm* comm = known(handle);
    return comm ? comm->rank : -1;
}

API Code ncclBroadcast(const char* from, char* to, size_t count, int, int root, void* handle, void*) {
    if (rank_of(handle) != root) return ask(handle, {BroadcastIn, nullptr, to, 4 * count, root, false});
    Code code = Success;
    for (int peer = 0; peer < size_of(handle); peer++) {
        Code one = ask(handle, {BroadcastOut, from, to, 4 * count, peer, false});
        if (one != Success) code = one;
    }
    return code;
}

API Code ncclAllGather(const char* from, char* to, size_t count, int, void* handle, void*) {
    size_t bytes = 4 * count;
    Code code = Success;
    int own = rank_of(handle);
    for (int peer = 0; peer < size_of(handle); peer++) {
        Code one = ask(handle, {BroadcastOut, from, to + own * bytes, bytes, peer, false});
        if (peer != own && one == Success) one = ask(handle, {BroadcastIn, nullptr, to + peer * bytes, bytes, peer, false});
        if (one != Success) code = one;
    }
    return code;
}

API Code ncclGroupStart() {
    depth++;
    return Success;
}

API Code ncclGroupEnd() {
    std::lock_guard<std::mutex> lock(turn);
    depth--;
    if (asked.empty()) return Success;
    Comm* comm = asked.front().first;
    for (auto& [_, step] : asked) comm->pending.push_back(step);
    asked.clear();
    comm->groups++;
    counters["groups"]++;
    comm->lag = settings["lag"];
    comm->state = InProgress;
    return InProgress;
}

API const char* ncclGetErrorString(Code code) {
    return code == SystemError ? "unhandled system error" : code == Success ? "no error" : "another error";
}

API const char* ncclGetLastError(void*) {
    static thread_local std::string copy;
    std::lock_guard<std::mutex> lock(turn);
    copy = said;
    return copy.c_str();
}
