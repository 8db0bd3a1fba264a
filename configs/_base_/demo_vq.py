"""The demo's VQ autoencoder, f8 with 256 codes, 8 x 8 of which are an image; and its changes to the demo's configs."""

autoencoder = dict(
    type='VQAutoencoder',
    latent_channels=8,
    num_codes=256,
    block_out_channels=(16, 32, 32, 64),
    feature_channels=64,
    layers_per_block=1,
    attention_levels=(),
    norm_num_groups=8,
)
# taming's: means, and the autoencoder's own codebook loss instead of the divergence
losses = dict(
    reconstruction_loss=dict(type='ReconstructionLoss', pixel=dict(type='L1'), reduction='mean'), penalties=[]
)
# in so few steps, unused codes would stay unused
codebook_hook = dict(type='CodebookHook', revive_after=100)
codebook_usage = dict(type='CodebookUsage')
