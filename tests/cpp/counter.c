// Counts malloc and pthread_mutex_lock between counter_start and counter_stop, as a library to be preloaded.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
static volatile long allocations, locks;
static volatile int counting;
static void *(*real_malloc)(size_t);
static int (*real_lock)(pthread_mutex_t *);
void *malloc(size_t n) {
  if (!real_malloc) real_malloc = dlsym(RTLD_NEXT, "malloc");
  if (counting) __sync_fetch_and_add(&allocations, 1);
  return real_malloc(n);
}
int pthread_mutex_lock(pthread_mutex_t *m) {
  if (!real_lock) real_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
  if (counting) __sync_fetch_and_add(&locks, 1);
  return real_lock(m);
}
void counter_start(void) { allocations = locks = 0; counting = 1; }
long counter_stop(int which) { counting = 0; return which ? locks : allocations; }
