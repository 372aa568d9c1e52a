// CUDA C++ on the CPU: the threads of a block are fibers of one thread, switched at barriers only.
//
// Every fiber runs until its next barrier or its end; the order of the fibers is turned around in every other phase and block, so that a
// value read before the barrier that should have come first is stale in one order or the other. Threads that end while others wait, or
// that wait at different barriers, stop the launch with a message. Shared memory starts as NaN and is followed by a strip that must not change.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <type_traits>
#include <ucontext.h>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __syncthreads() device::barrier(device::AT_BARRIER, __LINE__)
#define __syncwarp(...) device::barrier(device::AT_WARP, __LINE__)
#define __threadfence()
#define __ldg(pointer) (*(pointer))

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct double2 { double x, y; };
struct double3 { double x, y, z; };
static inline double2 make_double2(double x, double y) { return {x, y}; }
static inline double3 make_double3(double x, double y, double z) { return {x, y, z}; }
static dim3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;

namespace device {

enum State { READY, AT_BARRIER, AT_WARP, DONE };

struct Fiber {
    State state;
    bool started;
    int line;
    dim3 place;
    char* stack;
    jmp_buf context;
    ucontext_t start;
    unsigned char exchanged[8];
};

static const size_t STACK = 256 * 1024, MARGIN = 256;
static Fiber* fibers = nullptr;
static int n_fibers = 0, n_made = 0, current = -1;
static jmp_buf scheduler;
static void (*body)(void*) = nullptr;
static void* body_data = nullptr;
static char* shared_memory = nullptr;
static char message[512];

static void enter() {
    body(body_data);
    fibers[current].state = DONE;
    _longjmp(scheduler, 1);
}

static __attribute__((noinline)) void resume(int k) {
    current = k;
    threadIdx = fibers[k].place;
    if (_setjmp(scheduler) == 0) {
        if (fibers[k].started) _longjmp(fibers[k].context, 1);
        fibers[k].started = true;
        setcontext(&fibers[k].start);
    }
}

static __attribute__((noinline)) void barrier(State kind, int line) {
    fibers[current].state = kind;
    fibers[current].line = line;
    if (_setjmp(fibers[current].context) == 0) _longjmp(scheduler, 1);
}

static void make_fibers(int n) {
    if (n > n_made) {
        fibers = (Fiber*)realloc(fibers, n * sizeof(Fiber));
        for (int k = n_made; k < n; k++)
            fibers[k].stack = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        n_made = n;
    }
    n_fibers = n;
}

static void restart(int k) {
    Fiber& f = fibers[k];
    f.state = READY;
    f.started = false;
    f.place.x = k % blockDim.x;
    f.place.y = k / blockDim.x % blockDim.y;
    f.place.z = k / (blockDim.x * blockDim.y);
    getcontext(&f.start);
    f.start.uc_stack.ss_sp = f.stack;
    f.start.uc_stack.ss_size = STACK;
    f.start.uc_link = nullptr;
    makecontext(&f.start, enter, 0);
}

// Run the threads of one warp to their next block barrier or end; false on a divergent barrier.
static bool run_warp(int first, int last, bool backwards) {
    while (true) {
        for (int s = first; s < last; s++) {
            int k = backwards ? last - 1 - (s - first) : s;
            if (fibers[k].state == READY) resume(k);
        }
        int waiting = 0, lane = -1;
        for (int k = first; k < last; k++)
            if (fibers[k].state == AT_WARP) waiting++, lane = k;
        if (!waiting) return true;
        if (waiting != last - first) {
            snprintf(message, sizeof message, "only %d of the %d threads of a warp reach the warp's barrier or shuffle in line %d of the source",
                     waiting, last - first, fibers[lane].line);
            return false;
        }
        for (int k = first; k < last; k++) fibers[k].state = READY;
        backwards = !backwards;
    }
}

static bool run_block(bool backwards) {
    for (int k = 0; k < n_fibers; k++) restart(k);
    while (true) {
        int n_warps = (n_fibers + 31) / 32;
        for (int s = 0; s < n_warps; s++) {
            int w = backwards ? n_warps - 1 - s : s, last = 32 * w + 32;
            if (!run_warp(32 * w, last < n_fibers ? last : n_fibers, backwards)) return false;
        }
        int waiting = 0, line = -1;
        for (int k = 0; k < n_fibers; k++) {
            if (fibers[k].state != AT_BARRIER) continue;
            if (line >= 0 && fibers[k].line != line) {
                snprintf(message, sizeof message, "threads of a block wait at different barriers, in lines %d and %d of the source", line, fibers[k].line);
                return false;
            }
            line = fibers[k].line;
            waiting++;
        }
        if (!waiting) return true;
        if (waiting != n_fibers) {
            snprintf(message, sizeof message, "only %d of the %d threads of a block reach the barrier in line %d of the source", waiting, n_fibers, line);
            return false;
        }
        for (int k = 0; k < n_fibers; k++) fibers[k].state = READY;
        backwards = !backwards;
    }
}

template <class Body>
const char* run(const unsigned* geometry, unsigned long shared, Body call) {
    gridDim.x = geometry[0], gridDim.y = geometry[1], gridDim.z = geometry[2];
    blockDim.x = geometry[3], blockDim.y = geometry[4], blockDim.z = geometry[5];
    make_fibers(blockDim.x * blockDim.y * blockDim.z);
    body = [](void* data) { (*(Body*)data)(); };
    body_data = &call;
    free(shared_memory);
    shared_memory = (char*)aligned_alloc(256, (shared / 256 + 1) * 256 + MARGIN);
    const char* problem = nullptr;
    for (unsigned z = 0; z < gridDim.z && !problem; z++)
        for (unsigned y = 0; y < gridDim.y && !problem; y++)
            for (unsigned x = 0; x < gridDim.x && !problem; x++) {
                blockIdx.x = x, blockIdx.y = y, blockIdx.z = z;
                memset(shared_memory, 0xff, shared + MARGIN);
                if (!run_block((x + y + z) & 1)) problem = message;
                for (size_t k = shared; k < shared + MARGIN && !problem; k++)
                    if (shared_memory[k] != (char)0xff) {
                        snprintf(message, sizeof message, "block %u writes past the end of its %lu bytes of shared memory", x, shared);
                        problem = message;
                    }
            }
    return problem;
}

template <class T>
T shuffled(T value, int source, bool inside) {
    static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
    int me = current, first = current / 32 * 32;
    memcpy(fibers[me].exchanged, &value, sizeof(T));
    barrier(AT_WARP, 0);
    if (inside && first + source < n_fibers) memcpy(&value, fibers[first + source].exchanged, sizeof(T));
    barrier(AT_WARP, 0);
    return value;
}

}  // namespace device

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    int me = device::current % 32;
    return device::shuffled(value, me / width * width + lane % width, true);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int by, int width = 32) {
    int me = device::current % 32;
    return device::shuffled(value, me + by, me % width + by < width);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, int by, int width = 32) {
    int me = device::current % 32;
    return device::shuffled(value, me - by, me % width >= by);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32) {
    return device::shuffled(value, device::current % 32 ^ by, true);
}

template <class A, class B>
inline typename std::common_type<A, B>::type min(A a, B b) {
    typename std::common_type<A, B>::type x = a, y = b;
    return y < x ? y : x;
}
template <class A, class B>
inline typename std::common_type<A, B>::type max(A a, B b) {
    typename std::common_type<A, B>::type x = a, y = b;
    return x < y ? y : x;
}
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline void sincospi(double x, double* s, double* c) {
    *s = sin(M_PI * x);
    *c = cos(M_PI * x);
}
template <class T>
inline T atomicAdd(T* p, T v) {
    T old = *p;
    *p += v;
    return old;
}
template <class T>
inline T atomicMax(T* p, T v) {
    T old = *p;
    if (v > old) *p = v;
    return old;
}
template <class T>
inline T atomicMin(T* p, T v) {
    T old = *p;
    if (v < old) *p = v;
    return old;
}
