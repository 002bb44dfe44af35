"""The built-in trainer: from a config file to a run folder that can be resumed at any moment."""

from secateur.training.trainer._config import (
    AOFPConfig,
    AOFPSettings,
    Config,
    Count,
    DataConfig,
    ModelConfig,
    NotNegative,
    Positive,
    ResRepConfig,
    ResRepSettings,
    SearchConfig,
    SearchSettings,
    Section,
    TrainingConfig,
    folder_name,
)
from secateur.training.trainer._config_file import check_config, read_config, write_config
from secateur.training.trainer._discovery import build_method
from secateur.training.trainer._evaluate import evaluate
from secateur.training.trainer._latency import Latency, measure_latency
from secateur.training.trainer._loop import InterruptedRunError
from secateur.training.trainer._network import load_network
from secateur.training.trainer._outcome import Outcome, read_outcome
from secateur.training.trainer._parts import (
    build_network,
    build_parts,
    count_macs,
    load_data,
    network_shape,
    place,
)
from secateur.training.trainer._progress import OnProgress, Progress
from secateur.training.trainer._run_folder import (
    create_run,
    discard_unbegun,
    is_finished,
    open_run,
)
from secateur.training.trainer._sample import batch_loss, training_sample
from secateur.training.trainer._settings_file import check_settings, read_table, write_settings
from secateur.training.trainer._threads import own_threads
from secateur.training.trainer._train import train

__all__ = [
    "AOFPConfig",
    "AOFPSettings",
    "Config",
    "Count",
    "DataConfig",
    "InterruptedRunError",
    "Latency",
    "ModelConfig",
    "NotNegative",
    "OnProgress",
    "Outcome",
    "Positive",
    "Progress",
    "ResRepConfig",
    "ResRepSettings",
    "SearchConfig",
    "SearchSettings",
    "Section",
    "TrainingConfig",
    "batch_loss",
    "build_method",
    "build_network",
    "build_parts",
    "check_config",
    "check_settings",
    "count_macs",
    "create_run",
    "discard_unbegun",
    "evaluate",
    "folder_name",
    "is_finished",
    "load_data",
    "load_network",
    "measure_latency",
    "network_shape",
    "open_run",
    "own_threads",
    "place",
    "read_config",
    "read_outcome",
    "read_table",
    "train",
    "training_sample",
    "write_config",
    "write_settings",
]
