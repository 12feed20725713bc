"""What MLC's applications for iOS and Android have in common: their list of models, and libraries that are linked by prefix.

    bundle/mlc-app-config.json         the models: {"model_list": [{model_id, model_lib, …, estimated_vram_bytes}]}
    bundle/<model_id>/                 a model directory, where the weights are in the bundle
    lib/…/libmodel_….a                 the libraries of all models, joined

The fields are those that the applications of mlc-llm read (ios/MLCChat/MLCChat/Models/AppConfig.swift,
android/MLCChat/…/AppViewModel.kt, both at revision 79d603f).  `model_lib` is the system-library prefix without its last
underscore: the runtime adds it again (cpp/serve/function_table.cc).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from llmbuild.canonical import Json
from llmbuild.errors import InputError, did_you_mean
from llmbuild.packages.kind import Library, Member, Mistake, Out, Package, PackageKind, Platform, Use
from llmbuild.packages.model_url import EXAMPLE, url_of, wrong_url

APP_CONFIG = "mlc-app-config.json"

BUNDLE, URL = "bundle", "url"
"""Where the applications find weights: beside the application, or at a URL that they download from."""


class Phone(PackageKind):
    """A kind for one of MLC's applications."""

    options: ClassVar[frozenset[str]] = frozenset({"weights", "url"})
    batches: ClassVar[bool] = True  # MLCEngine's mode "interactive": one sequence, by the functions for several.
    library: ClassVar[str]
    """The name of the joined archive."""

    @abstractmethod
    def archive(self, platform: Platform) -> str:
        """The archive of a platform: every phone's libraries are joined."""

    @abstractmethod
    def place(self, model_id: str, bundled: bool, url: str | None) -> dict[str, Json]:
        """The fields of a model's entry by which the application finds its files."""

    def mistakes(self, options: Mapping[str, Json], uses: Sequence[Use]) -> Iterator[Mistake]:
        yield from _wrong_prefixes(uses)
        yield from self._doubled(uses)
        yield from _wrong_weights(options, uses)
        yield from wrong_url(options, uses)

    def write(self, package: Package, out: Out) -> None:
        entries: list[Json] = []
        for member in package.members:
            bundled = where_weights_are(package.options, member.model) == BUNDLE
            entries.append(
                {
                    "model_id": member.model_id,
                    "model_lib": _model_lib(member),
                    **self.place(member.model_id, bundled, url_of(package.options, member.model, member.scheme)),
                    "estimated_vram_bytes": self._memory(member.libraries),
                }
            )
            for name, file in member.files.items() if bundled else ():
                out.pass_on(file, f"bundle/{member.model_id}/{name}")
        out.write_json(f"bundle/{APP_CONFIG}", {"model_list": entries})
        for word, file in package.archives.items():
            out.pass_on(file, "/".join(filter(None, ("lib", word, self.library))))

    def _doubled(self, uses: Sequence[Use]) -> Iterator[Mistake]:
        """An archive has one library of a model, and a model has one name in all archives."""
        first: dict[tuple[str, str, str], Use] = {}
        for use in uses:
            before = first.setdefault((use.model, use.scheme, self.archive(use.platform)), use)
            if before is not use:
                yield Mistake(
                    f"'{use.model}, {use.scheme}' would be in {self.library} twice",
                    why=f"the platforms {before.platform.name} and {use.platform.name} both build it for this package",
                    fix=f'choose one: platforms = ["{before.platform.name}"], and make another package for the other',
                )
                return
        prefixes: dict[tuple[str, str], Use] = {}
        for use in uses:
            before = prefixes.setdefault((use.model, use.scheme), use)
            if before.platform.prefix != use.platform.prefix:
                yield Mistake(
                    f"the platforms {before.platform.name} and {use.platform.name} have different prefixes",
                    why=f"{APP_CONFIG} has one model_lib for a model, whatever the processor",
                    fix=f'write system-lib-prefix = "{before.platform.prefix}" for both',
                    key="system-lib-prefix",
                    platform=use.platform.name,
                )
                return

    def _memory(self, libraries: Sequence[Library]) -> int:
        """The bytes that the model needs on the device, the most of its libraries."""
        from llmbuild.packages.memory import memory_of, sizes_in

        return max(
            memory_of(library.metadata, library.platform.device, sizes_in(self, library.metadata)).total
            for library in libraries
        )


def where_weights_are(options: Mapping[str, Json], model: str) -> str:
    """`weights` of a package for one model: "bundle" or "url"; the former where the manifest says nothing of the model."""
    weights = options.get("weights", BUNDLE)
    return str(weights.get(model, BUNDLE) if isinstance(weights, dict) else weights)


def _wrong_prefixes(uses: Sequence[Use]) -> Iterator[Mistake]:
    for platform in {use.platform.name: use.platform for use in uses}.values():
        if not platform.prefix.endswith("_") or not platform.prefix.strip("_"):
            has = f"the prefix '{platform.prefix}'" if platform.prefix else "no prefix"
            yield Mistake(
                f"the libraries of platform '{platform.name}' have {has}, by which MLC's applications do not find them",
                why="they take model_lib from the list of models and append an underscore",
                fix='a name and an underscore: system-lib-prefix = "{model}_{quantization}_"',
                key="system-lib-prefix",
                platform=platform.name,
            )


def _wrong_weights(options: Mapping[str, Json], uses: Sequence[Use]) -> Iterator[Mistake]:
    weights = options.get("weights")
    models = dict.fromkeys(use.model for use in uses)
    for model in weights if isinstance(weights, dict) else ():
        if model not in models:
            yield Mistake(
                f"the package has no model '{model}' whose weights could be elsewhere",
                fix=did_you_mean(model, models) or f"its models are: {', '.join(models)}",
                key="weights",
            )
    if "url" not in options and any(where_weights_are(options, model) == URL for model in models):
        yield Mistake(
            "nothing says where the weights are",
            why='weights = "url" has the application download them',
            fix=f'add url = "{EXAMPLE}"',
            key="weights",
        )


def _model_lib(member: Member) -> str:
    """The name of the member's library in all archives.  Raises InputError for a record that has no such prefix."""
    prefixes = {str(library.metadata.get("system_lib_prefix") or "") for library in member.libraries}
    prefix = prefixes.pop()
    if prefixes or not prefix.endswith("_"):
        raise InputError(
            "the records of the libraries have no prefix that MLC's applications find",
            where=member.model_id,
            why=f"system_lib_prefix is {' and '.join(sorted({prefix, *prefixes})) or 'missing'}",
        )
    return prefix.removesuffix("_")
