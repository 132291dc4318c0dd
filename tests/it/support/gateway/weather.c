/* Preloaded into a node: a control file moves the node's wall clock and fills the disk under one folder.
 *
 * The control file holds two 64-bit numbers: nanoseconds to add to CLOCK_REALTIME, and 1 while the disk is full.
 * WEATHER names the file, DISK the folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *control;
static const char *disk;

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("WEATHER");
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED) control = page;
    disk = getenv("DISK");
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int done = next(clock, time);
    if (done == 0 && clock == CLOCK_REALTIME && control) {
        int64_t nanos = time->tv_sec * 1000000000LL + time->tv_nsec + control[0];
        time->tv_sec = nanos / 1000000000LL;
        time->tv_nsec = nanos % 1000000000LL;
    }
    return done;
}

/* True for a file under the folder while the disk is full. */
static int is_full(int fd) {
    if (!control || !control[1] || !disk) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t prefix = strlen(disk);
    if (length < (ssize_t)prefix || strncmp(path, disk, prefix) != 0) return 0;
    errno = ENOSPC;
    return 1;
}

#define WRITES(name, parameters, arguments)                             \
    ssize_t name parameters {                                           \
        static ssize_t(*next) parameters;                               \
        if (!next) next = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #name); \
        return is_full(fd) ? -1 : next arguments;                       \
    }

WRITES(write, (int fd, const void *bytes, size_t count), (fd, bytes, count))
WRITES(pwrite, (int fd, const void *bytes, size_t count, off_t at), (fd, bytes, count, at))
WRITES(pwrite64, (int fd, const void *bytes, size_t count, off64_t at), (fd, bytes, count, at))
WRITES(writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
