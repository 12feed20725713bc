// Calls a function of TVM without any library of the machine: arrays from standard input, the last one to standard output.
// Linux' AArch64 calls are all that it needs, so that an emulator of the processor is enough.

#include <dlpack/dlpack.h>
#include <stddef.h>
#include <stdint.h>
#include <tvm/ffi/c_api.h>
#include <tvm/runtime/c_backend_api.h>

enum { OPEN_AT = 56, CLOSE = 57, READ = 63, WRITE = 64, EXIT = 94, TASKS = 3 };

int __tvm_ffi_main(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result);

static long call(long number, long one, const void *two, long three) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = one;
  register long x1 __asm__("x1") = (long)two;
  register long x2 __asm__("x2") = three;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
}

static void quit(int code) { call(EXIT, code, 0, 0); }

static void move(long number, long file, const void *data, uint64_t size) {
  for (const uint8_t *at = data; size > 0;) {
    long done = call(number, file, at, (long)size);
    if (done <= 0) quit(2);
    at += done;
    size -= (uint64_t)done;
  }
}

static void *take(uint64_t size) {
  static uint8_t memory[1 << 28] __attribute__((aligned(64)));
  static uint64_t used;
  void *found = memory + used;
  used += (size + 63) & ~UINT64_C(63);
  if (used > sizeof memory) quit(3);
  return found;
}

static void *take_read(uint64_t size) {
  void *data = take(size);
  move(READ, 0, data, size);
  return data;
}

void *TVMBackendAllocWorkspace(int type, int id, uint64_t size, int code, int bits) { return take(size); }
int TVMBackendFreeWorkspace(int type, int id, void *pointer) { return 0; }
int TVMFFIEnvModRegisterSystemLibSymbol(const char *name, void *symbol) { return 0; }

int TVMBackendParallelLaunch(FTVMParallelLambda body, void *data, int tasks) {
  TVMParallelGroupEnv environment = {.num_task = TASKS};
  for (int task = 0; task < TASKS; task++)
    if (body(task, &environment, data)) return -1;
  return 0;
}

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  for (int32_t part = 0; part < count; part++) {
    size_t size = 0;
    while (parts[part][size]) size++;
    move(WRITE, 2, parts[part], size);
  }
}

// What a library asks about the processor (getauxval(3)).
unsigned long getauxval(unsigned long type) {
  struct {
    uint64_t type, value;
  } entry = {0};
  uint64_t found = 0;
  long file = call(OPEN_AT, 0, "/proc/self/auxv", 0);
  if (file < 0) quit(4);
  while (call(READ, file, &entry, sizeof entry) == sizeof entry)
    if (entry.type == type) found = entry.value;
  call(CLOSE, file, 0, 0);
  return found;
}

// What a compiler calls by itself.
void *memset(void *to, int value, size_t size) {
  for (size_t i = 0; i < size; i++) ((volatile uint8_t *)to)[i] = (uint8_t)value;
  return to;
}
void *memcpy(void *to, const void *from, size_t size) {
  for (size_t i = 0; i < size; i++) ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
  return to;
}

void _start(void) {
  enum { MOST = 8 };
  static DLTensor tensors[MOST];
  static TVMFFIAny arguments[MOST];
  struct { int64_t dimensions, code, bits, bytes; } *head;
  int64_t count = *(int64_t *)take_read(sizeof count);
  if (count < 1 || count > MOST) quit(4);
  for (int64_t i = 0; i < count; i++) {
    head = take_read(sizeof *head);
    uint64_t size = (uint64_t)head->dimensions * sizeof(int64_t);
    int64_t *shape = take_read(size), *strides = take(size), step = 1;
    for (int64_t d = head->dimensions - 1; d >= 0; step *= shape[d--]) strides[d] = step;
    tensors[i] = (DLTensor){
        .data = take_read((uint64_t)head->bytes),
        .device = {kDLCPU, 0},
        .ndim = (int32_t)head->dimensions,
        .dtype = {(uint8_t)head->code, (uint8_t)head->bits, 1},
        .shape = shape,
        .strides = strides,
    };
    arguments[i] = (TVMFFIAny){.type_index = kTVMFFIDLTensorPtr, .v_ptr = &tensors[i]};
  }
  TVMFFIAny result = {0};
  if (__tvm_ffi_main(0, arguments, (int32_t)count, &result)) quit(1);
  move(WRITE, 1, tensors[count - 1].data, (uint64_t)head->bytes);
  quit(0);
}
