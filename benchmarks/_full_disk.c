/* A disk that is full from the n-th call on: the calls of the C library that write, beside a folder.

   cc -shared -fPIC -O2 -o full_disk.so _full_disk.c -ldl
   FULL_DISK=/folder LD_PRELOAD=./full_disk.so python ...

   Python finds full_disk_from(n) and full_disk_calls() by ctypes.CDLL(None). Calls are numbered from
   1 on, by all threads together; those on files outside the folder are let through and not counted. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls, first;
static atomic_int only;
static char what[PATH_MAX + 64];

/* From the call `from` on (0: never), or at that call `alone`. The count begins anew. */
void full_disk_from(long from, int alone) {
  what[0] = 0;
  first = from;
  only = alone;
  calls = 0;
}
long full_disk_calls(void) { return calls; }
const char *full_disk_what(void) { return what; }

static int below(const char *path) {
  const char *folder = getenv("FULL_DISK");
  size_t length = folder ? strlen(folder) : 0;
  return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int refused(const char *call, const char *path) {
  if (!below(path)) return 0;
  long number = atomic_fetch_add(&calls, 1) + 1;
  if (!first || number < first || (only && number > first)) return 0;
  if (number == first) snprintf(what, sizeof what, "%s %s", call, path);
  errno = ENOSPC;
  return 1;
}

static int refused_file(const char *call, int fd) {
  char link[64], path[PATH_MAX];
  int kept = errno;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  errno = kept;
  if (length < 0) return 0;
  path[length] = 0;
  return refused(call, path);
}

/* A path relative to a folder that is open. */
static int refused_at(const char *call, int folder, const char *path) {
  char link[64], whole[2 * PATH_MAX];
  if (path[0] == '/') return refused(call, path);
  snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
  ssize_t length = readlink(link, whole, PATH_MAX);
  if (length < 0) return 0;
  snprintf(whole + length, sizeof whole - length, "/%s", path);
  return refused(call, whole);
}

#define REAL(name) \
  static typeof(&name) real; \
  if (!real) real = (typeof(&name))dlsym(RTLD_NEXT, #name)

#define ON_FILE(type, name, parameters, ...) \
  type name parameters { \
    REAL(name); \
    return refused_file(#name, fd) ? -1 : real(__VA_ARGS__); \
  }

ON_FILE(ssize_t, write, (int fd, const void *from, size_t n), fd, from, n)
ON_FILE(ssize_t, writev, (int fd, const struct iovec *from, int n), fd, from, n)
ON_FILE(ssize_t, pwrite, (int fd, const void *from, size_t n, off_t at), fd, from, n, at)
ON_FILE(ssize_t, pwrite64, (int fd, const void *from, size_t n, off64_t at), fd, from, n, at)
ON_FILE(ssize_t, pwritev, (int fd, const struct iovec *from, int n, off_t at), fd, from, n, at)
ON_FILE(ssize_t, pwritev64, (int fd, const struct iovec *from, int n, off64_t at), fd, from, n, at)
ON_FILE(int, fsync, (int fd), fd)
ON_FILE(int, fdatasync, (int fd), fd)
ON_FILE(int, ftruncate, (int fd, off_t size), fd, size)
ON_FILE(int, ftruncate64, (int fd, off64_t size), fd, size)
ON_FILE(int, fallocate, (int fd, int mode, off_t at, off_t n), fd, mode, at, n)

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  return refused_at("mkdir", AT_FDCWD, path) ? -1 : real(path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
  REAL(mkdirat);
  return refused_at("mkdirat", folder, path) ? -1 : real(folder, path, mode);
}
int rename(const char *from, const char *to) {
  REAL(rename);
  return refused_at("rename", AT_FDCWD, to) ? -1 : real(from, to);
}
int renameat(int folder, const char *from, int other, const char *to) {
  REAL(renameat);
  return refused_at("renameat", other, to) ? -1 : real(folder, from, other, to);
}
int renameat2(int folder, const char *from, int other, const char *to, unsigned flags) {
  REAL(renameat2);
  return refused_at("renameat2", other, to) ? -1 : real(folder, from, other, to, flags);
}
int link(const char *from, const char *to) {
  REAL(link);
  return refused_at("link", AT_FDCWD, to) ? -1 : real(from, to);
}

/* Opening counts where it makes a file. */
#define OPENING(name) \
  int name(const char *path, int flags, ...) { \
    va_list more; \
    va_start(more, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more); \
    REAL(name); \
    int makes = flags & O_CREAT && access(path, F_OK); \
    return makes && refused_at(#name, AT_FDCWD, path) ? -1 : real(path, flags, mode); \
  }
#define OPENING_AT(name) \
  int name(int folder, const char *path, int flags, ...) { \
    va_list more; \
    va_start(more, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more); \
    REAL(name); \
    int makes = flags & O_CREAT && faccessat(folder, path, F_OK, 0); \
    return makes && refused_at(#name, folder, path) ? -1 : real(folder, path, flags, mode); \
  }
OPENING(open)
OPENING(open64)
OPENING_AT(openat)
OPENING_AT(openat64)
