"""From kernels to code.  The kernels of a library are in a few groups, each of which goes through TVM's passes and LLVM by
itself, so that its code depends on nothing but its kernels and the target: those of the model, those that runtimes call, the
VM's functions on shapes, and those that choose among kernels for levels of the CPU.  The kernels for a level are a group too,
whose code may use more than the target has.

The host's part of a group becomes an object file.  The device's parts of all become one device module, as the runtime loads it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import tvm
from tvm import relax
from tvm.relax import vm_build

from llmbuild.canonical import Digest, digest_bytes
from llmbuild.compiler import packed_imports
from llmbuild.compiler.levels import LEVELS
from llmbuild.compiler.levels.level import Level
from llmbuild.compiler.passes.levels import CHOICE, level_of
from llmbuild.compiler.pipeline import FOR_RUNTIMES
from llmbuild.compiler.reuse import Reuse

_HOST_ONLY = "tirx.is_host_func"
"""TVM's attribute for the VM's functions on shapes."""

_ENTRY = "tirx.is_entry_func"
"""TVM's attribute for the only function of a module, which it exports a second time under a name for "the" function."""

_GROUPS: tuple[Callable[[Any], bool], ...] = (
    lambda attributes: not {_HOST_ONLY, FOR_RUNTIMES, CHOICE} & set(attributes.keys()),
    lambda attributes: FOR_RUNTIMES in attributes,
    lambda attributes: _HOST_ONLY in attributes,
    lambda attributes: CHOICE in attributes,
)
"""Which functions are in a group, by their attributes."""


def _groups(host: Any) -> tuple[Callable[[Any], bool], ...]:
    """The groups on a host.  Windows' objects are linked only if one alone defines TVM's functions for float16: there, all are
    together."""
    return (lambda _: True,) if "windows" in str(host.attrs.get("mtriple", "")) else _GROUPS


def write_objects(
    module: Any, target: Any, reuse: Reuse, out: Path, require: Callable[[Path], None] = lambda _: None
) -> None:
    """Write the objects of a module after all passes: `lib0.o` to `lib3.o` of the groups of functions, as far as they have any,
    an object by the name of each level of the CPU for which there are kernels, and `devc.o` with the VM's bytecode
    and the device's code.

    `require` raises an error for a file that lacks code for the device: such code is not kept.
    """
    builder = relax.ExecBuilder()
    rest = vm_build._vmcodegen(builder, module)
    kernels = vm_build._filter_tir(rest)
    library = _Library(kernels.attrs, target, reuse, require)
    functions = sorted(
        ((name.name_hint, function) for name, function in kernels.functions.items()), key=lambda one: one[0]
    )
    levels = {name: level_of(function.attrs or {}) for name, function in functions}
    for index, belongs in enumerate(_groups(library.host)):
        group = {name: one for name, one in functions if levels[name] is None and belongs(one.attrs or {})}
        if group:
            (out / f"lib{index}.o").write_bytes(library.add(group))
    for level in LEVELS.values():
        group = {name: one for name, one in functions if levels[name] == level}
        if group:
            (out / f"{level.name}.o").write_bytes(library.add(group, level))
    devices, code = library.device_code()
    root = _generated({}, kernels.attrs, library.host)
    executable = relax.VMExecutable(vm_build._ffi_api.VMLink(builder, target, root, [], {}))
    packed_imports.write(executable, devices, code, out / "devc.o")


@dataclass(frozen=True, slots=True)
class _Group:
    """Functions by name, and the digest of the text of their module, where a stand-in names its function's."""

    functions: Mapping[str, Any]
    key: Digest


class _Library:
    """The kernels of one library: `attributes` are those of its module."""

    def __init__(self, attributes: Any, target: Any, reuse: Reuse, require: Callable[[Path], None]) -> None:
        self.host = target if target.host is None else target.host
        self._attributes = attributes
        self._target = target
        self._reuse = reuse
        self._require = require
        self._on_device: list[_Group] = []
        self._passed: dict[Digest, list[Mapping[Any, Any]]] = {}
        """By key, the functions for the device of those groups that went through TVM's passes here."""

    def add(self, functions: Mapping[str, Any], level: Level | None = None) -> bytes:
        """The object file of the host's part of a group of functions by name, for all of the host's CPUs or those of a level."""
        text = tvm.ir.save_json(tvm.IRModule(functions, attrs=self._attributes))
        group = _Group(functions, digest_bytes(text.encode()))
        if self._target.host is not None and not all(_HOST_ONLY in (one.attrs or {}) for one in functions.values()):
            self._on_device.append(group)

        def compiled() -> bytes:
            cpu = self.host if level is None else level.target(self.host)
            host, self._passed[group.key] = self._after_passes(group, cpu)
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch) / "group.o"
                _generated(host, self._attributes, cpu).write_to_file(str(path))
                return path.read_bytes()

        return self._reuse.code("object", [group.key], compiled)

    def device_code(self) -> tuple[int, bytes]:
        """The code of the devices' parts of all groups, as `packed_imports` writes it, and in how many modules it is."""

        def generated() -> bytes:
            root = _generated({}, self._attributes, self.host)
            for device, functions in self._by_device():
                root.import_module(_generated(functions, self._attributes, device))
            code = packed_imports.device_bytes(root)
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch) / "devc.o"
                path.write_bytes(code)
                self._require(path)
            return bytes([len(root.imports)]) + code

        data = self._reuse.code("device code", [group.key for group in self._on_device], generated)
        return data[0], data[1:]

    def _by_device(self) -> list[tuple[Any, Mapping[Any, Any]]]:
        """The devices' targets with all of their functions."""
        found: dict[str, tuple[Any, dict[Any, Any]]] = {}
        for group in self._on_device:
            if group.key not in self._passed:
                _, self._passed[group.key] = self._after_passes(group, self.host)
            for functions in self._passed[group.key]:
                for name, function in functions.items():
                    target = function.attrs["target"]
                    found.setdefault(str(target), (target, {}))[1][name] = function
        return list(found.values())

    def _after_passes(self, group: _Group, cpu: Any) -> tuple[Mapping[Any, Any], list[Mapping[Any, Any]]]:
        """The functions for the host, whose code is for this CPU, and for each device that TVM's passes make of a group."""
        functions = {name: self._reuse.real(function) for name, function in group.functions.items()}
        if cpu is not self.host:
            functions = {name: function.with_attr("target", cpu) for name, function in functions.items()}
        module = tvm.IRModule(functions, attrs=self._attributes)
        module = tvm.tirx.transform.BindTarget(self._target.with_host(cpu))(module)
        passes, for_host, for_device = tvm.tirx.get_tir_pipeline("default")
        on_host, on_devices = import_module("tvm.tirx.build").split_host_device_mods(passes(module))
        host = {name: one.without_attr(_ENTRY) for name, one in for_host()(on_host).functions.items()}
        return host, [dict(for_device()(part).functions.items()) for part in on_devices.values()]


def _generated(functions: Mapping[Any, Any], attributes: Any, target: Any) -> Any:
    """TVM's code for functions that have passed all passes."""
    return tvm.get_global_func(f"target.build.{target.kind.name}")(tvm.IRModule(functions, attrs=attributes), target)
