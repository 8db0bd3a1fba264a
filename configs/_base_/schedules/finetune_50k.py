"""Five epochs of 10,000 steps (EQ-VAE, Sec. 4.4), Adam as LDM's."""

train_cfg = dict(max_iters=50_000, val_interval=5000)

# The paper states no learning rate. The released command computes 7.2e-4, but resumes LDM's
# checkpoint, which restores its own. 1e-4 is our choice.
optim_wrapper = dict(
    autoencoder=dict(optimizer=dict(type='Adam', lr=1e-4, betas=(0.5, 0.9), fused=True)),
    discriminator=dict(optimizer=dict(type='Adam', lr=1e-4, betas=(0.5, 0.9), fused=True)),
)
