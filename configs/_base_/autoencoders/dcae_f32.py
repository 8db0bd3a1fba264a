"""DC-AE f32 with 32 channels, of Sana: mit-han-lab/dc-ae-f32c32-sana-1.0; deterministic; 312,250,275 parameters."""

_blocks = ('ResBlock',) * 3 + ('EfficientViTBlock',) * 3

autoencoder = dict(
    type='DiffusersAutoencoder',
    class_name='AutoencoderDC',
    fields=dict(
        encoder_block_types=_blocks,
        decoder_block_types=_blocks,
        downsample_block_type='conv',
        upsample_block_type='interpolate',
    ),
    scale=0.41407,
    weights='eqzoo://dc-ae-f32c32-sana',
)
