/* A wall clock that is wrong: loaded before the C library (LD_PRELOAD), it answers for it.
 *
 * FAULTS_CLOCK_SHIFT: seconds that are added to the time.
 * FAULTS_CLOCK_JUMP:  seconds that are added in every other period of FAULTS_CLOCK_PERIOD milliseconds.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long of(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static long shift(void) {
    struct timespec now;
    long seconds = of("FAULTS_CLOCK_SHIFT"), period = of("FAULTS_CLOCK_PERIOD");
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    if (period > 0 && (now.tv_sec * 1000 + now.tv_nsec / 1000000) / period % 2)
        seconds += of("FAULTS_CLOCK_JUMP");
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += shift();
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}
