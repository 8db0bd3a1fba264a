"""Weights & Biases and MLflow as backends of the visualizer, under mmengine's names: `vis_backends=[...]`.

mmengine's own classes of these names do not work with current releases of both: W&B's steps count its calls instead of
the steps of training, and it copies all Python files of the current directory; MLflow's file store is refused since
release 3, its address in the environment is overwritten, and pictures need an ending that hooks do not give.
"""

import os
import re
from pathlib import Path
from typing import Any

import mmengine.visualization
import numpy as np
import torch
from mmengine.config import Config

from eqzoo.registry import VISUALIZER_BACKENDS
from eqzoo.zoo import without_passwords

_NOT_IN_A_NAME = re.compile(r'[^\w./ -]')  # characters that MLflow refuses in names
_MAX_PARAMETER = 500  # characters of a value in MLflow's parameters, in all its releases


@VISUALIZER_BACKENDS.register_module()
class WandbVisBackend(mmengine.visualization.WandbVisBackend):
    """Send scalars, pictures and the config of a run to Weights & Biases, or to files below the work directory.

    `WANDB_MODE=offline` writes to `<work_dir>/<time>/vis_data/wandb` and needs no account; `wandb sync` sends it later.

    Args:
        save_dir: The folder; the run supplies it.
        init_kwargs: Arguments of `wandb.init`, such as `dict(project='eqzoo', name='rotation')`.
        define_metric_cfg: Names of metrics with their summaries, such as `{'eq_err/rotation': 'min'}`.
        log_code_name: The name under which the Python files of the current directory are kept; None keeps none.

    Raises:
        ValueError: If W&B refuses, for instance without an account.
    """

    def __init__(
        self,
        save_dir: str,
        init_kwargs: dict | None = None,
        define_metric_cfg: dict | list | None = None,
        log_code_name: str | None = None,
    ) -> None:
        super().__init__(save_dir, dict(init_kwargs or {}), define_metric_cfg, log_code_name=log_code_name)

    def _init_env(self) -> None:
        import wandb

        try:
            super()._init_env()
        except wandb.errors.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f'visualizer: Weights & Biases does not start a run ({reason}); log in with `wandb login`, set '
                'WANDB_MODE=offline to write to the work directory, or leave WandbVisBackend out.'
            ) from error

    def add_config(self, config: Config, **_: Any) -> None:
        """Record the config, without passwords of URLs."""
        self.experiment.config.update(without_passwords(config.to_dict()), allow_val_change=True)
        if self._log_code_name is not None:
            self.experiment.run.log_code(name=self._log_code_name)

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **_: Any) -> None:
        """Record `image` (H, W, 3), uint8, at a step of training."""
        self._log({name: self.experiment.Image(image)}, step)

    def add_scalar(self, name: str, value: float | torch.Tensor | np.ndarray, step: int = 0, **_: Any) -> None:
        """Record a scalar at a step of training."""
        self._log({name: value}, step)

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **_: Any) -> None:
        """Record scalars by name at a step of training."""
        self._log(scalar_dict, step)

    def close(self) -> None:
        """Finish the run."""
        if hasattr(self, '_wandb'):
            self._wandb.finish()

    def _log(self, values: dict, step: int) -> None:
        self.experiment.log(values, step=step)  # values of one step are one row, whoever logs them


@VISUALIZER_BACKENDS.register_module()
class MLflowVisBackend(mmengine.visualization.MLflowVisBackend):
    """Send scalars, pictures and the config of a run to MLflow.

    Without an address, neither here nor in `MLFLOW_TRACKING_URI`, the database is
    `<work_dir>/<time>/vis_data/mlflow.db` with pictures beside it: `mlflow ui --backend-store-uri sqlite:///…`.

    Args:
        save_dir: The folder; the run supplies it.
        exp_name: The experiment. Default: 'eqzoo'.
        run_name: The name of the run.
        tags: Tags of the run.
        tracking_uri: The address of the server or database.
        artifact_location: Where the experiment keeps pictures, if it is new and the server does not say.

    Raises:
        ValueError: If MLflow refuses or cannot be reached.
    """

    def __init__(
        self,
        save_dir: str,
        exp_name: str = 'eqzoo',
        run_name: str | None = None,
        tags: dict | None = None,
        tracking_uri: str | None = None,
        artifact_location: str | None = None,
    ) -> None:
        super().__init__(
            save_dir, exp_name, run_name, tags, tracking_uri=tracking_uri, artifact_location=artifact_location
        )

    def _init_env(self) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise ValueError(
                f"visualizer: mlflow cannot be imported ({error}); expected: pip install --upgrade 'eqzoo[mlflow]'."
            ) from error
        self._mlflow = mlflow
        folder = Path(self._save_dir).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        address = self._tracking_uri or os.environ.get('MLFLOW_TRACKING_URI')
        artifacts = self._artifact_location or (None if address else (folder / 'mlflow').as_uri())
        try:
            mlflow.set_tracking_uri(address or f'sqlite:///{folder / "mlflow.db"}')
            if mlflow.get_experiment_by_name(self._exp_name) is None:
                mlflow.create_experiment(self._exp_name, artifact_location=artifacts)
            mlflow.set_experiment(self._exp_name)
            mlflow.start_run(run_name=self._run_name, tags=self._tags)
        except (mlflow.exceptions.MlflowException, ImportError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f'visualizer: MLflow does not start a run ({reason}); expected an address in MLFLOW_TRACKING_URI or '
                'tracking_uri, or for a database in the work directory, which mlflow-skinny does not have, pip install '
                "'eqzoo[mlflow]'."
            ) from error

    def add_config(self, config: Config, **_: Any) -> None:
        """Record the config, without passwords of URLs: values as parameters, the text as `config.py`."""
        values = self._flatten(without_passwords(config.to_dict()))
        names = {key: _NOT_IN_A_NAME.sub('_', str(key)) for key in values}
        self.experiment.log_params({names[key]: str(value)[:_MAX_PARAMETER] for key, value in values.items()})
        self.experiment.log_text(config.pretty_text, 'config.py')

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **_: Any) -> None:
        """Record `image` (H, W, 3), uint8, as `pictures/<name>_<step>.png`."""
        self.experiment.log_image(image, f'pictures/{name}_{step:07d}.png')

    def add_scalar(self, name: str, value: float | torch.Tensor | np.ndarray, step: int = 0, **_: Any) -> None:
        """Record a scalar at a step of training."""
        self.add_scalars({name: value}, step)

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **_: Any) -> None:
        """Record scalars by name at a step of training."""
        values = {_NOT_IN_A_NAME.sub('_', name): float(value) for name, value in scalar_dict.items()}
        self.experiment.log_metrics(values, step)

    def close(self) -> None:
        """Finish the run."""
        if hasattr(self, '_mlflow'):
            self._mlflow.end_run()
