"""LDM's losses as EQ-VAE fine-tunes with: L1 + LPIPS, KL 1e-6, PatchGAN from the first step."""

reconstruction_loss = dict(type='ReconstructionLoss', pixel=dict(type='L1'), perceptual=dict(type='LPIPS', net='vgg'))

penalties = [dict(type='KLDivergence', weight=1e-6)]

adversarial_loss = dict(type='AdversarialLoss', discriminator=dict(type='PatchGAN', num_layers=3), weight=0.5)
