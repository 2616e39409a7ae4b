"""The interface of a format: write a file, run it, read its header; no torch at the top."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fertool.artifact.archive import MAX_HEADER_BYTES
from fertool.artifact.contract import Contract
from fertool.artifact.trailer import read_trailer
from fertool.errors import FertoolError
from fertool.registry import FORMATS
from fertool.spec import Spec

# For annotations alone: the commands read suffixes and headers without torch.
if TYPE_CHECKING:
    from torch import Tensor, nn

    from fertool.config.exporting import ExportConfig

Note = Callable[[str], None]
"""Receives a remark about a file for the user."""


class Format(ABC):
    """A kind of file that a network is exported to; a member has no arguments.

    `suffix` is that of its files, with a dot and in lower case; `runtime` is the one that runs them
    unless another is asked for. `companion` is the suffix of a second file that lies beside each
    of its files, "" where there is none. `example` is Python, one statement a line, that computes
    `values` [K] from `pixels` in a file: `$file`, `$input` and `$output` stand for its name and for
    those of input and output, as literals.
    """

    # Literals, which the registry reads from the source.
    suffix: ClassVar[str]
    runtime: ClassVar[str]
    companion: ClassVar[str] = ""
    example: ClassVar[str] = ""

    @abstractmethod
    def write(
        self,
        path: Path,
        spec: Spec,
        module: nn.Module,
        config: ExportConfig,
        on_note: Note = lambda note: None,
    ) -> None:
        """Write a network, that takes raw pixels and carries the spec, to a file.

        `path` lies in a folder of its own: what belongs to the file can be written beside it, and
        gets its final name with it. `on_note` receives remarks about the file. Raises FertoolError
        for a network that the format cannot hold, with what to use instead.
        """

    def open(self, path: Path) -> Callable[[Tensor], Tensor]:
        """Return a function from images uint8 [N, C, S, S] to the logits [N, K] of a file.

        It runs in the format's own runtime, on as many threads as torch uses.
        """
        # Imported here: headers are read without torch.
        from fertool.runtime.opening import open_logits

        return open_logits(path, self.runtime)

    def contract(self, spec: Spec) -> Contract:
        """Return how a file with this header is fed, and what it gives."""
        return Contract.of(spec)

    def read_header(self, path: Path) -> str:
        """Return the JSON text of the spec in a file, without torch.

        It is the text that `append_trailer` wrote behind the file, unless a format has a place of
        its own for it. Raises FertoolError for a file of another kind or without a header.
        """
        return read_trailer(path)


def require_bounded_header(path: Path, header: str) -> None:
    """Raise FertoolError for a header that is too long to be parsed: metadata has any length."""
    if len(header) > MAX_HEADER_BYTES:
        raise FertoolError(f"{path}: a header of {len(header):,} characters", "export it again")


def load_format(name: str) -> Format:
    """Return the format of this name; raises UsageError with the choices for another name."""
    member: type[Format] = FORMATS.load(name)
    return member()
