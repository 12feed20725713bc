"""The symbols that a library may leave undefined, by provider.

The functions that code of TVM's code generator and LLVM calls are a closed set: the C interface of tvm-ffi and of TVM's CPU
runtime, mathematics, and moving memory.  A linker that compares an object with these lists reports a symbol that no machine
provides while the library is built, not when an application loads it.

Sources: tvm/ffi/c_api.h, tvm/ffi/extra/c_env_api.h and tvm/runtime/c_backend_api.h; LLVM's RuntimeLibcalls.
"""

from __future__ import annotations

TVM_FFI = (
    "TVMFFIAnyViewToOwnedAny",
    "TVMFFIDataTypeFromString",
    "TVMFFIDataTypeToString",
    "TVMFFIEnvCheckSignals",
    "TVMFFIEnvGetStream",
    "TVMFFIEnvModLookupFromImports",
    "TVMFFIEnvModRegisterContextSymbol",
    "TVMFFIEnvModRegisterSystemLibSymbol",
    "TVMFFIEnvSetStream",
    "TVMFFIEnvTensorAlloc",
    "TVMFFIErrorCreate",
    "TVMFFIErrorMoveFromRaised",
    "TVMFFIErrorSetRaised",
    "TVMFFIErrorSetRaisedFromCStr",
    "TVMFFIErrorSetRaisedFromCStrParts",
    "TVMFFIFunctionCall",
    "TVMFFIFunctionCreate",
    "TVMFFIFunctionGetGlobal",
    "TVMFFIFunctionSetGlobal",
    "TVMFFIHandleDeinitOnce",
    "TVMFFIHandleInitOnce",
    "TVMFFIObjectDecRef",
    "TVMFFIObjectIncRef",
    "TVMFFIStringFromByteArray",
)
"""The symbols of tvm_ffi, on every platform."""

TVM_RUNTIME = (
    "TVMBackendAllocWorkspace",
    "TVMBackendAnyListMoveFromPackedReturn",
    "TVMBackendAnyListResetItem",
    "TVMBackendAnyListSetPackedArg",
    "TVMBackendFreeWorkspace",
    "TVMBackendParallelBarrier",
    "TVMBackendParallelLaunch",
    "TVMBackendRunOnce",
)
"""The symbols of tvm_runtime.  A shared library gets these when it is loaded; a system library links to them."""

MEMORY = ("memcmp", "memcpy", "memmove", "memset")

# fmt: off
_MATH = (
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "copysign", "cos", "cosh", "erf",
    "erfc", "exp", "exp2", "expm1", "fabs", "floor", "fma", "fmax", "fmin", "fmod", "hypot", "ldexp", "lgamma", "log",
    "log10", "log1p", "log2", "nearbyint", "nextafter", "pow", "remainder", "rint", "round", "sin", "sinh", "sqrt",
    "tan", "tanh", "tgamma", "trunc",
)
# fmt: on

MATH = tuple(sorted(name + suffix for name in _MATH for suffix in ("", "f")))
"""C99's functions of one or two numbers, in double and single precision; every C library has all of them."""

GNU_MATH = ("exp10", "exp10f", "sincos", "sincosf")
"""LLVM joins a sine and a cosine of one argument where the C library can compute both at once (glibc, musl, bionic)."""

LINUX = ("getauxval",)
"""What a library asks for the CPU's level (glibc, musl, bionic)."""

APPLE = (
    "__bzero",
    "__exp10",
    "__exp10f",
    "__sincos_stret",
    "__sincosf_stret",
    "bzero",
    "dyld_stub_binder",
    "memset_pattern16",
    "memset_pattern4",
    "memset_pattern8",
)
"""The functions of Apple's libSystem that LLVM calls besides C99's (the names as C has them, without the leading
underscore)."""
