/* A libcuda with host memory and no GPU: it lets the real cuda-bindings convert and pass on our calls.
   Functions that are not here succeed and give zeros. Wrong constants are answered with an error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_READY = 600 };
enum { THREAD_LOCAL = 1, NON_BLOCKING = 1, DISABLE_TIMING = 2, MAJOR = 75, GRAPH = 77, EXECUTABLE = 78 };

typedef uintptr_t handle;

int succeed(void) { return SUCCESS; }
int cuDriverGetVersion(int *version) { *version = 13010; return SUCCESS; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == MAJOR ? 9 : 0; return SUCCESS; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Stub", length); return SUCCESS; }
int cuMemGetInfo_v2(size_t *free_, size_t *total) { *free_ = 1 << 20; *total = 1 << 21; return SUCCESS; }

int cuMemAlloc_v2(uint64_t *address, size_t nbytes) {
  return posix_memalign((void **)address, 256, nbytes) ? OUT_OF_MEMORY : SUCCESS;
}
int cuMemFree_v2(uint64_t address) { free((void *)address); return SUCCESS; }
int cuMemHostAlloc(void **address, size_t nbytes, unsigned flags) {
  return posix_memalign(address, 256, nbytes) ? OUT_OF_MEMORY : SUCCESS;
}
int cuMemFreeHost(void *address) { free(address); return SUCCESS; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t nbytes, void *stream) { memmove((void *)to, from, nbytes); return SUCCESS; }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t nbytes, void *stream) { memmove(to, (void *)from, nbytes); return SUCCESS; }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t nbytes, void *stream) { memmove((void *)to, (void *)from, nbytes); return SUCCESS; }
int cuMemsetD8Async(uint64_t address, unsigned char value, size_t nbytes, void *stream) { memset((void *)address, value, nbytes); return SUCCESS; }

int cuStreamCreate(handle *stream, unsigned flags) {
  static handle next = 16;
  *stream = next++;
  return flags == NON_BLOCKING ? SUCCESS : INVALID_VALUE;
}
int cuStreamBeginCapture_v2(void *stream, int mode) { return mode == THREAD_LOCAL ? SUCCESS : INVALID_VALUE; }
int cuStreamEndCapture(void *stream, handle *graph) { *graph = GRAPH; return SUCCESS; }
int cuGraphInstantiateWithFlags(handle *executable, handle graph, unsigned long long flags) {
  *executable = EXECUTABLE;
  return graph == GRAPH && !flags ? SUCCESS : INVALID_VALUE;
}
int cuGraphLaunch(handle executable, void *stream) { return executable == EXECUTABLE ? SUCCESS : INVALID_VALUE; }

int cuEventCreate(handle *event, unsigned flags) { *event = 5 + flags; return SUCCESS; }
int cuEventQuery(handle event) { return event == 5 + DISABLE_TIMING ? NOT_READY : SUCCESS; }
int cuEventElapsedTime(float *ms, handle start, handle end) { *ms = 1.5f; return SUCCESS; }
int cuEventElapsedTime_v2(float *ms, handle start, handle end) { return cuEventElapsedTime(ms, start, end); }

int cuKernelGetParamInfo(handle kernel, size_t index, size_t *offset, size_t *nbytes) {
  *offset = 8 * index; *nbytes = 8;
  return index < 2 ? SUCCESS : INVALID_VALUE;
}
int cuLaunchKernel(void *f, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned b, unsigned c,
                   unsigned shared, void *stream, void **parameters, void **extra) {
  return x == 3 && threads == 32 && *(uint64_t *)parameters[0] == 4096 ? SUCCESS : INVALID_VALUE;
}

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
  char versioned[128];
  Dl_info own;
  dladdr((void *)succeed, &own);
  void *library = dlopen(own.dli_fname, RTLD_LAZY);
  if (!strcmp(name, "cuGraphInstantiate")) name = "cuGraphInstantiateWithFlags";
  snprintf(versioned, sizeof versioned, "%s_v2", name);
  *function = dlsym(library, versioned);
  if (!*function) *function = dlsym(library, name);
  if (!*function) *function = succeed;
  if (status) *status = 0;
  return SUCCESS;
}
int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
  return cuGetProcAddress_v2(name, function, version, flags, 0);
}
