"""The studies' grid on Shapes: autoencoders and generators that several studies have, and what tables show."""

kl = dict(config='configs/studies/shapes/kl.py', start='configs/studies/shapes/kl_start.py')
vq = dict(config='configs/studies/shapes/vq.py', start='configs/studies/shapes/vq_start.py', normalization=None)
tiny = dict(config='configs/studies/shapes/tiny.py', start='configs/studies/shapes/tiny_start.py')
dit = dict(config='configs/studies/shapes/dit.py', scores=(480,))
sit = dict(config='configs/studies/shapes/sit.py', scores=(480,))
repa = dict(config='configs/studies/shapes/repa.py', scores=(480,))
maskgit = dict(config='configs/studies/shapes/maskgit.py', scores=(480,))
curve = (120, 240, 360, 480)
