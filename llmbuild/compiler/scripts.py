"""TVMScript parsed in fewer steps, with the same functions as the result: parsing took a sixth of a lowering's time.

TVM's parser evaluates every part of an expression by itself: it makes a syntax tree of Python's from its own, compiles it and
runs that.  It translates a macro's source at every use, and finds the parser that a macro belongs to by all frames below it.
Each result gets its place in the source, which nothing here reads and which makes up a part of a function's text.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from llmbuild.compiler.frames import quick_stacks


@contextmanager
def quick_scripts() -> Iterator[None]:
    """Within this context functions of TVMScript are parsed quickly; `quick_stacks` is part of it."""
    from tvm.script.parser.core import diagnostics, doc, evaluator
    from tvm.script.parser.core.parser import Parser, ScriptMacro

    running: list[Any] = [None]
    evaluate = evaluator._eval_expr

    def evaluated(node: Any, values: dict[str, Any] | None) -> Any:
        if values is None or not _is_plain(node, values):
            return evaluate(node, values)
        # Any part of an expression may be a macro's use.
        running[0] = values.get(ScriptMacro.parser_object_name, running[0])
        return _value(node, values)

    with ExitStack() as replaced, quick_stacks():
        for owner, name, value in (
            (evaluator, "_eval_expr", evaluated),
            (ScriptMacro, "_find_parser_def", lambda _: running[0]),
            (Parser, "with_source_span", lambda _self, _node: nullcontext()),
            (Parser, "annotate_current_source_span", lambda _, value: value),
            (doc, "to_doc", _translation(doc)),
            (diagnostics.Source, "as_ast", _once(diagnostics.Source.as_ast)),
        ):
            replaced.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield


def _is_plain(node: Any, values: Mapping[str, Any]) -> bool:
    """Whether a node of TVM's syntax tree is made of what `_value` has the value of."""
    if type(node).__name__ == "Name":
        return node.id in values
    parts = _parts(node)
    return parts is not None and all(_is_plain(part, values) for part in parts)


def _parts(node: Any) -> Sequence[Any] | None:
    """The nodes whose values a node's value is made of; None of kinds that `_value` leaves to TVM."""
    match type(node).__name__:
        case "Constant":
            return []
        case "Attribute":
            return [node.value]
        case "Subscript":
            return [node.value, node.slice]
        case "Tuple":
            return list(node.elts)
        case "Call" if all(keyword.arg is not None for keyword in node.keywords):
            return [node.func, *node.args, *(keyword.value for keyword in node.keywords)]
    return None


def _value(node: Any, values: Mapping[str, Any]) -> Any:
    """The value of a node that `_is_plain`."""
    match type(node).__name__:
        case "Name":
            return values[node.id]
        case "Constant":
            return node.value
        case "Attribute":
            return getattr(_value(node.value, values), node.attr)
        case "Subscript":
            return _value(node.value, values)[_value(node.slice, values)]
        case "Tuple":
            return tuple(_value(item, values) for item in node.elts)
    function = _value(node.func, values)
    arguments = [_value(argument, values) for argument in node.args]
    return function(*arguments, **{keyword.arg: _value(keyword.value, values) for keyword in node.keywords})


def _translation(doc: Any) -> Callable[[Any], Any]:
    """TVM's translation of Python's syntax trees into its own, with the kinds of nodes looked up once."""
    slow = doc.to_doc
    kinds = {
        getattr(ast, name): (entry.to_doc.doc_cls, tuple(entry.to_doc.fields))
        for name, entry in doc.Registry._inst.table.items()
        if hasattr(entry.to_doc, "doc_cls")
    }

    def translated(node: Any) -> Any:
        known = kinds.get(type(node))
        if known is not None:
            kind, fields = known
            return kind(**{field: translated(getattr(node, field, None)) for field in fields})
        return [translated(item) for item in node] if isinstance(node, list) else slow(node)

    return translated


def _once(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A method whose result an object keeps."""

    def kept(source: Any) -> Any:
        if not hasattr(source, "_llmbuild_tree"):
            source._llmbuild_tree = parse(source)
        return source._llmbuild_tree

    return kept
