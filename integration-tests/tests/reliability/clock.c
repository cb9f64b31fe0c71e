/* Wall clocks that are wrong, for programs that are started with this in LD_PRELOAD.
 *
 * TEST_CLOCK_SKEW is a number of seconds by which clocks go ahead. With TEST_CLOCK_JUMP, a number of seconds too, they jump
 * between that and the same number behind, and back, so often. Clocks that only measure are left alone, as no wrong setting of
 * a clock changes them. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long skew(void) {
    const char *seconds = getenv("TEST_CLOCK_SKEW"), *jump = getenv("TEST_CLOCK_JUMP");
    long by = seconds ? atol(seconds) : 0, every = jump ? atol(jump) : 0;
    if (every > 0) {
        struct timespec now;
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
        if (now.tv_sec / every % 2) by = -by;
    }
    return by;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = (int)syscall(SYS_clock_gettime, clock, time);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += skew();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec time;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &time)) return -1;
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec time;
    if (clock_gettime(CLOCK_REALTIME, &time)) return -1;
    if (now) *now = time.tv_sec;
    return time.tv_sec;
}
