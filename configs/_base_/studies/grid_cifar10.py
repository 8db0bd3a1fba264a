"""The studies' grid on CIFAR-10: autoencoders and generators that several studies have, and what tables show."""

kl = dict(config='configs/studies/cifar10/kl.py', start='configs/studies/cifar10/kl_start.py')
vq = dict(config='configs/studies/cifar10/vq.py', start='configs/studies/cifar10/vq_start.py', normalization=None)
tiny = dict(config='configs/studies/cifar10/tiny.py', start='configs/studies/cifar10/tiny_start.py')
dit = dict(config='configs/studies/cifar10/dit.py', scores=(4000,))
sit = dict(config='configs/studies/cifar10/sit.py', scores=(4000,))
repa = dict(config='configs/studies/cifar10/repa.py', scores=(4000,))
maskgit = dict(config='configs/studies/cifar10/maskgit.py', scores=(4000,))
curve = (1000, 2000, 3000, 4000)
