"""LlamaGen's f16 tokenizer (arXiv 2406.06525): 16,384 normalised codes of 8 numbers (ImageNet); 71,883,403 weights."""

autoencoder = dict(
    type='VQAutoencoder',
    latent_channels=8,
    num_codes=16384,
    feature_channels=256,
    quantizer=dict(type='NormalizedCodebook', num_codes=16384, channels=8),
    weights='eqzoo://llamagen-vq16-c2i',
)
