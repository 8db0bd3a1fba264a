"""EQ-SDXL-VAE, SDXL-VAE fine-tuned with equivariance by KBlueLeaf; 83,653,863 parameters."""

# Its config.json has these, and a shift_factor of the wrong sign beside them: the two ways are alternatives.
autoencoder = dict(
    type='KLAutoencoder',
    mean=(-3.865960634760459, -1.3353925720045965, 0.8353661802812418, 0.909888159310023),
    std=(10.036514488374861, 6.848430044716239, 7.213817552213277, 5.591315799887989),
    weights='eqzoo://eq-sdxl-vae',
)
