"""Fine-tuning of the KL autoencoder of the studies on CIFAR-10, with errors and spectrum of its latents over the steps.

What antialiased scales do to latents, both ways from one start (docs/differences.md):

    python tools/train.py configs/studies/cifar10/kl_over_training.py model.autoencoder.weights=START work_dir=A
    python tools/train.py configs/studies/cifar10/kl_over_training.py model.autoencoder.weights=START work_dir=B \
        model.objective.transform.transforms.0.antialias=True \
        model.objective.transform.transforms.0.interpolation=bicubic
"""

from mmengine.config import read_base

with read_base():
    from .kl import *
    from ..._base_.studies.cifar10 import images_to_watch
    from ..._base_.studies.objectives import rot_scale

model.objective = rot_scale
val_dataloader = dict(batch_size=100, num_workers=0, dataset=images_to_watch)
train_cfg.update(val_interval=250)
evaluators = [
    dict(type='ReconstructionMetric'),
    dict(type='EquivarianceError', transforms=eq_transforms),
    dict(type='LatentSpectrum'),
    dict(type='IntrinsicDimension'),
    dict(type='VelocityVariance'),
]
