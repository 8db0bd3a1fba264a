"""temporary"""
from functools import cached_property
class AutoencoderView:
    def __init__(self,autoencoder,images): self.autoencoder,self.images=autoencoder,images
    @cached_property
    def latents(self): return self.autoencoder.latents(self.images)
    @cached_property
    def reconstruction(self): return self.autoencoder.decode(self.autoencoder.normalization.denormalize(self.latents))
