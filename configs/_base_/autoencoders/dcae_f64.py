"""DC-AE f64 with 128 channels, of ImageNet: mit-han-lab/dc-ae-f64c128-in-1.0; deterministic; 676,896,140 parameters."""

_blocks = ('ResBlock',) * 3 + ('EfficientViTBlock',) * 4
_widths = (128, 256, 512, 512, 1024, 1024, 2048)

# Its config.json states no scale: latents stay raw until they are measured.
autoencoder = dict(
    type='DiffusersAutoencoder',
    class_name='AutoencoderDC',
    fields=dict(
        latent_channels=128,
        encoder_block_types=_blocks,
        decoder_block_types=_blocks,
        encoder_block_out_channels=_widths,
        decoder_block_out_channels=_widths,
        encoder_layers_per_block=(0, 4, 8, 2, 2, 2, 2),
        decoder_layers_per_block=(0, 5, 10, 2, 2, 2, 2),
        encoder_qkv_multiscales=((),) * 7,
        decoder_qkv_multiscales=((),) * 7,
        decoder_norm_types=('batch_norm',) * 3 + ('rms_norm',) * 4,
        decoder_act_fns=('relu',) * 3 + ('silu',) * 4,
    ),
    weights='eqzoo://dc-ae-f64c128-in',
)
