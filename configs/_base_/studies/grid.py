"""The studies' grid: autoencoders and generators that several studies have, at whatever size, and what tables show."""

kl = dict(config='configs/studies/{size}/kl.py', start='configs/studies/{size}/kl_start.py')
kl_scratch = dict(config='configs/studies/{size}/kl_scratch.py')
vq = dict(config='configs/studies/{size}/vq.py', start='configs/studies/{size}/vq_start.py', normalization=None)
tiny = dict(config='configs/studies/{size}/tiny.py', start='configs/studies/{size}/tiny_start.py')
dit = dict(config='configs/studies/{size}/dit.py')
sit = dict(config='configs/studies/{size}/sit.py')
repa = dict(config='configs/studies/{size}/repa.py')
maskgit = dict(config='configs/studies/{size}/maskgit.py')
curve = (0.25, 0.5, 0.75, 1.0)

columns = dict(
    autoencoder=(
        'psnr',
        'ssim',
        'fd_effnet_lite0_112px',
        'eq_err/rotation',
        'eq_err/scale',
        'viv',
        'sec/0.25',
        'lnc@10',
        'intrinsic_dimension',
    ),
    generator=(
        'fd_effnet_lite0_112px',
        'fd_effnet_lite0_112px/reconstructions',
        'precision_effnet_lite0_112px',
        'coverage_effnet_lite0_112px',
        'swd',
    ),
)
score = 'fd_effnet_lite0_112px'
