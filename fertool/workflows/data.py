"""A data set, opened in the shape and class order of each model that uses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.input_files import require_file
from fertool.config.option import configured
from fertool.config.reading import ReadConfig, named_format
from fertool.errors import FertoolError, UsageError
from fertool.reporter import SILENT, Reporter

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset
    from fertool.data.source import DataSource
    from fertool.spec import InputSpec


class Data:
    """A source of labeled images; `source` and `read` say which and how.

    Nothing is read before a workflow asks for it, and nothing twice.
    """

    def __init__(self, source: str, read: ReadConfig, reporter: Reporter) -> None:
        self.source = source
        self.read = read
        self._reporter = reporter
        self._opened: dict[Any, DataSource] = {}

    @property
    def files(self) -> list[Path]:
        """The files and folders that are read: none of them may become an output."""
        files = []
        # Drawn faces have no file.
        if not named_format(self.source):
            files.append(Path(self.source))
        if self.read.ferplus:
            files.append(self.read.ferplus)
        return files

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the source itself."""
        return self.fitted().classes

    def fitted(
        self, input: InputSpec | None = None, classes: tuple[str, ...] | None = None
    ) -> DataSource:
        """Return the source in the shape of a model's input, and in the order of its classes.

        None stands for the source's own: its size in gray, its classes. Raises FertoolError for a
        source that is damaged, of an unknown layout, or without images of these classes.
        """
        from fertool import distributed
        from fertool.data import DataOptions, open_data

        size, channels = None, 1
        if input is not None:
            size, channels = input.size, input.channels
        key = (size, channels, classes)
        if key not in self._opened:
            options = DataOptions(
                format=None if self.read.format == "auto" else self.read.format,
                ferplus=self.read.ferplus,
                ferplus_rule=self.read.ferplus_rule,
                size=size,
                channels=channels,
                classes=classes,
            )
            with distributed.main_process_first():
                source = open_data(self.source, options, on_note=self._reporter.note)
                if distributed.world_size() > 1:
                    # Only training is shared, and it reads these; decoding them takes long.
                    for split in ("train", "val"):
                        source.split(split)
            self._opened[key] = source
        return self._opened[key]


def open_data(
    source: str | Path,
    read: ReadConfig = ReadConfig(),
    *,
    reporter: Reporter = SILENT,
    **options: Any,
) -> Data:
    """Return the data set in a file or folder, or drawn faces: `synth`, `synth:COUNT`.

    `options` are those of `ReadConfig`, by name. Remarks about the images go to the `reporter`.
    Raises FertoolError for a source that does not exist, UsageError for a wrong option.
    """
    (read,) = configured(read, options)
    source = str(source)
    if named_format(source) is None and not Path(source).exists():
        raise FertoolError(
            f"{source}: no such file or folder", "check ``data``; 'synth' draws faces instead"
        )
    if read.ferplus:
        require_file(read.ferplus)
    return Data(source, read, reporter)


def drawn_faces(count: int) -> Data:
    """Return drawn faces, which stand in for images where there is no data set."""
    return Data(f"synth:{count}", ReadConfig(), SILENT)


def validation_of(source: DataSource) -> FaceDataset:
    """Return the images to choose on.

    Raises UsageError when most of them are the test images under another name.
    """
    copies = source.count_val_duplicates_of_test()
    if copies:
        count = len(source.raw("val"))
        # A few duplicates are in many published data sets; most of them are a mistake of paths.
        if 2 * copies > count:
            raise UsageError(
                f"{source.name}: {copies} of the {count} validation images are test images too",
                "what is chosen on the test images is no longer tested by them; give other images "
                "for validation, or none: then a tenth of the training images is held out",
            )
    return source.split("val")
