"""Training on mmengine's Runner: the only part of eqzoo that knows it."""

from eqzoo.engine.autoencoder_training import AutoencoderTraining
from eqzoo.engine.checkpoint_hook import CheckpointHook
from eqzoo.engine.checkpoints import PlainCheckpointHook, latest_checkpoint, read_checkpoint
from eqzoo.engine.codebook_hook import CodebookHook
from eqzoo.engine.config import load_config
from eqzoo.engine.ema import AutoencoderEMAHook, GeneratorEMAHook
from eqzoo.engine.generator_training import GeneratorTraining
from eqzoo.engine.log_processor import MeanLogProcessor
from eqzoo.engine.loops import EvaluationLoop, StepLoop
from eqzoo.engine.model_config_hook import ModelConfigHook
from eqzoo.engine.picture_hook import PictureHook
from eqzoo.engine.runner import build_runner
from eqzoo.engine.sample_hook import SampleHook
from eqzoo.engine.scalars_hook import RunInfoHook, ScalarsHook
from eqzoo.engine.sharding import GatherHook, ScatterHook
from eqzoo.engine.smoke import shrink
from eqzoo.engine.stop_hook import StopHook
from eqzoo.engine.unreadable_hook import UnreadableHook
from eqzoo.randomness import SampleNoise, StepRandomness

__all__ = [
    'AutoencoderEMAHook',
    'AutoencoderTraining',
    'CheckpointHook',
    'CodebookHook',
    'EvaluationLoop',
    'GatherHook',
    'GeneratorEMAHook',
    'GeneratorTraining',
    'MeanLogProcessor',
    'ModelConfigHook',
    'PictureHook',
    'PlainCheckpointHook',
    'RunInfoHook',
    'SampleHook',
    'SampleNoise',
    'ScalarsHook',
    'ScatterHook',
    'StepLoop',
    'StepRandomness',
    'StopHook',
    'UnreadableHook',
    'build_runner',
    'latest_checkpoint',
    'load_config',
    'read_checkpoint',
    'shrink',
]
