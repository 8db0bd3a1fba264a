"""What the studies' tables show; everything else that was measured is in their CSV and JSON."""

columns = dict(
    autoencoder=('psnr', 'ssim', 'fd_effnet_lite0_112px', 'eq_err/rotation', 'eq_err/scale', 'intrinsic_dimension'),
    generator=('fd_effnet_lite0_112px', 'precision_effnet_lite0_112px', 'coverage_effnet_lite0_112px', 'swd'),
)
score = 'fd_effnet_lite0_112px'
