"""Options of pruning that exclude each other, or need what is not there."""

from __future__ import annotations

from fertool.config.pictures import PrunePictures
from fertool.config.pruning import PruneConfig
from fertool.errors import UsageError
from fertool.workflows.processes import require_one_process


def require_possible(
    config: PruneConfig, pictures: PrunePictures, *, has_data: bool, is_preview: bool
) -> None:
    """Raise UsageError for options that exclude each other, before data are opened."""
    require_processes(config, is_preview=is_preview)
    require_data(config, has_data=has_data)
    require_curves(pictures, config)


def require_processes(config: PruneConfig, *, is_preview: bool = False) -> None:
    """Raise UsageError for several processes where they cannot share the work."""
    if is_preview or not config.trains:
        require_one_process("prune without ``epochs``")
    if config.budget.target_latency is not None:
        # Each process would measure other times.
        require_one_process("prune ``target_latency``")
    if not config.scheduling.shares_processes:
        require_one_process(f"prune ``schedule={config.scheduling.schedule}``")


def require_data(config: PruneConfig, *, has_data: bool) -> None:
    """Raise UsageError for a training without images."""
    if has_data:
        return
    if config.scheduling.trains_first:
        raise UsageError(
            f"``schedule={config.scheduling.schedule}`` needs ``data``",
            "for example ``data=fer2013.csv``",
        )
    if config.training.epochs:
        raise UsageError(
            f"``epochs={config.training.epochs}``: fine-tuning needs ``data``",
            "for example ``data=fer2013.csv``",
        )


def require_curves(pictures: PrunePictures, config: PruneConfig) -> None:
    """Raise UsageError for curves of a training that there is not."""
    if pictures.plot and not (config.training.epochs or config.scheduling.trains_first):
        raise UsageError(
            "``plot``: without ``epochs`` there is no training to plot", "for example ``epochs=5``"
        )
