"""The optimizers of bitsandbytes and transformers, under the names that mmengine gives them.

Importing the two packages takes seconds, so this module is imported only for a name of theirs (`OPTIMIZERS.rare`), and
`eqzoo.engine.optimizers` keeps mmengine from importing them. Without a package there are no optimizers of it.
"""

from mmengine.optim.optimizer import builder

# not again what mmengine has registered itself, in a program that imported it before eqzoo
if not builder.BITSANDBYTES_OPTIMIZERS:
    builder.BITSANDBYTES_OPTIMIZERS = builder.register_bitsandbytes_optimizers()
if not builder.TRANSFORMERS_OPTIMIZERS:
    builder.TRANSFORMERS_OPTIMIZERS = builder.register_transformers_optimizers()
