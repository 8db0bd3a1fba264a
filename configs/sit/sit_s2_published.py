"""SiT-S/2 as published: small enough to try the real thing on a CPU. No number has been published for this file."""

from mmengine.config import read_base

with read_base():
    from .sit_xl2_published import *

model.generator.network.update(size='S', weights='eqzoo://sit-s2-256')
