"""EQ-VAE's recipe for any autoencoder: a leaf adds `model.autoencoder`."""

from mmengine.config import read_base

with read_base():
    from .data.openimages_256 import *
    from .evaluation.paper import *
    from .losses.ldm import adversarial_loss, penalties, reconstruction_loss
    from .objectives.rot_scale import objective
    from .runtime import *
    from .schedules.finetune_50k import *

model = dict(
    type='AutoencoderTraining',
    objective=objective,
    reconstruction_loss=reconstruction_loss,
    penalties=penalties,
    adversarial_loss=adversarial_loss,
    micro_batch_size=10,
    precision='fp32',
)
custom_hooks = dict(pictures=dict(type='PictureHook', interval=1000))
