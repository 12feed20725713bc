// Ask a model library for tokens through TVM's runtime alone, as an application does that embeds it.
//
//   greedy LIBRARY WEIGHTS CAPACITY COUNT PARAMETERS_FILE RUNTIME... -- TOKEN...
//
// LIBRARY is a file, or system:PREFIX for one that is linked into this program.
// WEIGHTS is the directory with tensor-cache.json, PARAMETERS_FILE has a parameter's name a line in the order of the
// library's metadata, each RUNTIME is a shared library to load first, and the TOKENs are the prompt.  Prints COUNT tokens,
// each the likeliest one after those before it.
#ifdef __MINGW32__
#include <cstdlib>
// TVM's header takes every compiler but Microsoft's for POSIX.  malloc aligns to 16 bytes, which is what it asks for.
static int posix_memalign(void** memory, size_t, size_t size) { return (*memory = std::malloc(size)) ? 0 : 12; }
#endif

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/shape.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

#ifdef _WIN32
#include <windows.h>
static bool Load(const char* path) { return LoadLibraryA(path) != nullptr; }
#else
#include <dlfcn.h>
static bool Load(const char* path) { return dlopen(path, RTLD_NOW | RTLD_GLOBAL) != nullptr; }
#endif

using tvm::ffi::Any;
using tvm::ffi::Array;
using tvm::ffi::Function;
using tvm::ffi::Module;
using tvm::ffi::Shape;
using tvm::ffi::String;
using tvm::ffi::Tensor;

static constexpr int kCPU = 1, kPooled = 2;

static Function Global(const char* name) { return Function::GetGlobalRequired(name); }

// Through the table of global functions: the C++ methods of Microsoft's compiler cannot be linked by others.
static Function Member(const Module& module, const char* name) {
  return Global("ffi.ModuleGetFunction")(module, String(name), true).cast<Function>();
}

static Module Library(const char* name) {
  static const char kSystem[] = "system:";
  size_t length = sizeof(kSystem) - 1;
  if (std::strncmp(name, kSystem, length) != 0) return Global("ffi.ModuleLoadFromFile")(String(name)).cast<Module>();
  return Global("ffi.SystemLib")(String(name + length)).cast<Module>();
}

static Tensor Tokens(const std::vector<int32_t>& ids) {
  Tensor tensor = Global("runtime.TVMTensorAllocWithScope")(Shape({static_cast<int64_t>(ids.size())}),
                                                            DLDataType{kDLInt, 32, 1}, DLDevice{kDLCPU, 0}, nullptr)
                      .cast<Tensor>();
  std::memcpy(tensor.data_ptr(), ids.data(), ids.size() * sizeof(int32_t));
  return tensor;
}

static int32_t Likeliest(const Tensor& logits) {
  const float* values = static_cast<const float*>(logits.data_ptr());
  int64_t count = logits.numel(), best = 0;
  for (int64_t i = 1; i < count; ++i) {
    if (values[i] > values[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

static int Run(int argc, char** argv) {
  int at = 6;
  for (; at < argc && std::strcmp(argv[at], "--") != 0; ++at) {
    if (!Load(argv[at])) {
      std::fprintf(stderr, "cannot load %s\n", argv[at]);
      return 2;
    }
  }
  std::vector<int32_t> ids;
  for (++at; at < argc; ++at) ids.push_back(std::atoi(argv[at]));

  Module library = Library(argv[1]);
  Module vm = Member(library, "vm_load_executable")().cast<Module>();
  Member(vm, "vm_initialization")(kCPU, 0, kPooled);
  auto function = [&](const char* name) { return Member(vm, name); };

  Global("vm.builtin.tensor_cache.load")(String(argv[2]), kCPU, 0);
  std::vector<String> names;
  std::ifstream file(argv[5]);
  for (std::string line; std::getline(file, line);) names.push_back(String(line));
  Any parameters = Global("vm.builtin.param_array_from_cache_by_name")(Array<String>(names.begin(), names.end()));

  int64_t capacity = std::atoll(argv[3]);
  Any cache = function("create_tir_paged_kv_cache")(Shape({1}), Shape({capacity}), Shape({capacity}), Shape({16}),
                                                    Shape({0}));
  Global("vm.builtin.kv_state_add_sequence")(cache, 0);
  for (int step = 0, count = std::atoi(argv[4]); step < count; ++step) {
    int64_t length = static_cast<int64_t>(ids.size());
    Tensor rows = function("embed")(Tokens(ids), parameters).cast<Tensor>();
    Any embedded = Global("vm.builtin.reshape")(rows, Shape({1, length, rows.size(1)}));
    Global("vm.builtin.kv_state_begin_forward")(cache, Shape({0}), Shape({length}));
    Any result = function(length > 1 ? "prefill" : "decode")(embedded, cache, parameters);
    Global("vm.builtin.kv_state_end_forward")(cache);
    ids = {Likeliest(result.cast<Array<Any>>()[0].cast<Tensor>())};
    std::printf("%d ", ids[0]);
    std::fflush(stdout);
  }
  std::printf("\n");
  return 0;
}

int main(int argc, char** argv) {
  try {
    return Run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
