"""A data set, opened in the shape and class order of each model that uses it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.input_files import require_file
from fertool.config.detection import DetectionConfig
from fertool.config.option import configured, values_of
from fertool.config.reading import (
    VOTES_WEIGHT,
    DataConfig,
    ReadConfig,
    named_format,
    parse_classes,
    recorded_reading,
)
from fertool.errors import FertoolError, UsageError
from fertool.reporter import SILENT, Reporter
from fertool.workflows.landmarks import measure_landmarks

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset
    from fertool.data.source import DataSource
    from fertool.results import DataInfo
    from fertool.runtime import Predictor
    from fertool.spec import InputSpec, ProvenanceStep
    from fertool.workflows.model import Model


class Data:
    """A source of labeled images; `source` and `read` say which and how.

    Nothing is read before a workflow asks for it, and nothing twice.
    """

    def __init__(self, source: str, read: ReadConfig, reporter: Reporter) -> None:
        self.source = source
        self.read = DataConfig.of(read)
        self.reporter = reporter
        self._opened: dict[Any, DataSource] = {}

    @property
    def files(self) -> list[Path]:
        """The files and folders that are read: none of them may become an output."""
        files = []
        # Drawn faces have no file.
        if not named_format(self.source):
            files.append(Path(self.source))
        for votes in (self.read.ferplus, self.read.votes):
            if votes:
                files.append(votes)
        return files

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the source itself."""
        return self.fitted().classes

    def fitted_to(self, model: Model | Predictor, crop_channels: int | None = None) -> DataSource:
        """Return the source as `fitted` does, for the input and the classes of a model.

        Where `read` leaves them open, groups of classes and division into splits are those that the
        model was trained with. With `crop_channels`, and for a file that takes crops of any size,
        images that all have one size keep it, and get so many channels.
        """
        read = self.read_as(model.spec.provenance if model.spec else ())
        if crop_channels is None:
            crop_channels = crop_channels_of(model)
        return self._fitted(model.input, model.classes, read, crop_channels)

    def read_as(self, lineage: Iterable[ProvenanceStep]) -> DataConfig:
        """Return the options of reading; what is not given is as a model's lineage records it."""
        return DataConfig.of(self.read, recorded_reading(lineage))

    def following(self, lineage: Iterable[ProvenanceStep]) -> Data:
        """Return the data set read as `read_as` says, also where no model is fitted to."""
        return self.with_reading(self.read_as(lineage))

    def with_reading(self, read: DataConfig) -> Data:
        """Return the same source, read in another way."""
        return self if read == self.read else Data(self.source, read, self.reporter)

    def fitted(
        self,
        input: InputSpec | None = None,
        classes: tuple[str, ...] | None = None,
        crop_channels: int | None = None,
    ) -> DataSource:
        """Return the source in the shape of a model's input, and in the order of its classes.

        None stands for the source's own: its size in gray, its classes. With `crop_channels` images
        that all have one size keep it, and get so many channels. Raises FertoolError for a source
        that is damaged, of an unknown layout, or without images of these classes.
        """
        return self._fitted(input, classes, self.read, crop_channels)

    def _fitted(
        self,
        input: InputSpec | None,
        classes: tuple[str, ...] | None,
        read: DataConfig,
        crop_channels: int | None = None,
    ) -> DataSource:
        from fertool import distributed
        from fertool.data import DataOptions, open_data

        size, channels = None, 1
        if input is not None:
            size, channels = input.size, crop_channels or input.channels
        keep_size = crop_channels is not None
        key = (size, keep_size, channels, classes, read)
        if key not in self._opened:
            options = DataOptions(
                format=read.given_format,
                ferplus=read.ferplus,
                ferplus_rule=read.ferplus_rule,
                votes=read.votes,
                votes_weight=VOTES_WEIGHT if read.votes_weight is None else read.votes_weight,
                size=size,
                keep_size=keep_size,
                channels=channels,
                groups=parse_classes(read.classes) if read.classes else None,
                classes=classes,
                test_fraction=read.test_fraction or 0.0,
                split_seed=read.split_seed or 0,
                skip_unreadable=bool(read.skip_unreadable),
            )
            with distributed.main_process_first():
                source = open_data(self.source, options, on_note=self.reporter.note)
                if distributed.world_size() > 1:
                    # Only training is shared, and it reads these; decoding them takes long.
                    for split in ("train", "val"):
                        source.split(split)
            self._opened[key] = source
        return self._opened[key]


def crop_channels_of(model: Model | Predictor) -> int | None:
    """Return the channels of the crops of any size that a file takes, None for other files."""
    contract = getattr(model, "contract", None)
    return contract.channels if contract and contract.any_size else None


def open_data(
    source: str | Path,
    read: ReadConfig = DataConfig(),
    *,
    reporter: Reporter = SILENT,
    **options: Any,
) -> Data:
    """Return the data set in a file or folder, or drawn faces: `synth`, `synth:COUNT`.

    `options` are those of `DataConfig`, by name. Remarks about the images go to the `reporter`.
    Raises FertoolError for a source that does not exist, UsageError for a wrong option.
    """
    (read,) = configured(read, options)
    source = str(source)
    if named_format(source) is None and not Path(source).exists():
        raise FertoolError(
            f"{source}: no such file or folder", "check ``data``; 'synth' draws faces instead"
        )
    for votes in (read.ferplus, getattr(read, "votes", None)):
        if votes:
            require_file(votes)
    return Data(source, read, reporter)


def inspect_data(data: Data, *, landmarks: DetectionConfig | None = None) -> DataInfo:
    """Return what a data set holds, and all its problems in one list.

    Images that cannot be read are among the problems. With `landmarks` their places in the training
    images are measured, in faces that are found so. Raises FertoolError for a data set of an
    unknown layout, or in which nothing can be read.
    """
    from fertool.data.info import inspect_source

    skipping = DataConfig(**{**values_of(data.read), "skip_unreadable": True})
    source = data.with_reading(skipping).fitted()
    found = inspect_source(source)
    if landmarks is None:
        return found
    images = source.split("train").images
    measured = measure_landmarks(images, landmarks, reporter=data.reporter)
    return replace(found, landmarks=measured)


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
