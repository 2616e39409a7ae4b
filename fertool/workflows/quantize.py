"""Quantize a model: integers in place of floats, in the file and in the arithmetic."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from fertool.artifact.input_files import MAX_JSON_BYTES, read_text, require_file
from fertool.config.option import configured, values_of
from fertool.config.pictures import QuantizePictures
from fertool.config.quantization import QuantizeConfig
from fertool.config.run import RunConfig
from fertool.errors import naming
from fertool.reporter import SILENT, Reporter
from fertool.results import Change, Epoch, QuantizePreview, QuantizeResult
from fertool.workflows.activation_replacement import replace_and_train
from fertool.workflows.bit_widths import ChannelBits, choose_bits
from fertool.workflows.comparison import measure_changes, with_measured
from fertool.workflows.compute import choose_compute
from fertool.workflows.data import Data, validation_of
from fertool.workflows.integer_forms import (
    describe_integers,
    make_integers,
    plan_integers,
    train_integers,
)
from fertool.workflows.model import Model
from fertool.workflows.outputs import as_path, require_outputs
from fertool.workflows.pictures import draw_quantization, require_pictures
from fertool.workflows.portability import accuracy_without_vnni
from fertool.workflows.processes import require_one_process
from fertool.workflows.provenance import make_step, recorded_options
from fertool.workflows.recovery import recovery_objective
from fertool.workflows.routing import recalibrate_cascade
from fertool.workflows.sensitivity import sensitivity as estimate_sensitivity
from fertool.workflows.training_run import TrainingRun

if TYPE_CHECKING:
    from fertool.hessian import Sensitivity
    from fertool.quant import ComputeChoice
    from fertool.spec import ProvenanceStep, QuantSpec, Spec
    from fertool.workflows.integer_forms import IntegerNetwork


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizedModel(Model):
    """A quantized model, and what quantization did to the model `before`.

    `change` has the accuracies before and after on the validation images with their paired
    comparison, `average_bits` of a weight, `accuracy_without_vnni` and, where it was measured, the
    latency. `history` has the epochs of training, if any.
    """

    before: Model
    change: Change
    history: list[Epoch]

    @property
    def quant(self) -> QuantSpec:
        """Which tensors are integers of how many bits."""
        assert self.spec.quant is not None
        return self.spec.quant

    @property
    def layer_bits(self) -> dict[str, tuple[int, ...]]:
        """The bits of the weights of each convolution and linear layer, one or one a channel.

        Those of a layer that stays float are empty.
        """
        from fertool.hessian import weighted_layers

        rules = self.quant.weights
        layers = weighted_layers(self.before.module)
        bits: dict[str, tuple[int, ...]] = {}
        for name in layers:
            bits[name] = ()
            if name in rules:
                bits[name] = rules[name].bits
        return bits

    @property
    def summary(self) -> QuantizeResult:
        """What the command prints."""
        return QuantizeResult.of(
            self.path,
            self.size_bytes,
            self.spec,
            history=tuple(self.history),
            change=self.change,
        )

    @property
    def preview(self) -> QuantizePreview:
        """What the command prints of a model that it does not write."""
        return QuantizePreview(
            quant=self.quant,
            size_bytes_before=self.before.size_bytes,
            size_bytes=self.size_bytes,
            change=self.change,
        )


def quantize(
    model: Model,
    data: Data,
    config: QuantizeConfig = QuantizeConfig(),
    *,
    sensitivity: Sensitivity | str | Path | None = None,
    output: str | Path | None = None,
    bench: bool = True,
    pictures: QuantizePictures = QuantizePictures(),
    run: RunConfig = RunConfig(),
    reporter: Reporter = SILENT,
    **options: Any,
) -> QuantizedModel:
    """Quantize a float model to integers of 2 to 8 bits.

    The training images calibrate, the validation images measure the accuracy before and after.
    `sensitivity` is what `fertool.sensitivity` returned or wrote about this model; an allocation
    that needs it and has none has it estimated with the default options. With an `output` the model
    is written there, with the history of a training beside it, and a killed training resumes from
    OUT.resume. `bench` measures the latency of both networks in ONNX Runtime. `options` are those
    of `QuantizeConfig`, `QuantizePictures` and `RunConfig`, by name.

    Raises FertoolError for a model that is quantized already, and for a budget that cannot be met;
    UsageError for a wrong option.
    """
    config, pictures, run = configured(config, options, pictures, run)
    work = _start(model, data, config, sensitivity, output, run, reporter)
    require_pictures(pictures, work.training.output, _input_files(model, data, work.config))
    quantized = work.quantize(bench=bench)
    draw_quantization(pictures, quantized)
    return quantized


def preview_quantization(
    model: Model,
    data: Data,
    config: QuantizeConfig = QuantizeConfig(),
    *,
    sensitivity: Sensitivity | str | Path | None = None,
    run: RunConfig = RunConfig(),
    reporter: Reporter = SILENT,
    **options: Any,
) -> QuantizedModel:
    """Return what `quantize` would make of a model without any training.

    The bits and the size of the file are those that it will have, the accuracy is the one from
    which a training would start. The arguments and errors are those of `quantize`.
    """
    config, run = configured(config, options, run)
    work = _start(model, data, config, sensitivity, None, run, reporter)
    return work.preview()


def require_processes(config: QuantizeConfig) -> None:
    """Raise UsageError in several processes, of which only training has a use."""
    if config.method == "ptq":
        require_one_process("quantize ``method=ptq``")


def _start(
    model: Model,
    data: Data,
    config: QuantizeConfig,
    sensitivity: Sensitivity | str | Path | None,
    output: str | Path | None,
    run: RunConfig,
    reporter: Reporter,
) -> _Quantization:
    """Check the options and the files, and open the data."""
    if isinstance(sensitivity, str | Path):
        config = replace(config, sensitivity=Path(sensitivity))
        sensitivity = None
    config = replace(config, seed=run.seed)
    # Traces in memory win over a file that the config names.
    if sensitivity is not None:
        config = replace(config, sensitivity=None)
        config.require_use_of_sensitivity()
    require_processes(config)
    if config.sensitivity is not None:
        require_file(config.sensitivity)
    output = as_path(output)
    if output is not None:
        files = _input_files(model, data, config)
        require_outputs(output, files, trains=bool(config.training.epochs))

    source = data.fitted_to(model)
    training = TrainingRun(
        train=source.split("train"),
        val=validation_of(source),
        config=config.training,
        loss_config=config.loss,
        run=run,
        output=output,
        reporter=reporter,
    )
    return _Quantization(model, data, config, training, sensitivity)


def _input_files(model: Model, data: Data, config: QuantizeConfig) -> list[Path]:
    """Return the files that are read: none of them may become an output."""
    files = [*data.files, *model.files]
    if config.sensitivity is not None:
        files.append(config.sensitivity)
    return files


@dataclass(frozen=True)
class _Quantization:
    """One quantization, its options checked; `sensitivity` only where it is not that of a file."""

    model: Model
    data: Data
    config: QuantizeConfig
    training: TrainingRun
    sensitivity: Sensitivity | None

    @property
    def reporter(self) -> Reporter:
        return self.training.reporter

    def quantize(self, *, bench: bool) -> QuantizedModel:
        """Quantize, and train where that is asked for."""
        epochs = self.config.float_epochs
        if epochs is None:
            epochs = self.config.training.epochs
        network, training, history = self._replaced(epochs)
        step, spec, integer = self._quantized(network)
        if self.config.training.epochs:
            objective = recovery_objective(self.model, training, distill=self.config.distill)
            history = train_integers(spec, integer, training, objective)
            spec = self._recalibrated(spec, integer)
        spec, change = self._measure(spec, integer, bench=bench)
        written = training.finish(spec, integer, step, history)
        return self._result(written, change, history)

    def preview(self) -> QuantizedModel:
        """Quantize without any training."""
        # Without training the replaced activations cost accuracy, which the preview shows.
        network, _, _ = self._replaced(0)
        step, spec, integer = self._quantized(network)
        spec, change = self._measure(spec, integer, bench=False)
        return self._result(Model(spec.with_step(step), integer).sealed(), change, [])

    def _replaced(self, epochs: int) -> tuple[Model, TrainingRun, list[Epoch]]:
        """Return the float network, the run of its training, and the history of this one."""
        if self.config.replace_activations == "none":
            return self.model, self.training, []
        return replace_and_train(self.model, self.training, epochs, distill=self.config.distill)

    def _quantized(self, network: Model) -> tuple[ProvenanceStep, Spec, IntegerNetwork]:
        """Choose the bits and quantize with them; returns the step, the spec and the network."""
        step, bits, choice = self._planned(network)
        with self.reporter.progress("calibration") as on_progress:
            quant, integer = make_integers(
                network, self.training.train, self.config, bits, on_progress, choice=choice
            )
        self.reporter.note(describe_integers(network, quant))
        spec = replace(network.spec, quant=replace(quant, method=self.config.method))
        return step, self._recalibrated(spec, integer), integer

    def _recalibrated(self, spec: Spec, integer: IntegerNetwork) -> Spec:
        """Return the spec of a cascade with thresholds, set in place, at which it costs the same.

        Rounded logits have other margins.
        """
        gates = recalibrate_cascade(self.model.spec, integer, self.training.val)
        return replace(spec, gates=gates)

    def _planned(
        self, network: Model
    ) -> tuple[ProvenanceStep, ChannelBits | None, ComputeChoice | None]:
        """Return the step that quantizes, the bits of the weights, None for 8, and the compute."""
        # First, because it refuses networks that cannot be quantized.
        with naming(self.model.name):
            quant = plan_integers(network, self.config)
        choice = choose_compute(network, self.config, self.training.train, self.reporter)
        if choice is not None:
            quant = plan_integers(network, self.config, choice)
        sensitivity, digest = self._traces_of(network)
        step = make_step(
            "quantize",
            self._recorded(),
            self.config.seed,
            model=self.model.spec.digest,
            data=self.training.train,
            sensitivity=digest,
        )
        bits = choose_bits(
            network,
            network.spec.with_step(step, quant=quant),
            self.config,
            sensitivity,
            self.training.train,
            self.training.val,
            size_bytes=self.model.size_bytes,
            reporter=self.reporter,
        )
        return step, bits, choice

    def _traces_of(self, network: Model) -> tuple[Sensitivity | None, str | None]:
        """Return the sensitivity that the allocation needs, and the digest of its file.

        Raises FertoolError for traces that are not this network's.
        """
        from fertool.artifact.store import file_digest
        from fertool.hessian import weighted_layers

        found = self._given_traces()
        if found is None and self.config.allocates_by_sensitivity:
            found = self._estimated_traces(network)
        if found is None:
            return None, None
        layers = weighted_layers(network.module)
        channels = {name: len(layer.weight) for name, layer in layers.items()}
        path = self.config.sensitivity
        where = str(path or "``sensitivity``")
        found.require_fit(network.spec.digest, channels, where, accept=("kl", "cross-entropy"))
        if path is not None:
            return found, file_digest(path)
        # The digest of the file that it would be, so that the model has the same bytes.
        return found, hashlib.sha256(found.to_json().encode()).hexdigest()

    def _given_traces(self) -> Sensitivity | None:
        from fertool.hessian import Sensitivity

        path = self.config.sensitivity
        if path is None:
            return self.sensitivity
        return Sensitivity.from_json(read_text(path, MAX_JSON_BYTES), str(path))

    def _estimated_traces(self, network: Model) -> Sensitivity:
        self.reporter.note(
            "no ``sensitivity`` given: Hessian traces are estimated with the default options"
        )
        return estimate_sensitivity(
            network, self.data, run=self.training.run, reporter=self.reporter
        )

    def _recorded(self) -> dict[str, Any]:
        """Return the options for the provenance, those of training only where there is one."""
        recorded = values_of(self.config)
        if self.config.compute == "int8":
            # So that such files are the same bytes as before there was a choice.
            del recorded["compute"]
        if not self.config.measure:
            del recorded["measure"]
        if not self.config.training.epochs:
            for name in (*values_of(self.config.training), *values_of(self.config.loss)):
                del recorded[name]
        if self.config.target_size is not None:
            recorded["target_size"] = str(self.config.target_size)
        return recorded_options(recorded, self.data.read)

    def _measure(self, spec: Spec, integer: IntegerNetwork, *, bench: bool) -> tuple[Spec, Change]:
        """Return the spec with its metrics, and what has changed."""
        from fertool.models.stored_tensors import average_bits

        quant, val = spec.quant, self.training.val
        assert quant is not None
        # Those that the header has are of the float network.
        spec, logits = with_measured(spec, integer, val, self.reporter)
        change = measure_changes(
            self.model,
            Model(spec, integer),
            val,
            bench=bench,
            logits=logits,
            reporter=self.reporter,
        )
        assert change.accuracy is not UNSET
        without_vnni = accuracy_without_vnni(
            integer, val, spec.input, change.accuracy, self.reporter
        )
        change = replace(
            change,
            average_bits=average_bits(quant, integer),
            accuracy_without_vnni=without_vnni,
        )
        return spec, change

    def _result(self, written: Model, change: Change, history: list[Epoch]) -> QuantizedModel:
        return QuantizedModel(
            written.spec,
            written.module,
            written.path,
            before=self.model,
            change=change,
            history=history,
        )
