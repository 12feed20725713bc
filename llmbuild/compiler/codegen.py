"""From kernels to code.  The kernels of a library are in a few groups, each of which goes through TVM's passes and LLVM by
itself, so that its code depends on nothing but its kernels and the target: those of the model, those that runtimes call, the
VM's functions on shapes, and those that choose among kernels for levels of the CPU.  The kernels for a level are a group too,
whose code may use more than the target has.

On a GPU, TVM's passes run beside a host that stands for all of a kind (`Device.beside_any_host`), up to where the host's
functions become code: libraries for several hosts take what these passes made, and the device's code, from one another.

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
    module: Any, target: Any, beside: Any, reuse: Reuse, out: Path, require: Callable[[Path], None] = lambda _: None
) -> None:
    """Write the objects of a module after all passes: `lib0.o` to `lib3.o` of the groups of functions, as far as they have any,
    an object by the name of each level of the CPU for which there are kernels, and `devc.o` with the VM's bytecode
    and the device's code.

    `beside` is the target that kernels were made for (`Device.beside_any_host`).
    `require` raises an error for a file that lacks code for the device: such code is not kept.
    """
    builder = relax.ExecBuilder()
    rest = vm_build._vmcodegen(builder, module)
    kernels = vm_build._filter_tir(rest)
    library = _Library(kernels.attrs, target, beside, reuse, require)
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
    """Functions by name, and the digest of their text, where a stand-in names its function's."""

    functions: Mapping[str, Any]
    key: Digest


class _Library:
    """The kernels of one library: `attributes` are those of its module, and `beside` is the target that they were made for."""

    def __init__(
        self, attributes: Any, target: Any, beside: Any, reuse: Reuse, require: Callable[[Path], None]
    ) -> None:
        self.host = target if target.host is None else target.host
        self._attributes = attributes
        self._named = tvm.ir.save_json(attributes)
        self._beside = beside
        self._reuse = reuse
        self._require = require
        self._on_device: list[_Group] = []
        self._passed: dict[Digest, list[Any]] = {}
        """By key, the modules for the device of those groups that went through TVM's passes here."""

    def add(self, functions: Mapping[str, Any], level: Level | None = None) -> bytes:
        """The object file of the host's part of a group of functions by name, for all of the host's CPUs or those of a level."""
        text = tvm.ir.save_json(tvm.IRModule(functions))
        group = _Group(functions, digest_bytes(text.encode()))
        if self._beside.host is not None and not all(_HOST_ONLY in (one.attrs or {}) for one in functions.values()):
            self._on_device.append(group)

        def compiled() -> bytes:
            cpu = self.host if level is None else level.target(self.host)
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch) / "group.o"
                _generated(self._for_host(group, cpu), self._attributes, cpu).write_to_file(str(path))
                return path.read_bytes()

        return self._reuse.host_code([group.key, self._named], compiled)

    def device_code(self) -> tuple[int, bytes]:
        """The code of the device's parts of all groups, as `packed_imports` writes it, and in how many modules it is: one, and on
        a CPU none."""

        def generated() -> bytes:
            # The module's attributes name the library of the host, which device code is none of.
            root = _generated({}, None, self.host)
            if self._on_device:
                root.import_module(_generated(self._for_device(), None, self._beside))
            code = packed_imports.device_bytes(root)
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch) / "devc.o"
                path.write_bytes(code)
                self._require(path)
            return bytes([len(root.imports)]) + code

        data = self._reuse.device_code([group.key for group in self._on_device], generated)
        return data[0], data[1:]

    def _for_device(self) -> Mapping[Any, Any]:
        """The functions of all groups for the device.

        In the order of their names, for TVM's own order is by what its passes copied, and with one target: that of a function
        that was read back is another object than that of one that was made.
        """
        _, _, for_device = tvm.tirx.get_tir_pipeline("default")
        found: dict[Any, Any] = {}
        for group in self._on_device:
            if group.key not in self._passed:
                self._split(group, self._beside)
            for part in self._passed[group.key]:
                for name, function in for_device()(part).functions.items():
                    found[name] = function.with_attr("target", self._beside)
        return dict(sorted(found.items(), key=lambda one: str(one[0].name_hint)))

    def _for_host(self, group: _Group, cpu: Any) -> Mapping[Any, Any]:
        """The functions of a group for the host, whose code is for this CPU."""
        if self._beside.host is None:
            module = self._split(group, cpu)
        else:
            module = self._reuse.lowered([group.key, self._named], lambda: self._split(group, self._beside))
            for name, function in module.functions_items():
                module[name] = function.with_attr("target", cpu)
        _, for_host, _ = tvm.tirx.get_tir_pipeline("default")
        return {name: one.without_attr(_ENTRY) for name, one in for_host()(module).functions.items()}

    def _split(self, group: _Group, target: Any) -> Any:
        """The module for the host that TVM's passes make of a group; those for devices are in `_passed` then."""
        functions = {name: self._reuse.real(function) for name, function in group.functions.items()}
        if target.host is None and target is not self.host:
            functions = {name: function.with_attr("target", target) for name, function in functions.items()}
        module = tvm.IRModule(functions, attrs=self._attributes)
        module = tvm.tirx.transform.BindTarget(target.with_host(target) if target.host is None else target)(module)
        passes, _, _ = tvm.tirx.get_tir_pipeline("default")
        on_host, on_devices = import_module("tvm.tirx.build").split_host_device_mods(passes(module))
        self._passed[group.key] = list(on_devices.values())
        return on_host


def _generated(functions: Mapping[Any, Any], attributes: Any, target: Any) -> Any:
    """TVM's code for functions that have passed all passes."""
    return tvm.get_global_func(f"target.build.{target.kind.name}")(tvm.IRModule(functions, attrs=attributes), target)
