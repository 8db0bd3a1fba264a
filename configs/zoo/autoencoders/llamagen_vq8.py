"""LlamaGen's f8 tokenizer (arXiv 2406.06525): 16,384 normalised codes of 8 numbers (ImageNet); 70,109,835 weights."""

autoencoder = dict(
    type='VQAutoencoder',
    latent_channels=8,
    num_codes=16384,
    block_out_channels=(128, 256, 256, 512),
    feature_channels=256,
    attention_levels=(3,),
    quantizer=dict(type='NormalizedCodebook', num_codes=16384, channels=8),
    weights='eqzoo://llamagen-vq8-c2i',
)
