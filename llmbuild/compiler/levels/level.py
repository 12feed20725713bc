"""A level of a CPU: features beyond those that its target has, and how a library finds out whether it runs on such a CPU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Level:
    """`question` is LLVM's text of the blocks of a function without arguments, which returns an i1, and `declared` that of what
    it calls."""

    name: str
    hosts: str
    """What the triples of its hosts begin with; an expression."""
    features: tuple[str, ...]
    """LLVM's names of what code for it may use."""
    question: str
    declared: str = ""

    def serves(self, triple: str) -> bool:
        """Whether libraries for a host can have kernels for it.  Those for Windows cannot: such kernels are an object of their
        own, and Windows' linkers take only one of TVM's objects, since each defines the same functions for float16."""
        return re.match(self.hosts, triple) is not None and "windows" not in triple

    @property
    def symbol(self) -> str:
        """The function that says whether the CPU is of this level: 0 or 1."""
        return f"llmbuild_has_{self.name}"

    @property
    def text(self) -> str:
        """LLVM's text of the function.  It asks once, for in a virtual machine an answer takes microseconds; threads that ask
        at the same time get the same one.  Libraries in one application share it."""
        return f"""
{self.declared}
@{self.symbol}.known = linkonce_odr hidden global i32 0
define linkonce_odr hidden i1 @{self.symbol}.asked() nounwind noinline {{
{self.question}
}}
define linkonce_odr hidden i32 @{self.symbol}() nounwind {{
  %known = load atomic i32, ptr @{self.symbol}.known monotonic, align 4
  %first = icmp eq i32 %known, 0
  br i1 %first, label %ask, label %say
ask:
  %has = call i1 @{self.symbol}.asked()
  %told = select i1 %has, i32 2, i32 1
  store atomic i32 %told, ptr @{self.symbol}.known monotonic, align 4
  br label %say
say:
  %final = phi i32 [ %known, %0 ], [ %told, %ask ]
  %answer = lshr i32 %final, 1
  ret i32 %answer
}}
"""

    def target(self, base: Any) -> Any:
        """A target of TVM with the features besides its own."""
        import tvm

        known = base.export()
        added = [f"+{feature}" for feature in self.features]
        return tvm.target.Target({**known, "mattr": [*known.get("mattr", ()), *added]})
