"""Trainings that one process and several must bring to the same end.

Run by torchrun: python parallel_runs.py FOLDER.
"""

import sys
from contextlib import suppress
from pathlib import Path
from shutil import copyfile
from time import sleep

import torch
from torch import nn

from fertool import distributed
from fertool.config.training import NO_AUGMENTATION, AugmentConfig
from fertool.data.dataset import FaceDataset
from fertool.errors import FertoolError
from fertool.graph.batch_norm import BatchNorm1d, BatchNorm2d
from fertool.spec import InputSpec
from fertool.training import TrainConfig, fit

SHAPE = InputSpec(size=12)
MIXED = AugmentConfig(flip=0.5, rotation=10, brightness=0.2, erasing=0.5, mixup=0.3, cutmix=1.0)
CASES = {
    "many passes a step": {
        "grad_accumulation": 2,
        "sam_rho": 0.05,
        "max_grad_norm": 0.5,
        "batch_size": 8,
    },
    "batch norm": {
        "sam_rho": 0.05,
        "ema_decay": 0.8,
        "freeze_epochs": 1,
        "start_size": 10,
        "lr_schedule": "plateau",
        "patience": 1,
    },
    "few images": {"batch_size": 3, "epochs": 1, "lr": 0.01},
    "half": {"precision": "fp16", "max_grad_norm": 1.0, "epochs": 1},
}
PROCESSES, IMAGES = 3, 50
"""Shards differ in length, and a last batch of 2 has fewer images than there are processes."""


class Killed(BaseException):
    pass


def bars(n, split="train", seed=0):
    """Faces of a kind: a bright bar at the top, in the middle or at the bottom, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.randint(0, 160, (n, 1, 12, 12), generator=generator)
    for position in range(3):
        images[labels == position, :, 4 * position : 4 * position + 3] += 90
    return FaceDataset(
        images.to(torch.uint8), labels, ("happy", "neutral", "sad"), split, digest="source"
    )


def network(normalised):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            *(
                nn.Conv2d(1, 8, 3, padding=1),
                BatchNorm2d(8) if normalised else nn.Identity(),
                nn.Hardswish(),
            ),
            *(nn.AdaptiveAvgPool2d((3, 1)), nn.Flatten(), nn.Linear(24, 8)),
            *(BatchNorm1d(8) if normalised else nn.Identity(), nn.Linear(8, 3)),
        )


def train(case, **more):
    """Train for one case; returns the network's tensors and the history."""
    options = {
        "epochs": 3,
        "batch_size": 16,
        "lr": 0.05,
        "optimizer": "sgd",
        "augmentation": MIXED,
        "precision": "fp32",
        **CASES[case],
    }
    module = network(normalised=case != "many passes a step")
    result = fit(module, bars(IMAGES), bars(31, "val", 1), SHAPE, TrainConfig(**options), **more)
    return module.state_dict(), [
        (r.lr, r.train_loss, r.val_loss, r.val_accuracy) for r in result.history
    ]


def kill(record):
    raise Killed


class Watched:
    """An objective that notes which images it saw, by their first pixel."""

    fingerprint = "watched"

    def __init__(self):
        self.seen = []

    def __call__(self, module, inputs, targets):
        self.seen += (
            (inputs[:, 0, 0, 0] / SHAPE.scale[0] + SHAPE.zero_point[0]).round().int()
        ).tolist()
        return nn.functional.cross_entropy(module(inputs), targets)


def seen():
    """Which of 50 images this process trains on in each of two epochs."""
    faces, objective, epochs = bars(IMAGES), Watched(), []
    faces.images[:, 0, 0, 0] = torch.arange(IMAGES)
    config = TrainConfig(epochs=2, precision="fp32", batch_size=12, augmentation=NO_AUGMENTATION)

    def note(record):
        epochs.append(objective.seen)
        objective.seen = []

    fit(network(False), faces, bars(7, "val"), SHAPE, config, objective=objective, on_epoch=note)
    return epochs


def turns(path):
    """What this process finds of the others' work when it may begin."""
    with distributed.main_process_first():
        found = path.exists() and path.read_text()
        if distributed.is_main_process():
            sleep(0.5)
            path.write_text("decoded")
    return found


def refusals(resume):
    """Return the errors of processes that do not do the same."""
    rank, faces, errors = distributed.rank(), bars(9), []
    for differ in (
        lambda: fit(nn.Linear(3, 2 + rank), faces, faces, SHAPE, TrainConfig()),
        lambda: fit(network(False), faces, faces, SHAPE, TrainConfig(seed=rank)),
        lambda: train("batch norm", resume=resume.with_name("resume" if rank else "missing")),
        lambda: fit(network(False), faces, faces, SHAPE, TrainConfig(batch_size=PROCESSES - 1)),
    ):
        try:
            differ()
        except FertoolError as error:
            errors.append(error.message)
    return errors


def main(folder):
    torch.set_num_threads(1)
    with distributed.process_group(distributed.connect_store()):
        made = {case: train(case) for case in CASES}
        resume = folder / "resume"
        with suppress(Killed):
            train("batch norm", resume=resume, on_epoch=kill)
        if distributed.is_main_process():
            copyfile(resume, folder / "begun")
        # As between two runs: nobody begins before the last one has ended.
        distributed.all_reduce(torch.zeros(1))
        made["resumed"] = train("batch norm", resume=resume)
        made["seen"] = seen()
        made["turns"] = turns(folder / "turns")
        made["errors"] = refusals(resume)
        torch.save(made, folder / f"{distributed.rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
