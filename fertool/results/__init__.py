"""The JSON that commands print and write about what they measured and made, as types.

`report` draws it, and a sweep resumes from it. Other keys may stand beside these; files of older
versions lack those that have a default here.
"""

from fertool.results.assumptions import Assumptions
from fertool.results.benchmark import (
    BenchResult,
    BenchWarning,
    FileResult,
    Latency,
    OperatorTime,
    ProfileResult,
    SpeedComparison,
    StartTime,
    WarningKind,
)
from fertool.results.board import (
    BoardFile,
    BoardResult,
    Bundle,
    BundledFile,
    BundleResult,
)
from fertool.results.changes import (
    Change,
    PlanSummary,
    PrunePreview,
    PruneResult,
    QuantizePreview,
    QuantizeResult,
    UnlabeledChange,
)
from fertool.results.data_info import DataInfo, DataProblem, Landmarks
from fertool.results.environment import Environment
from fertool.results.evaluation import (
    AccuracyComparison,
    ClassFigures,
    CorruptionFigures,
    CorruptionLevel,
    Corruptions,
    DetectionFigures,
    Evaluation,
    EvaluationReport,
    Headline,
    ProfileFigures,
    RelativeMean,
)
from fertool.results.imported import Agreement, BoardFailure, BoardRun, ImportedRun
from fertool.results.model_results import (
    ExportResult,
    ImportFindings,
    ImportResult,
    LayerSurvey,
    Parity,
    TrainingResult,
)
from fertool.results.model_summary import (
    GatesSummary,
    LogitsSummary,
    ModelSummary,
    NodeSummary,
    ShownModel,
)
from fertool.results.predictions import (
    CropReport,
    FaceResult,
    PictureResult,
    PredictionHeader,
    PredictionReport,
    PredictionSummary,
)
from fertool.results.regression import AccuracyRegression, SpeedRegression, TimeRatio
from fertool.results.sensitivity import Hessian, LayerSensitivity, Sensitivity
from fertool.results.sweep import (
    BestTrial,
    ConfigSummary,
    SweepResults,
    SweepSummary,
    TrialFigures,
    TrialResult,
)
from fertool.results.training import Epoch, History

__all__ = [
    "AccuracyComparison",
    "AccuracyRegression",
    "Agreement",
    "Assumptions",
    "BenchResult",
    "BenchWarning",
    "BestTrial",
    "BoardFailure",
    "BoardFile",
    "BoardResult",
    "BoardRun",
    "Bundle",
    "BundleResult",
    "BundledFile",
    "Change",
    "ClassFigures",
    "ConfigSummary",
    "CorruptionFigures",
    "CorruptionLevel",
    "Corruptions",
    "CropReport",
    "DataInfo",
    "DataProblem",
    "DetectionFigures",
    "Environment",
    "Epoch",
    "Evaluation",
    "EvaluationReport",
    "ExportResult",
    "FaceResult",
    "FileResult",
    "GatesSummary",
    "Headline",
    "Hessian",
    "History",
    "ImportFindings",
    "ImportResult",
    "ImportedRun",
    "Landmarks",
    "Latency",
    "LayerSensitivity",
    "LayerSurvey",
    "LogitsSummary",
    "ModelSummary",
    "NodeSummary",
    "OperatorTime",
    "Parity",
    "PictureResult",
    "PlanSummary",
    "PredictionHeader",
    "PredictionReport",
    "PredictionSummary",
    "ProfileFigures",
    "ProfileResult",
    "PrunePreview",
    "PruneResult",
    "QuantizePreview",
    "QuantizeResult",
    "RelativeMean",
    "Sensitivity",
    "ShownModel",
    "SpeedComparison",
    "SpeedRegression",
    "StartTime",
    "SweepResults",
    "SweepSummary",
    "TimeRatio",
    "TrainingResult",
    "TrialFigures",
    "TrialResult",
    "UnlabeledChange",
    "WarningKind",
]
