"""VQ-GAN's losses as taming trained it: mean of L1 + LPIPS, PatchGAN at 0.8. The codebook's are the autoencoder's."""

reconstruction_loss = dict(
    type='ReconstructionLoss', pixel=dict(type='L1'), perceptual=dict(type='LPIPS', net='vgg'), reduction='mean'
)

adversarial_loss = dict(type='AdversarialLoss', discriminator=dict(type='PatchGAN', num_layers=3), weight=0.8)
