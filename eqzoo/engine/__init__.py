"""Training on mmengine's Runner, with its hooks, checkpoints and evaluation, and sampling."""

from eqzoo.config import load_config
from eqzoo.engine.autoencoder_training import AutoencoderTraining
from eqzoo.engine.checkpoints import (
    CheckpointHook,
    ModelConfigHook,
    PlainCheckpointHook,
    latest_checkpoint,
    read_checkpoint,
)
from eqzoo.engine.ema import EMAHook
from eqzoo.engine.generator_training import GeneratorTraining
from eqzoo.engine.hooks import CodebookHook, ProgressHook, RunInfoHook, ScalarsHook, StopHook, UnreadableHook
from eqzoo.engine.joint_training import JointTraining
from eqzoo.engine.loggers import MLflowVisBackend, WandbVisBackend
from eqzoo.engine.optimizers import MuonAdamW
from eqzoo.engine.picture_hooks import PictureHook, SampleHook
from eqzoo.engine.runner import EvaluationLoop, MeanLogProcessor, StepLoop, build_runner
from eqzoo.engine.sharding import ShardingHook
from eqzoo.engine.smoke import shrink
from eqzoo.randomness import SampleNoise, StepRandomness

__all__ = [
    'AutoencoderTraining',
    'CheckpointHook',
    'CodebookHook',
    'EMAHook',
    'EvaluationLoop',
    'GeneratorTraining',
    'JointTraining',
    'MLflowVisBackend',
    'MeanLogProcessor',
    'ModelConfigHook',
    'MuonAdamW',
    'PictureHook',
    'PlainCheckpointHook',
    'ProgressHook',
    'RunInfoHook',
    'SampleHook',
    'SampleNoise',
    'ScalarsHook',
    'ShardingHook',
    'StepLoop',
    'StepRandomness',
    'StopHook',
    'UnreadableHook',
    'WandbVisBackend',
    'build_runner',
    'latest_checkpoint',
    'load_config',
    'read_checkpoint',
    'shrink',
]
